"""Damaged shards: passed over the same way by whoever reads, counted, and stopped by name."""

import itertools
import os
import pickle

import numpy as np
import pytest

from foley_jax.data import damage, pipeline, records

COUNTS = (6, 5, 4)
NUM = sum(COUNTS)


def make_clip(n):
    audio = np.random.default_rng(n).integers(-32768, 32768, 40000, dtype=np.int16)
    frames = records.encode_frames(np.full((2, 16, 16, 3), n, np.uint8))
    return records.Clip(
        str(n), "train", [], "v", 0.0, 0.5, 4.0, frames, audio, 16000, None, [{"n": n}]
    )


@pytest.fixture
def folder(tmp_path):
    """Three shards with clips 0 to 5, 6 to 10 and 11 to 14."""
    infos, n = [], 0
    for number, count in enumerate(COUNTS):
        with records.ShardWriter(tmp_path, "train", number) as writer:
            for _ in range(count):
                writer.add(make_clip(n))
                n += 1
        infos.append(writer.info)
    records.write_index(tmp_path, records.Index(4.0, 16, 16, 16000, tuple(infos)))
    return tmp_path


def shard(folder, number):
    return folder / records.shard_name("train", number)


def flip(path, record):
    """Turns one bit in the middle of a record."""
    data = bytearray(path.read_bytes())
    # noise cannot be compressed: it lies in the file as it is
    at = bytes(data).find(make_clip(record).audio.tobytes()[2000:2032])
    assert at > 0
    data[at] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_footer(path):
    """Same size, but the reader does not find the records any more."""
    data = bytearray(path.read_bytes())
    data[-65536:-65500] = bytes(36)
    path.write_bytes(data)


class Numbers:
    """The record's number, another record's, and a random number."""

    def __call__(self, source, index, rng):
        other = source[(index + 7) % len(source)]
        n = [source[index].events[0]["n"], other.events[0]["n"]]
        return {"n": np.array(n), "noise": rng.random(2)}


def batches(source, count, **options):
    defaults = {
        "global_batch": 6,
        "seed": 1,
        "position": 0,
        "process_index": 0,
        "process_count": 1,
        "read_threads": 2,
    }
    iterator = pipeline.make_iterator(source, Numbers(), **{**defaults, **options})
    return list(itertools.islice(iterator, count))


def numbers(source):
    return [source[i].events[0]["n"] for i in range(len(source))]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_next_clip_of_the_shard_takes_the_turn_of_a_damaged_one(folder, caplog):
    flip(shard(folder, 0), 2)
    flip(shard(folder, 0), 3)
    flip(shard(folder, 1), 10)  # the last of its shard: the first takes its turn
    source = pipeline.open_source(folder, "train", max_damaged=3)
    wanted = [0, 1, 4, 4, 4, 5, 6, 7, 8, 9, 6, 11, 12, 13, 14]
    assert numbers(source) == wanted
    assert numbers(source) == wanted  # the second time nobody is told
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert f"place 1 of at most 3: record 2 of {shard(folder, 0)} cannot be read" in said[0]


@pytest.mark.parametrize("harm", [cut, spoil_footer])
def test_clips_of_the_next_shard_take_the_turn_of_a_lost_one(folder, caplog, harm):
    harm(shard(folder, 1))
    source = pipeline.open_source(folder, "train", max_damaged=1)
    assert numbers(source) == [0, 1, 2, 3, 4, 5, 11, 12, 13, 14, 11, 11, 12, 13, 14]
    assert "place 1 of at most 1" in caplog.text and str(shard(folder, 1)) in caplog.text
    assert caplog.text.count("damaged data") == 1  # a shard counts once


def test_a_shard_cut_short_is_told_before_anything_is_read(folder, caplog):
    cut(shard(folder, 2))
    pipeline.open_source(folder, "train", max_damaged=1)
    assert "train-00002.arrayrecord cannot be read (has " in caplog.text
    cut(shard(folder, 1))
    with pytest.raises(damage.DamageError, match="2 places .* allows 1: .*00001.*00002"):
        pipeline.open_source(folder, "train", max_damaged=1)


def test_missing_shards_and_intolerance_stop_at_once(folder):
    cut(shard(folder, 1))
    with pytest.raises(ValueError, match="train-00001.arrayrecord has .* the index says"):
        pipeline.open_source(folder, "train")
    shard(folder, 1).unlink()
    with pytest.raises(ValueError, match="train-00001.arrayrecord is missing"):
        pipeline.open_source(folder, "train", max_damaged=9)


