"""A batch skips what is done, survives bad files, and keeps names apart."""

import json
from pathlib import Path

import pytest

from foley_jax import batch


class FakeClip:
    def __init__(self, name):
        self.name, self.scores = name, {"score": 1.0}

    def save(self, path):
        Path(path).write_text(self.name)

    def plot(self, path):
        Path(path).write_text(self.name)


class FakeJob:
    """Reads file names; a name with 'bad' in it fails like a broken video."""

    def __init__(self, steps=25):
        self.made, self.steps = [], steps

    def read(self, video):
        if "bad" in video.name:
            raise ValueError("no picture stream")
        return video.stem

    def make(self, sources):
        self.made += sources
        return [FakeClip(s) for s in sources]

    def settings(self):
        return {"steps": self.steps}


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / "in" / f"{n}.mp4" for n in ("a", "b", "bad", "c", "d")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return paths


def test_one_bad_file_never_stops_the_rest(videos, tmp_path):
    counted = []
    run = batch.Batch(FakeJob(), videos, tmp_path / "out", group=2, progress=counted.append)
    failures = run.run()
    assert failures == {str(videos[2]): "no picture stream"}
    assert sum(counted) == len(videos)
    written = sorted(p.name for p in (tmp_path / "out").glob("*.mp4"))
    assert written == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert sorted(scores["clips"]) == ["a", "b", "c", "d"]


def test_a_second_run_makes_only_what_is_missing(videos, tmp_path):
    batch.Batch(FakeJob(), videos[:2], tmp_path / "out").run()
    again = FakeJob()
    batch.Batch(again, videos, tmp_path / "out").run()
    assert again.made == ["c", "d"]


def test_other_settings_make_everything_again(videos, tmp_path):
    batch.Batch(FakeJob(steps=25), videos[:2], tmp_path / "out").run()
    again = FakeJob(steps=50)
    batch.Batch(again, videos[:2], tmp_path / "out").run()
    assert again.made == ["a", "b"]


def test_equal_names_from_different_folders_do_not_overwrite_each_other():
    names = batch.output_names([Path("x/hit.mp4"), Path("y/hit.mp4"), Path("y/other.mp4")])
    assert names == ["hit", "hit_2", "other"]


def test_folders_are_searched_for_videos(videos, tmp_path):
    (tmp_path / "in" / "notes.txt").touch()
    assert batch.find_videos([tmp_path / "in"]) == sorted(videos)
