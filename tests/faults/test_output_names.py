"""As many outputs and score entries as inputs, and each input keeps its name."""

import json
import os
import pathlib
import unicodedata

import pytest

from data_prep import spans
from foley_jax.inference import jobs, score_file
from foley_jax.media import files


class Clip:
    def __init__(self, text):
        self.text, self.scores = text, {"score": 1.0}

    def save(self, path):
        pathlib.Path(path).write_text(self.text)

    plot = save


class Job:
    """Every file is made into clips that say which file it was."""

    def __init__(self, keep=1, steps=25):
        self.made, self.keep, self.steps = [], keep, steps

    def read(self, video):
        return video.name

    def make(self, sources):
        self.made += sources
        return sources

    def finish(self, made):
        return [[Clip(source)] * self.keep for source in made]

    def settings(self):
        return {"steps": self.steps, "keep": self.keep}


def _run(inputs, out, **options) -> list[str]:
    """Returns what the command makes of files and folders: names of the files that it worked on."""
    job = Job(**options)
    videos = files.find(inputs, files.VIDEO_SUFFIXES, leave_out=[out]).paths
    assert jobs.Batch(job, videos, jobs.Folder(out, job.settings())).run() == {}
    return job.made


def _whose(out: pathlib.Path) -> dict[str, str]:
    """Output name -> the file that it was made of, by what is written in it."""
    return {path.stem: path.read_text() for path in sorted(out.glob("*.mp4"))}


def _entries(out: pathlib.Path) -> dict[str, str]:
    clips = json.loads((out / "scores.json").read_text())["clips"]
    return {name: os.path.basename(entry["video"]) for name, entry in clips.items()}


def _touch(folder: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "names",
    [
        ("a.mov", "a.mp4", "a_2.mp4"),
        ("a.mp4", "a.mov", "a.avi", "a_2.mp4", "a_3.mp4", "a_2.mov"),
        ("x/a.mp4", "y/a.mp4", "z/a_2.mp4", "z/a_2_2.mp4"),
        ("A.mp4", "a.mp4", "a_2.mov", "A_2.mp4"),
        (f"x/{NFC}.mp4", f"y/{NFD}.mp4"),
        ("a.mp4", "a.best2.mp4"),
        ("x/a.mp4", "y/a.mp4", "a_2.best2.mp4", "a.best3.mov"),
        ("a.best2.mp4", "A.Best2.mov", "A.mp4", "a.mov", "a_2.best2.mov"),
        ("contact_sheet.mp4", "scores.mp4", "scores.0.mp4", "failures.mov", "tmp.mp4"),
        ("a.b.mp4", "a.b.mov", "a.mp4", "a.c.mp4"),
    ],
)
@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_outputs_and_entries_as_inputs(tmp_path, names, keep):
    folder, out = _touch(tmp_path / "v", *names), tmp_path / "out"
    _run([folder], out, keep=keep)
    written = sorted(path.name for path in out.iterdir())
    assert len(written) == len(names) * keep * 3 + 1
    # the same on a disk that ignores case and the spelling of accents
    assert len({unicodedata.normalize("NFC", name).casefold() for name in written}) == len(written)
    entries, whose = _entries(out), _whose(out)
    assert sorted(entries.values()) == sorted(os.path.basename(name) for name in names)
    for name, video in entries.items():
        ranks = [name, *(f"{name}.best{rank}" for rank in range(2, keep + 1))]
        assert [whose.pop(rank) for rank in ranks] == [video] * keep
    assert whose == {}
    assert _run([folder], out, keep=keep) == []


def test_names_that_nobody_else_wants_are_the_files_own(tmp_path):
    folder = _touch(tmp_path / "v", "b.mp4", "a.b.MOV", "x/-c.mp4", "x/d_2.mp4", "E.mp4")
    _run([folder], tmp_path / "out")
    assert _entries(tmp_path / "out") == {
        "E": "E.mp4",
        "a.b": "a.b.MOV",
        "b": "b.mp4",
        "-c": "-c.mp4",
        "d_2": "d_2.mp4",
    }


def test_an_input_keeps_its_name_when_the_folder_grows(tmp_path):
    folder, out = _touch(tmp_path / "v", "a.mov", "k/a.mp4"), tmp_path / "out"
    _run([folder], out)
    assert _entries(out) == {"a": "a.mov", "a_2": "a.mp4"}
    _touch(folder, "a.avi", "A.mp4", "a_2.mp4", "a.best2.mp4", "0/a.mov")
    made = _run([folder], out)
    assert sorted(made) == ["A.mp4", "a.avi", "a.best2.mp4", "a.mov", "a_2.mp4"]
    entries, whose = _entries(out), _whose(out)
    assert len(entries) == 7 and entries == whose
    assert (entries["a"], entries["a_2"]) == ("a.mov", "a.mp4")
    assert _run([folder], out) == []


