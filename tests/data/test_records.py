"""Clips survive storage; shards appear whole or not at all; errors tell what to do."""

import dataclasses
import json

from array_record.python import array_record_module
import msgpack
import numpy as np
import pytest

from foley_jax.data import records


def smooth_frames(num_frames: int = 4, size: int = 16) -> np.ndarray:
    ramp = np.linspace(0, 200, size)
    frames = ramp[None, :, None, None] * 0.6 + ramp[None, None, :, None] * 0.4
    return (frames + np.arange(num_frames)[:, None, None, None] * 10 + np.zeros(3)).astype(np.uint8)


def make_clip(number: int = 0, **changes) -> records.Clip:
    rng = np.random.default_rng(number)
    clip = records.Clip(
        id=f"train/a#{number}",
        split="train",
        labels=["wood"],
        source="train/a.mp4",
        start_s=10.0 * number,
        end_s=10.0 * number + 1,
        fps=4.0,
        frames=records.encode_frames(smooth_frames()),
        audio=rng.integers(-32768, 32767, 16000).astype(np.int16),
        sample_rate_hz=16000,
        events=[{"time_s": 0.25, "material": "wood", "strength": 0.5}],
    )
    return dataclasses.replace(clip, **changes)


@pytest.mark.parametrize("rows", [None, 4])
def test_clip_round_trip_is_exact(rows):
    cavp_TD = None
    if rows is not None:
        cavp_TD = np.random.default_rng(1).standard_normal((rows, 8)).astype(np.float16)
    clip = make_clip(cavp_TD=cavp_TD)
    back = records.decode(records.encode(clip))
    for field in dataclasses.fields(clip):
        before, after = getattr(clip, field.name), getattr(back, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after, field.name


def test_frames_decode_close_and_in_slices():
    clip = make_clip()
    frames_THWC = clip.frames_THWC()
    assert frames_THWC.shape == (4, 16, 16, 3) and frames_THWC.dtype == np.uint8
    assert np.abs(frames_THWC.astype(int) - smooth_frames()).max() <= 6  # JPEG at quality 92
    np.testing.assert_array_equal(clip.frames_THWC(1, 3), frames_THWC[1:3])
    with pytest.raises(ValueError, match="none of its 4"):
        clip.frames_THWC(4, 6)


def test_frames_at_any_places_are_those_of_the_whole():
    clip = make_clip()
    whole_THWC = clip.frames_THWC()
    places = np.array([[3, 0, 3], [1, 1, 0]])
    np.testing.assert_array_equal(clip.frames_at(places), whole_THWC[places])
    other = records.encode_frames(smooth_frames(1, size=8))
    with pytest.raises(ValueError, match="frame 4 is 8x8, others 16x16"):
        dataclasses.replace(clip, frames=[*clip.frames, *other]).frames_at(np.arange(5))
    cut = [clip.frames[0], clip.frames[1][:-40]]
    with pytest.raises(ValueError):
        dataclasses.replace(clip, frames=cut).frames_at(np.arange(2))


def test_wrong_arrays_and_versions_are_refused():
    with pytest.raises(ValueError, match="wanted int16"):
        records.encode(make_clip(audio=np.zeros(10, np.float32)))
    with pytest.raises(ValueError, match="wanted \\[frames, width\\]"):
        records.encode(make_clip(cavp_TD=np.zeros(3, np.float16)))
    with pytest.raises(ValueError, match="schema version 99"):
        records.decode(msgpack.packb({"schema_version": 99}))
    with pytest.raises(ValueError, match="not a clip"):
        records.decode(b"\xc1garbage")
    with pytest.raises(ValueError, match="not a clip"):
        records.decode(records.encode(make_clip())[:100])


def write_set(folder, num_clips: int = 3) -> records.Index:
    with records.ShardWriter(folder, "train", 0) as writer:
        for i in range(num_clips):
            writer.add(make_clip(i))
    index = records.Index(4.0, 16, 16, 16000, (writer.info,), num_failures=2)
    records.write_index(folder, index)
    return index


def test_set_reads_back(tmp_path):
    index = write_set(tmp_path)
    assert records.read_index(tmp_path) == index
    assert json.loads((tmp_path / "index.json").read_text())["splits"] == {"train": 3}
    (path,) = records.shard_paths(tmp_path, "train")
    assert path.name == "train-00000.arrayrecord"
    assert index.shards[0].sha256 == records.sha256(path)
    reader = array_record_module.ArrayRecordReader(str(path))
    ids = [records.decode(data).id for data in reader.read_all()]
    assert ids == ["train/a#0", "train/a#1", "train/a#2"]


def test_index_says_how_images_were_fitted_and_old_ones_are_stretched(tmp_path):
    index = dataclasses.replace(write_set(tmp_path), fit="letterbox", antialias=False)
    records.write_index(tmp_path, index)
    assert records.read_index(tmp_path) == index
    path = tmp_path / "index.json"
    content = json.loads(path.read_text())
    assert content["video"].pop("fit") == "letterbox"
    assert content["video"].pop("antialias") is False
    path.write_text(json.dumps(content))
    assert records.read_index(tmp_path) == write_set(tmp_path)


def test_failed_shard_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), records.ShardWriter(tmp_path, "train", 0) as writer:
        writer.add(make_clip())
        assert not (tmp_path / "train-00000.arrayrecord").exists()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_empty_shard_leaves_no_file(tmp_path):
    with records.ShardWriter(tmp_path, "train", 0) as writer:
        pass
    assert writer.info.num_records == 0 and not list(tmp_path.iterdir())


def test_clip_of_another_split_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="of split 'train', shard of 'test'"),
        records.ShardWriter(tmp_path, "test", 0) as writer,
    ):
        writer.add(make_clip())


def test_missing_data_names_the_command_and_the_demo(tmp_path):
    with pytest.raises(ValueError, match="no such folder.*data_prep.prepare.*:demo"):
        records.shard_paths(tmp_path / "none", "train")
    with pytest.raises(ValueError, match="no index.json in it"):
        records.shard_paths(tmp_path, "train")
    write_set(tmp_path)
    with pytest.raises(ValueError, match="no clips of split 'val'; it has: train"):
        records.shard_paths(tmp_path, "val")


def test_cut_off_shard_is_named(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "train-00000.arrayrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="train-00000.arrayrecord has"):
        records.shard_paths(tmp_path, "train")
    path.unlink()
    with pytest.raises(ValueError, match="train-00000.arrayrecord is missing"):
        records.shard_paths(tmp_path, "train")
