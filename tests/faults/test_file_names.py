"""Any name that a file may have: on command lines, in what is printed and written, in images."""

import csv
import io
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from data_prep import inspect, manifest, prepare, scenes, shard_plan
from data_prep.sources import folder as folder_source
from data_prep.sources import report
from foley_jax import convert, generate, sample
from foley_jax.evaluation import __main__ as evaluation
from foley_jax.evaluation import seeds
from foley_jax.inference import jobs, score_file
from foley_jax.media import audio as audio_io
from foley_jax.media import file_arguments, names, plots
from tests.data_prep import shard_sets
from tests.media import media_files

LATIN_1 = os.fsdecode(b"caf\xe9")  # as old Windows and Mac archives unpack
STRANGE = (
    LATIN_1,
    "-x",
    "--0PQM4-hqg_000030",  # VGGSound has many of these
    "--out",
    "-1",
    "-",
    "$a_{$",  # no formula
    "line\nbreak",
    "a'b\"c&<d>",
    "% s %d {x}",
    "名前 é",
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- command lines ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-x.mp4", "--0PQM4-hqg_000030.mp4", "-dir/x.mp4", "--out.mp4"])
@pytest.mark.parametrize("parser", [sample.parser, generate.parser])
def test_existing_files_are_inputs(here, parser, name):
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).touch()
    for words in (["--model=m", name], [name, "--model", "m"], ["a.mp4", name, "--model=m"]):
        args = parser().parse_args(words)
        assert [str(pathlib.Path(word)) for word in args.inputs][-1] == name
        assert args.model == "m" and args.out == "out"


def test_existing_folders_are_values_of_options(here):
    for name in ("-ref", "--gen=1", "-out"):
        (here / name).mkdir()
    words = ["--protocol=onsets", "--reference", "-ref", "--generated", "--gen=1", "--out", "-out"]
    args = evaluation.parser().parse_args(words)
    assert args.reference == [pathlib.Path("-ref")] and args.out == pathlib.Path("-out")
    assert [pathlib.Path(folder) for folder in args.generated] == [pathlib.Path("--gen=1")]
    args = convert.parser().parse_args(["diff_foley/cavp", "-ref", "-out"])
    assert [str(pathlib.Path(path)) for path in (args.source, args.folder)] == ["-ref", "-out"]


def test_folders_with_an_equals_sign_need_no_name(here):
    (here / "cfg=4.5").mkdir()
    folders = seeds.parse(["cfg=4.5", "ours=cfg=4.5", "theirs=gone"], "generated")
    assert folders == {
        "generated": [pathlib.Path("cfg=4.5")],
        "ours": [pathlib.Path("cfg=4.5")],
        "theirs": [pathlib.Path("gone")],
    }


def test_options_stay_options_whatever_files_there_are(here):
    for name in ("--out", "--model", "-h", "--seed=3", "--sam"):
        (here / name).touch()
    args = generate.parser().parse_args(["a.mp4", "--out", "o", "--model=m", "--seed=3"])
    assert (args.inputs, args.out, args.model, args.seed) == (["a.mp4"], "o", "m", 3)
    with pytest.raises(SystemExit):
        generate.parser().parse_args(["--sam", "a.mp4", "--model=m"])  # short for several
    args = generate.parser().parse_args(["--model=m", "--", "--out", "-h"])
    assert args.inputs == ["--out", "-h"]


def test_a_name_that_is_not_there_says_how_it_is_written(here, capsys):
    with pytest.raises(SystemExit):
        sample.parser().parse_args(["--model=m", "--0PQM4-hqg_000030.mp4"])
    assert "written ./--0PQM4-hqg_000030.mp4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sample.parser().parse_args(["--modle=m", "a.mp4"])
    assert "dash" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-v", "--videos-of-mine"])
def test_data_commands_take_dashed_folders_and_files(here, name, capsys):
    shard_sets.write_videos(here / name, 1)
    (here / name / "train/v0.mp4").rename(here / name / "train/--0PQM4-hqg.mp4")
    folder_source.main([name, "--out=-m.jsonl"])
    options = [*shard_sets.FLAGS, "--workers=1", "--num_shards=1"]
    prepare.main([name, "shards", *options, "--manifest", "-m.jsonl"])
    assert shard_sets.read_ids(here / "shards", "train") == ["train/--0PQM4-hqg#0"]
    (here / "shards").rename(here / "-s")
    with pytest.raises(SystemExit, match="^0$"):
        inspect.main(["-s", "--quick"])
    assert "1 train" in capsys.readouterr().out


def test_every_command_of_files_has_such_a_parser(monkeypatch):
    """They all are made where this is seen."""
    made = [sample.parser(), generate.parser(), convert.parser(), evaluation.parser()]
    made += [prepare.make_parser("x", "x"), report.parser("x", "x")]
    assert all(isinstance(one, file_arguments.Parser) for one in made)
    seen = []
    monkeypatch.setattr(
        file_arguments.Parser, "parse_known_args", lambda *_: seen.append(1) or 1 / 0
    )
    for command in (inspect.main, scenes.main):
        with pytest.raises(ZeroDivisionError):
            command([])
    assert len(seen) == 2


# ---- names that are no UTF-8 ------------------------------------------------------------------