def test_names_stay_where_settings_change(tmp_path):
    folder, out = _touch(tmp_path / "v", "b/a.mov"), tmp_path / "out"
    _run([folder], out)
    _touch(folder, "a/a.mov")
    assert sorted(_run([folder], out, steps=50)) == ["a.mov", "a.mov"]
    clips = json.loads((out / "scores.json").read_text())["clips"]
    assert {name: entry["video"] for name, entry in clips.items()} == {
        "a": f"{folder}/b/a.mov",
        "a_2": f"{folder}/a/a.mov",
    }


def test_another_file_of_a_name_that_is_done_is_made(tmp_path):
    """One command for x/hit.mp4, the next for y/hit.mp4, into one folder."""
    folder, out = _touch(tmp_path / "v", "x/hit.mp4", "y/hit.mp4", "y/hit.mov"), tmp_path / "out"
    for name in ("x/hit.mp4", "y/hit.mp4", "y/hit.mov"):
        assert _run([folder / name], out) == [os.path.basename(name)]
    clips = json.loads((out / "scores.json").read_text())["clips"]
    assert {name: entry["video"] for name, entry in clips.items()} == {
        "hit": f"{folder}/x/hit.mp4",
        "hit_2": f"{folder}/y/hit.mp4",
        "hit_3": f"{folder}/y/hit.mov",
    }
    assert _run([folder], out) == []


@pytest.mark.parametrize("way", ["relative", "absolute", "from elsewhere", "link", "moved"])
def test_files_are_known_by_every_path(tmp_path, monkeypatch, way):
    folder, out = _touch(tmp_path / "v", "x/a.mov", "y/a.mov", "y/a.avi"), tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    _run(["v/y", "v/x"], out)
    before = _entries(out)
    _touch(folder, "0/a.mov")
    if way == "from elsewhere":
        monkeypatch.chdir(folder / "x")
    elif way == "link":
        (tmp_path / "alias").symlink_to("v")
    elif way == "moved":
        os.rename(folder, tmp_path / "w")
    searched = {
        "absolute": folder,
        "from elsewhere": "..",
        "link": "alias",
        "moved": tmp_path / "w",
    }
    assert _run([searched.get(way, "v")], out) == ["a.mov"]
    after = _entries(out)
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1


def test_links_given_by_name_keep_their_names(tmp_path):
    folder, out = _touch(tmp_path / "v", "a.mp4"), tmp_path / "out"
    for name in ("one.mp4", "two.mp4"):
        (folder / name).symlink_to("a.mp4")
    given = [folder / "two.mp4", folder / "one.mp4"]
    assert sorted(_run(given, out)) == ["one.mp4", "two.mp4"]
    assert _run(given[::-1], out) == []


def test_scores_of_colliding_names_made_before_are_completed(tmp_path):
    """An earlier version wrote a_2 for a.mp4 and then for a_2.mp4."""
    folder, out = _touch(tmp_path / "v", "a.mov", "a.mp4", "a_2.mp4"), tmp_path / "out"
    scores = score_file.ScoreFile(out, Job().settings())
    out.mkdir()
    scores.add("a", {"video": f"{folder}/a.mov"})
    scores.add("a_2", {"video": f"{folder}/a_2.mp4"})
    scores.merge()
    assert _run([folder], out) == ["a.mp4"]
    assert _entries(out) == {"a": "a.mov", "a_2": "a_2.mp4", "a_3": "a.mp4"}


@pytest.mark.parametrize(
    ("sources", "want"),
    [
        (["a.mov", "a.mp4", "x/a.mp4"], ["a.mov", "a.mp4", "x/a"]),
        (["a.mov", "a.mp4", "a.mp4.avi"], ["a.mov", "a.mp4", "a.mp4.avi"]),
        (["a.mp4", "a.mp4.avi"], ["a", "a.mp4"]),
        (["a.mov", "a.mp4", "a.mp4.avi", "a.mp4.avi.ts"], None),
    ],
)
def test_prepared_clips_of_all_files_have_ids_of_their_own(sources, want):
    found = spans.names_of(sources)
    assert len(set(found)) == len(sources) and found == (want or sources)


def test_a_killed_run_keeps_its_names(tmp_path):
    folder, out = _touch(tmp_path / "v", "a.mov"), tmp_path / "out"
    out.mkdir()
    score_file.ScoreFile(out, Job().settings(), index=1).add("a", {"video": f"{folder}/a.mov"})
    _touch(folder, "a.avi")
    assert _run([folder], out) == ["a.avi"]
    assert _entries(out) == {"a": "a.mov", "a_2": "a.avi"}
