"""Which clip goes where: by its id, the seed and the number of shards; and lists of clips."""

import collections
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from data_prep import manifest, prepare, shard_plan, spans
from foley_jax.data import records
from tests.data_prep import shard_sets
from tests.media import media_files

FORMAT = shard_sets.FORMAT


def number(clip_id: str, seed: int, num_shards: int) -> int:
    return spans.shard_number(spans.order(clip_id, seed), num_shards)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    return shard_sets.write_videos(tmp_path_factory.mktemp("plan") / "videos")


def make(videos, shards, **options) -> records.Index:
    return prepare.prepare(videos, shards, FORMAT, runner=shard_sets.run_in_process, **options)


def test_shard_of_a_clip_is_a_hash_of_its_id():
    # printf '0/train/plain_00003#0' | sha256sum; if it changes, begun sets cannot go on
    assert spans.order("train/plain_00003#0", 0) == 0x027159F5D5841F30
    ids = [f"clip{i}" for i in range(4000)]
    counts = collections.Counter(number(one, 7, 10) for one in ids)
    assert sorted(counts) == list(range(10))
    expected = 400
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 27.9  # 99.9 % of fair dice, 9 degrees of freedom
    by_order = sorted(ids, key=lambda one: spans.order(one, 7))
    assert [number(one, 7, 10) for one in by_order] == sorted(counts.elements())


def test_sequence_of_clips_does_not_depend_on_the_number_of_shards(videos, tmp_path):
    make(videos, tmp_path / "one", num_shards=1)
    index = make(videos, tmp_path / "many", num_shards=3)
    ids = shard_sets.read_ids(tmp_path / "one", "train")
    assert sorted(ids) == [f"train/v{i}#{k}" for i in (0, 1, 3, 4) for k in range(1 + i % 2)]
    assert ids == sorted(ids, key=lambda one: spans.order(one, 0))
    assert shard_sets.read_ids(tmp_path / "many", "train") == ids
    for shard in index.shards:
        place = dataclasses.replace(index, shards=(shard,))
        records.write_index(tmp_path / "many", place)
        file_number = int(pathlib.Path(shard.file).stem.rpartition("-")[2])
        for one in shard_sets.read_ids(tmp_path / "many", shard.split):
            assert number(one, 0, 3) == file_number
    make(videos, tmp_path / "other", num_shards=1, seed=1)
    others = shard_sets.read_ids(tmp_path / "other", "train")
    assert others != ids and sorted(others) == sorted(ids)


def test_bad_clip_leaves_its_shard_otherwise_the_same(tmp_path):
    videos = shard_sets.write_videos(tmp_path / "videos")
    make(videos, tmp_path / "good", num_shards=2)
    (videos / "train/v1.json").write_text('{"events": [{"when": 3}]}')
    make(videos, tmp_path / "bad", num_shards=2)
    good, bad = (shard_sets.digests(tmp_path / name) for name in ("good", "bad"))
    lost = ["train/v1#0", "train/v1#1"]
    touched = {f"train-{number(one, 0, 2):05d}.arrayrecord" for one in lost}
    assert {name for name in good if good[name] != bad.get(name)} == touched
    everything = shard_sets.read_records(tmp_path / "good", "train")
    kept = [data for data in everything if records.decode(data).id not in lost]
    assert shard_sets.read_records(tmp_path / "bad", "train") == kept
    failed = [one["id"] for one in shard_sets.read_failures(tmp_path / "bad") if "id" in one]
    assert sorted(failed) == lost


def test_files_that_differ_in_their_suffix_alone_give_different_clips(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "a.mkv", "b.mp4"):
        media_files.write(tmp_path / "videos" / name)
    make(tmp_path / "videos", tmp_path / "s", split="train")
    ids = shard_sets.read_ids(tmp_path / "s", "train")
    assert sorted(ids) == ["a.mkv#0", "a.mp4#0", "b#0"]


def entries(**changes) -> dict[str, manifest.Entry]:
    found = {
        "exact": manifest.Entry("exact", "train/v1.mp4", "train", 0.5, 2.5, {"noun": "bell"}),
        "whole": manifest.Entry("whole", "train/v1.mp4", "val", 0.0, None, ["a", "b"]),
        "long": manifest.Entry("long", "train/v3.mp4", "val", 1.0, 30.0),
        "missing": manifest.Entry("missing", "nowhere.mp4", "val", 0.0, 2.0),
        "beyond": manifest.Entry("beyond", "train/v3.mp4", "val", 7.0, 9.0),
        "short": manifest.Entry("short", "train/v3.mp4", "val", 1.0, 1.2),
        "late": manifest.Entry("late", "train/v3.mp4", "val", 3.0, 5.0),
        "broken": manifest.Entry("broken", "train/broken.mp4", "val"),
    }
    return {**found, **changes}


