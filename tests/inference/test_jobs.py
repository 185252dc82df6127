"""A batch skips what is done, survives bad files, and keeps names apart."""

import json
from pathlib import Path
import subprocess
import sys
import threading

import pytest

from foley_jax.inference import jobs, score_file
from foley_jax.media import files, names


class FakeClip:
    def __init__(self, name):
        self.name, self.scores = name, {"score": 1.0}

    def save(self, path):
        Path(path).write_text(self.name)

    def plot(self, path):
        Path(path).write_text(self.name)


class FakeJob:
    """Reads file names; a name with 'bad' in it fails like a broken video."""

    def __init__(self, steps=25, keep=1):
        self.made, self.steps, self.keep = [], steps, keep

    def read(self, video):
        if "bad" in video.name:
            raise ValueError("no video stream")
        return video.stem

    def make(self, sources):
        self.made += sources
        if "odd" in sources and len(sources) > 1:
            raise ValueError("does not go with others")
        return sources

    def finish(self, made):
        return [[FakeClip(s), FakeClip(s)][: self.keep] for s in made]

    def settings(self):
        return {"steps": self.steps}


def _batch(job, videos, out, **options):
    return jobs.Batch(job, videos, jobs.Folder(out, job.settings()), **options)


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / "in" / f"{n}.mp4" for n in ("a", "b", "bad", "c", "d")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return paths


def test_one_bad_file_never_stops_the_rest(videos, tmp_path):
    counted = []
    run = _batch(FakeJob(), videos, tmp_path / "out", group=2, progress=counted.append)
    failures = run.run()
    assert failures == {str(videos[2]): "no video stream"}
    assert sum(counted) == len(videos)
    written = sorted(p.name for p in (tmp_path / "out").glob("*.mp4"))
    assert written == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert sorted(scores["clips"]) == ["a", "b", "c", "d"]


def test_a_second_run_makes_only_what_is_missing(videos, tmp_path):
    _batch(FakeJob(), videos[:2], tmp_path / "out").run()
    again = FakeJob()
    _batch(again, videos, tmp_path / "out").run()
    assert again.made == ["c", "d"]


def test_other_settings_make_everything_again(videos, tmp_path):
    _batch(FakeJob(steps=25), videos[:2], tmp_path / "out").run()
    again = FakeJob(steps=50)
    _batch(again, videos[:2], tmp_path / "out").run()
    assert again.made == ["a", "b"]


def test_equal_names_from_different_folders_do_not_overwrite_each_other():
    found = names.output_names([Path("x/hit.mp4"), Path("y/hit.mp4"), Path("y/other.mp4")])
    assert found == ["hit", "hit_2", "other"]


def test_folders_are_searched_for_videos(videos, tmp_path):
    (tmp_path / "in" / "notes.txt").touch()
    assert files.find([tmp_path / "in"], files.VIDEO_SUFFIXES).paths == sorted(videos)


def test_one_video_that_cannot_be_made_with_others_is_made_alone(videos, tmp_path):
    odd = videos[0].with_name("odd.mp4")
    odd.touch()
    assert _batch(FakeJob(), [*videos[:2], odd], tmp_path / "out").run() == {}
    assert (tmp_path / "out" / "odd.mp4").exists()


def test_the_best_clips_are_saved_under_their_rank(videos, tmp_path):
    _batch(FakeJob(keep=2), videos[:1], tmp_path / "out").run()
    assert sorted(p.name for p in (tmp_path / "out").glob("*.mp4")) == ["a.best2.mp4", "a.mp4"]
    entry = json.loads((tmp_path / "out" / "scores.json").read_text())["clips"]["a"]
    assert entry["score"] == 1.0 and entry["others"] == [{"score": 1.0}]


def test_the_next_group_is_made_while_the_last_one_is_finished(videos, tmp_path):
    class Slow(FakeJob):
        second = threading.Event()

        def make(self, sources):
            if self.made:
                self.second.set()
            return super().make(sources)

        def finish(self, made):
            assert self.second.wait(10), "the device waited for the audio"
            return super().finish(made)

    job = Slow()
    _batch(job, [videos[0], videos[1]], tmp_path / "out", group=1).run()
    assert job.made == ["a", "b"]


def test_long_videos_are_not_all_held_at_once(videos, tmp_path, monkeypatch):
    class Heavy(str):
        nbytes = 10

    reads, held = [], []

    class Job(FakeJob):
        def read(self, video):
            reads.append(video)
            return Heavy(video.stem)

        def make(self, sources):
            held.append(len(reads) - len(self.made) - len(sources))
            return super().make(sources)

    monkeypatch.setattr(jobs, "HELD_BYTES", 10)
    many = [videos[0].with_name(f"v{i}.mp4") for i in range(20)]
    job = Job()
    _batch(job, many, tmp_path / "out", group=16).run()
    assert len(job.made) == 20 and max(held) <= 5


def test_a_killed_batch_is_continued(videos, tmp_path):
    """Killed for real, with a line half written."""
    out, code = (
        tmp_path / "out",
        """
import pathlib, sys, time
from foley_jax.inference import score_file
out, name = pathlib.Path(sys.argv[1]), sys.argv[2]
scores = score_file.ScoreFile(out, {"steps": (25,)}, index=1)
scores.add(name, {"score": 1.0})
scores.add("b", {"score": 2.0})
with open(out / "scores.1.jsonl", "a") as file:
    file.write('["c", {"sco')
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
""",
    )
    out.mkdir()
    child = subprocess.Popen([sys.executable, "-c", code, out, "a"], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.kill()
    child.communicate()
    assert score_file.ScoreFile(out, {"steps": [50]}).done == {}
    scores = score_file.ScoreFile(out, {"steps": (25,)}, index=1)
    assert scores.done == {"a": {"score": 1.0}, "b": {"score": 2.0}}
    scores.add("c", {"score": 3.0})
    assert sorted(score_file.ScoreFile(out, {"steps": [25]}).done) == ["a", "b", "c"]


def test_scores_of_several_processes_become_one_file(tmp_path):
    first, second = (score_file.ScoreFile(tmp_path, {"steps": 1}, index) for index in range(2))
    first.add("b", {})
    second.add("a", {"score": 2.0})
    assert not (tmp_path / "scores.json").exists()
    first.merge()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    want = {"settings": {"steps": 1}, "clips": {"a": {"score": 2.0}, "b": {}}}
    assert json.loads((tmp_path / "scores.json").read_text()) == want
    again = score_file.ScoreFile(tmp_path, {"steps": 1})
    again.add("c", {})
    assert sorted(score_file.ScoreFile(tmp_path, {"steps": 1}).done) == ["a", "b", "c"]
    other = score_file.ScoreFile(tmp_path, {"steps": 2})
    assert other.done == {} and (tmp_path / "scores.json").exists()
    other.add("a", {})
    assert not (tmp_path / "scores.json").exists()  # its files are being overwritten
    other.merge()
    assert json.loads((tmp_path / "scores.json").read_text())["clips"] == {"a": {}}


def test_the_first_group_can_be_waited_for(videos, tmp_path):
    job, warm = FakeJob(), []
    good = [videos[0], videos[1], videos[3]]
    done = lambda: sorted(path.stem for path in (tmp_path / "out").glob("*.mp4"))  # noqa: E731
    _batch(job, good, tmp_path / "out", group=1, when_warm=lambda: warm.append(done())).run()
    assert warm == [["a"]] and done() == ["a", "b", "c"]