def test_bytes_are_shown_as_escapes():
    assert names.shown(LATIN_1) == r"caf\xe9"
    assert names.shown("\ud800é\n") == "\\ud800é\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_printing_never_raises(monkeypatch, encoding):
    """As with `PYTHONIOENCODING=utf-8:strict`, or in the C locale."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding))
    sample.parser().parse_args(["--model=m", "a"])
    for stream in (sys.stdout, sys.stderr):
        print(*STRANGE, file=stream)
        stream.flush()
        assert b"caf" in stream.buffer.getvalue()


def _clip(name: str) -> sample.Clip:
    """Audio for a video that is not there, as no video is written here."""
    return sample.Clip(
        audio=np.zeros(800, np.float32),
        sample_rate=8000,
        mel_FT=np.zeros((8, 20), np.float32),
        frame_s=0.1,
        scores={"cavp_similarity": 0.5},
        video=pathlib.Path(f"{name}.mp4"),
    )


@pytest.mark.parametrize("name", STRANGE)
def test_audio_and_plots_of_any_name(tmp_path, name):
    clip = _clip(name)
    clip.save(tmp_path / f"{name}.wav")
    clip.plot(tmp_path / f"{name}.png")
    row = plots.SheetRow(np.zeros((2, 8, 8, 3), np.uint8), clip.audio, 8000, 10.0, name)
    plots.save_contact_sheet(tmp_path / f"{name}.sheet.png", [row])
    assert sorted(os.listdir(tmp_path)) == sorted(
        f"{name}.{kind}" for kind in ("wav", "png", "sheet.png")
    )


class _Job:
    def read(self, video):
        if "bad" in video.name:
            raise ValueError(f"{video}: it is bad")
        return video

    def make(self, sources):
        return sources

    def finish(self, made):
        class Clip(sample.Clip):
            def save(self, path):
                path.touch() if path.suffix == ".mp4" else super().save(path)

        return [[Clip(**vars(_clip(video.stem)))] for video in made]

    def settings(self):
        return {}


def test_a_batch_of_any_names_is_written_and_resumed(tmp_path):
    folder, out = tmp_path / "v", tmp_path / "out"
    folder.mkdir()
    for name in STRANGE:
        (folder / f"{name}.mp4").touch()
    (folder / f"bad{LATIN_1}.mov").touch()
    videos = jobs.find_inputs([folder], out)
    assert len(videos) == len(STRANGE) + 1
    run = jobs.Batch(_Job(), videos, jobs.Folder(out, {}))
    failed = run.run()
    assert list(failed) == [f"{folder}/bad{LATIN_1}.mov"]
    clips = json.loads((out / "scores.json").read_text())["clips"]
    assert sorted(clips) == sorted(STRANGE)
    assert {f"{name}.wav" for name in STRANGE} <= set(os.listdir(out))
    score_file.write_json(out / "failures.json", failed)
    assert json.loads((out / "failures.json").read_text()) == failed
    again = jobs.Batch(_Job(), videos, jobs.Folder(out, {}))
    assert [video.name for video in again.todo] == [f"bad{LATIN_1}.mov"]


def test_prepare_says_the_same_of_whole_files_and_of_listed_clips(here, capsys):
    videos = shard_sets.write_videos(here / "v", 1)
    media_files.write(videos / "train/long.mp4", seconds=1.0, times_s=(0.2,))
    (videos / "train/long.mp4").rename(videos / f"train/{LATIN_1}.mp4")
    options = [*shard_sets.FLAGS, "--workers=1", "--num_shards=1"]
    prepare.main(["v", "whole", *options])
    file = f"train/{LATIN_1}.mp4"
    entries = [
        manifest.Entry("one", file, "train", 0.0, 1.0),
        manifest.Entry("two", "train/v0.mp4", "train", 0.0, 1.0),
    ]
    manifest.write(here / "m.jsonl", entries)
    prepare.main(["v", "listed", *options, "--manifest=m.jsonl"])
    for shards in ("whole", "listed"):
        failures = shard_sets.read_failures(here / shards)
        (told,) = [one for one in failures if one["file"] == file]
        assert told["reason"] == "bad_name"
        assert told["detail"].endswith("its name is no UTF-8; rename it")
        assert len(shard_sets.read_ids(here / shards, "train")) == 1


# ---- evaluation -------------------------------------------------------------------------------


@pytest.mark.slow
def test_items_of_any_name_are_judged_and_told(here, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    strange = (LATIN_1, "--0PQM4-hqg_000030", "a'b\"c&<d>")
    for folder in ("-true", "-made"):
        (here / folder).mkdir()
        for i, name in enumerate(strange):
            audio_L = media_files.clicks([0.3 + 0.05 * i, 0.9], 1.2)
            audio_L += 1e-5 * rng.normal(size=len(audio_L)).astype(np.float32)
            audio_io.write_wav(here / folder / f"{name}.wav", audio_L, media_files.RATE_HZ)
    (here / f"-made/{strange[1]}.wav").write_bytes(b"broken")
    strict = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", strict)
    words = ["--protocol=onsets", "--reference", "-true", "--generated=ours=-made", "--out=report"]
    assert evaluation.main(words) == 0
    shown = [names.shown(name) for name in strange]
    card = json.loads((here / "report/run_card.json").read_text())
    items = card["systems"]["ours"][0]["items"]
    assert (items["requested"], items["scored"]) == (len(strange), len(strange) - 1)
    assert list(items["unreadable"]) == [strange[1]]
    with (here / "report/per_sample.csv").open(newline="") as file:
        rows = [row["name"] for row in csv.DictReader(file) if row["system"] == "ours"]
    assert sorted(rows) == sorted(shown)
    page = (here / "report/index.html").read_text()
    assert r"caf\xe9" in page and "caf%E9.wav" in page


def test_names_in_manifests_come_back(here):
    folder = here / "v"
    folder.mkdir()
    for name in STRANGE:
        (folder / f"{name}.mp4").touch()
    folder_source.main(["v", "--out=m.jsonl"])
    segments, _ = shard_plan.read_manifest("m.jsonl", "auto")
    assert sorted(one.source for one in segments) == sorted(f"{name}.mp4" for name in STRANGE)