def test_one_place_too_many_stops_by_name(folder):
    for n in (0, 7, 12):
        flip(shard(folder, 0 if n < 6 else 1 if n < 11 else 2), n)
    source = pipeline.open_source(folder, "train", max_damaged=2)
    with pytest.raises(ValueError, match="3 places of the data are damaged.*max_damaged") as caught:
        numbers(source)
    for place, number in ((0, 0), (1, 1), (1, 2)):
        assert f"record {place} of {shard(folder, number)}" in str(caught.value)
    assert "data_prep.inspect" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"read_threads": 0},
        {"read_threads": 5},
        pytest.param({"workers": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_whoever_reads_passes_over_the_same(folder, options):
    flip(shard(folder, 0), 1)
    cut(shard(folder, 2))
    whole = batches(pipeline.open_source(folder, "train", max_damaged=2), 6)
    again = batches(pipeline.open_source(folder, "train", max_damaged=2), 6, **options)
    assert_equal(again, whole)
    assert {int(n) for b in whole for n in b["n"].ravel()} == {0, 2, 3, 4, 5, 6, 7, 8, 9, 10}


def test_processes_and_later_starts_pass_over_the_same(folder):
    flip(shard(folder, 0), 1)
    spoil_footer(shard(folder, 2))

    def source():
        return pipeline.open_source(folder, "train", max_damaged=2)

    whole = batches(source(), 7)
    assert_equal(batches(source(), 4, position=3 * 6), whole[3:])
    parts = [batches(source(), 7, process_index=i, process_count=2) for i in range(2)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*parts)]
    assert_equal(joined, whole)


def test_good_records_keep_their_turn(folder):
    before = batches(pipeline.open_source(folder, "train"), 10)
    flip(shard(folder, 0), 1)
    after = batches(pipeline.open_source(folder, "train", max_damaged=1), 10)
    for a, b in zip(before, after):
        np.testing.assert_array_equal(np.where(a["n"] == 1, 2, a["n"]), b["n"])
        np.testing.assert_array_equal(a["noise"], b["noise"])


def test_readers_of_one_source_share_their_count(folder, caplog):
    flip(shard(folder, 0), 1)
    flip(shard(folder, 1), 8)
    ours = pipeline.open_source(folder, "train", max_damaged=1)
    theirs = pickle.loads(pickle.dumps(ours))  # as worker processes get it
    assert ours[1].events == theirs[1].events == [{"n": 2}]
    assert caplog.text.count("damaged data") == 1
    with pytest.raises(damage.DamageError, match="2 places"):
        theirs[8]


@pytest.mark.slow
def test_worker_processes_stop_the_run(folder):
    for n in (0, 1):
        flip(shard(folder, 0), n)
    source = pipeline.open_source(folder, "train", max_damaged=1)
    with pytest.raises(Exception, match="2 places of the data are damaged"):
        batches(source, 20, workers=2)


def test_nothing_left_is_said(folder):
    for number in range(3):
        cut(shard(folder, number))
    source = pipeline.open_source(folder, "train", max_damaged=3)
    with pytest.raises(ValueError, match="not one record of .* can be read"):
        source[0]


def test_the_count_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    damages = damage.Damages(2)
    damages.note("record 1", "x")
    copy = pickle.loads(pickle.dumps(damages))
    copy.note("record 2", "x")
    (path,) = tmp_path.iterdir()
    assert path.read_text() == "record 1\nrecord 2\n"
    del copy
    assert path.exists()
    del damages
    assert not path.exists()
    with pytest.raises(ValueError, match="wanted at least 1"):
        damage.Damages(0)


def test_few_shards_stay_open(folder, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_OPEN_SHARDS", 2)
    source = pipeline.open_source(folder, "train")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(3):
        assert numbers(source) == list(range(NUM))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_no_flipped_bit_passes_for_data(folder):
    path = shard(folder, 0)
    whole = path.read_bytes()
    clips = [pipeline.open_source(folder, "train").read_bytes(i) for i in range(6)]
    rng = np.random.default_rng(0)
    # from the first audio to the last: before and after lie padding and the file's index
    begin, end = (whole.find(make_clip(n).audio.tobytes()[2000:2032]) for n in (0, 5))
    assert 0 < begin < end
    caught = 0
    for at in rng.integers(begin, end, 100):
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        source = pipeline.open_source(folder, "train")
        for i in range(6):
            try:
                assert source.read_bytes(i) == clips[i]
            except ValueError:
                caught += 1
    assert caught == 100


def test_a_passing_fault_is_not_damage(folder, monkeypatch, caplog):
    source = pipeline.open_source(folder, "train", max_damaged=1)
    assert source[0].events == [{"n": 0}]

    class Faulty:
        def read(self, places):
            raise RuntimeError("the network was away")

    source._readers[0] = Faulty()
    assert source[1].events == [{"n": 1}] and not caplog.text
