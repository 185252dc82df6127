"""Batches: the same whoever asks, from any step, with damage named."""

import itertools

import numpy as np
import pytest

from foley_jax.data import pipeline, records
from foley_jax.media import specs

NUM = 20


class Numbers:
    """The record's index and a random number."""

    def __call__(self, source, index, rng):
        return {"index": np.int32(source[index].events[0]["n"]), "noise": rng.random(3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of "train" with 20 clips in all."""
    path = tmp_path_factory.mktemp("shards")
    infos, n = [], 0
    for number, count in enumerate((13, 7)):
        with records.ShardWriter(path, "train", number) as writer:
            for _ in range(count):
                writer.add(make_clip(n))
                n += 1
        infos.append(writer.info)
    records.write_index(path, records.Index(4.0, 16, 16, 16000, tuple(infos)))
    return path


def make_clip(n):
    frames = records.encode_frames(np.full((2, 16, 16, 3), n, np.uint8))
    audio = np.random.default_rng(n).integers(-9999, 9999, 8000).astype(np.int16)
    return records.Clip(
        str(n), "train", [], "v", 0.0, 0.5, 4.0, frames, audio, 16000, None, [{"n": n}]
    )


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


def test_images_fitted_in_another_way_are_refused(folder):
    assert len(pipeline.open_source(folder, "train", specs.VideoSpec(4.0, 16, 16))) == NUM
    wanted = specs.VideoSpec(4.0, 16, 16, fit="letterbox", antialias=False)
    message = "fit=stretch, antialias=True, .*again with `--fit=letterbox --no-antialias`"
    with pytest.raises(ValueError, match=message):
        pipeline.open_source(folder, "train", wanted)


def test_source_reads_every_record_in_order(folder):
    source = pipeline.open_source(folder, "train")
    assert len(source) == NUM
    assert [source[i].events[0]["n"] for i in range(NUM)] == list(range(NUM))
    with pytest.raises(IndexError, match="clip 20 of 20"):
        source[NUM]


def test_every_epoch_is_a_new_order_of_all_records(folder):
    source = pipeline.open_source(folder, "train")
    stream = np.concatenate([b["index"] for b in batches(source, 10)])
    epochs = stream.reshape(3, NUM)
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = np.concatenate([b["index"] for b in batches(source, 10, seed=2)])
    assert np.any(other != stream)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_batches_of_one(folder, count):
    source = pipeline.open_source(folder, "train")
    whole = batches(source, 5)
    parts = [batches(source, 5, process_index=i, process_count=count) for i in range(count)]
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            joined = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_array_equal(joined, value)


@pytest.mark.parametrize("options", [{}, {"read_threads": 0}, {"process_count": 2}])
def test_starting_at_a_step_is_having_read_to_it(folder, options):
    source = pipeline.open_source(folder, "train")
    full, late = batches(source, 9, **options), batches(source, 4, position=30, **options)
    for a, b in zip(full[5:], late):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(folder):
    source = pipeline.open_source(folder, "train")
    for a, b in zip(batches(source, 3), batches(source, 3, workers=1)):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_late_start_is_quick_and_exact(folder):
    source = pipeline.open_source(folder, "train")
    (batch,) = batches(source, 1, position=18_000_000)
    assert batch["index"].shape == (6,)


def test_one_pass_in_order_without_the_last_incomplete_batch(folder):
    source = pipeline.open_source(folder, "train")
    once = batches(source, 100, shuffle=False, repeat=False)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in once]), np.arange(18))
    half = batches(source, 100, shuffle=False, repeat=False, process_index=1, process_count=2)
    np.testing.assert_array_equal(
        np.concatenate([b["index"] for b in half]), np.arange(18).reshape(3, 2, 3)[:, 1].ravel()
    )


def test_set_smaller_than_a_batch_repeats_in_training_only(folder):
    source = pipeline.open_source(folder, "train")
    (batch,) = batches(source, 1, global_batch=50)
    assert np.bincount(batch["index"]).min() >= 2
    with pytest.raises(ValueError, match="20 clips do not make one batch of 50"):
        batches(source, 1, global_batch=50, repeat=False)
    with pytest.raises(ValueError, match="batch_size 6 does not divide among 4 processes"):
        batches(source, 1, process_count=4)


def test_missing_data_says_what_to_do(tmp_path, folder):
    with pytest.raises(ValueError, match="data_prep.prepare"):
        pipeline.open_source(tmp_path / "nothing", "train")
    with pytest.raises(ValueError, match="no clips of split 'test'; it has: train"):
        pipeline.open_source(folder, "test")


def test_damaged_record_names_its_shard(tmp_path):
    with records.ShardWriter(tmp_path, "train", 0) as writer:
        for n in range(12):
            writer.add(make_clip(n))
    records.write_index(tmp_path, records.Index(4.0, 16, 16, 16000, (writer.info,)))
    path = tmp_path / records.shard_name("train", 0)
    data = bytearray(path.read_bytes())
    data[len(bytes(data).rstrip(b"\0")) // 3] ^= 0xFF
    path.write_bytes(data)
    source = pipeline.open_source(tmp_path, "train")
    failed = []
    for n in range(12):
        try:
            assert source[n].events == [{"n": n}]
        except ValueError as error:
            failed.append((n, str(error)))
    ((n, message),) = failed  # the others can still be read
    assert f"record {n} of {path} cannot be read" in message
    with pytest.raises(ValueError, match="train-00000.arrayrecord cannot be read"):
        batches(source, 20)


@pytest.mark.parametrize(("size", "count", "position"), [(4, 1, 6), (8, 4, 10), (5, 5, 21)])
def test_batches_of_any_size_cut_one_stream_at_any_record(folder, size, count, position):
    """Records and their random numbers: neither the batch size nor the processes change them."""
    source = pipeline.open_source(folder, "train")
    whole = {k: np.concatenate([b[k] for b in batches(source, 11)]) for k in ("index", "noise")}
    options = {"global_batch": size, "position": position, "process_count": count}
    parts = [batches(source, 4, process_index=i, **options) for i in range(count)]
    for key, stream in whole.items():
        joined = np.concatenate([part[step][key] for step in range(4) for part in parts])
        np.testing.assert_array_equal(joined, stream[position : position + 4 * size])


def test_one_pass_from_the_middle(folder):
    source = pipeline.open_source(folder, "train")
    once = batches(source, 100, shuffle=False, repeat=False, position=7)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in once]), np.arange(7, 19))
    with pytest.raises(ValueError, match="5 clips do not make one batch of 6"):
        batches(source, 1, repeat=False, position=15)