def test_manifest_names_the_clips(videos, tmp_path):
    path = tmp_path / "list.jsonl"
    manifest.write(path, entries().values())
    index = make(videos, tmp_path / "s", manifest=path)
    assert (index.num_records("train"), index.num_records("val")) == (1, 5)
    (exact,) = map(records.decode, shard_sets.read_records(tmp_path / "s", "train"))
    assert (exact.id, exact.labels) == ("exact", ["bell"])
    assert (exact.source, exact.start_s, exact.end_s) == ("train/v1.mp4", 0.5, 2.5)
    loud = np.flatnonzero(np.abs(exact.audio.astype(float)) > 3000)
    assert len(loud) == 0  # v1 clicks at 0.3 s, before the clip
    val = map(records.decode, shard_sets.read_records(tmp_path / "s", "val"))
    times = {clip.id: (clip.start_s, clip.end_s, clip.labels) for clip in val}
    assert times == {
        "whole#0": (0.0, 2.0, ["a", "b"]),
        "whole#1": (2.0, 4.0, ["a", "b"]),
        "long#0": (1.0, 3.0, []),
        "long#1": (3.0, 4.0, []),
        "late": (3.0, 4.0, []),  # as far as the video goes
    }
    failed = {
        one.get("id", one["file"]): one["reason"]
        for one in shard_sets.read_failures(tmp_path / "s")
    }
    assert failed == {
        "missing": "missing",
        "beyond": "empty",
        "short": "too_short",
        "train/broken.mp4": "unreadable",
    }


def test_wrong_manifests_are_refused(videos, tmp_path):
    path = tmp_path / "list.jsonl"
    with pytest.raises(ValueError, match="no such manifest"):
        make(videos, tmp_path / "s", manifest=path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="is empty, wanted one clip a line"):
        make(videos, tmp_path / "s", manifest=path)
    clash = {"clash": manifest.Entry("whole#1", "train/v3.mp4", "val", 0.0, 2.0)}
    manifest.write(path, entries(**clash).values())
    with pytest.raises(ValueError, match="two clips have the id 'whole#1'"):
        make(videos, tmp_path / "s", manifest=path)
    manifest.write(path, entries().values())
    with pytest.raises(ValueError, match="begun with other settings .manifest was"):
        make(videos, tmp_path / "s", manifest=path)
    with pytest.raises(ValueError, match="manifest was .*, now None"):
        make(videos, tmp_path / "s")


def test_first_version_of_plans_goes_on_as_it_began(videos, tmp_path):
    """Sets once were runs of spans in the order of their files."""
    shards = tmp_path / "s"
    shards.mkdir()
    found = [spans.Span(f"train/v{i}.mp4", "train", 0, 0.0, 2.0) for i in range(2)]
    fields = ("source", "split", "part", "start_s", "end_s")
    rows = [{name: getattr(span, name) for name in fields} for span in found]
    settings = {"fps": 4.0, "size": 16, "sample_rate_hz": 16000, "clip_seconds": 2.0}
    plan = {
        "settings": {**settings, "split": "auto", "clips_per_shard": 1, "task_limit_s": 120.0},
        "files": [span.source for span in found],
        "failures": [{"file": "x.mp4", "reason": "unreadable", "detail": "x.mp4: broken"}],
        "shards": [{"split": "train", "number": i, "spans": [row]} for i, row in enumerate(rows)],
    }
    (shards / shard_plan.PLAN_NAME).write_text(json.dumps(plan))
    for _ in range(2):
        index = make(videos, shards, clips_per_shard=1)
        assert [shard.num_records for shard in index.shards] == [1, 1]
        assert shard_sets.read_ids(shards, "train") == ["train/v0#0", "train/v1#0"]
        assert [one["file"] for one in shard_sets.read_failures(shards)] == ["x.mp4"]
    (shards / shard_plan.PLAN_NAME).write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="another version of this program .plan 99"):
        make(videos, shards, clips_per_shard=1)


def test_lost_clips_and_cut_plans_are_noticed(videos, tmp_path):
    shards = tmp_path / "s"
    make(videos, shards)
    done = next(shards.glob(".done-train-*"))
    content = json.loads(done.read_text())
    content["shard"]["num_records"] -= 1
    done.write_text(json.dumps(content))
    with pytest.raises(RuntimeError, match=f"has [0-9]+ of [0-9]+ clips; delete {done.name}"):
        make(videos, shards)
    done.unlink()
    clips = shards / shard_plan.CLIPS_NAME
    clips.write_bytes(clips.read_bytes()[:-20])
    for path in shards.glob(".done-*"):
        path.unlink()
    with pytest.raises(ValueError, match="plan.jsonl was cut short"):
        make(videos, shards)
