"""TensorFlow checkpoints, read without TensorFlow."""

import contextlib

import bundles
import numpy as np
import pytest

from foley_jax.interop import tensorflow_bundle

ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.mark.parametrize("per_block", [1, 3, 100])
@pytest.mark.parametrize("place", ["", "variables", "variables/variables.index"])
def test_variables_come_back(tmp_path, per_block, place):
    want = bundles.some()
    graph = (b"_CHECKPOINTABLE_OBJECT_GRAPH", bundles.field(1, 7) + bundles.field(5, 9))
    named = {name + ENDING: array for name, array in want.items()}
    bundles.write(tmp_path / "variables", named, per_block=per_block, more=[graph])
    if place == "variables":
        place = "variables/variables"  # the prefix of a checkpoint
    got = tensorflow_bundle.read(tmp_path / place)
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_what_cannot_be_read_says_why(tmp_path):
    read = tensorflow_bundle.read
    with pytest.raises(FileNotFoundError, match=r"no TensorFlow checkpoint .* PREFIX.index"):
        read(tmp_path)
    folder = bundles.write(tmp_path / "v", bundles.some())
    shard, index = folder / "variables.data-00000-of-00001", folder / "variables.index"
    data = shard.read_bytes()
    shard.write_bytes(data[:-50])
    with pytest.raises(ValueError, match="cut off or of another checkpoint"):
        read(index)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="needs variables.data-00000-of-00001 beside it"):
        read(index)
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ValueError, match="it is cut off"):
        read(index)
    with pytest.raises(ValueError, match="compressed"):
        read(bundles.write(tmp_path / "c", bundles.some(), compressed=True) / "variables.index")
    sliced = (b"z", bundles.field(1, 1) + bundles.field(7, b"x"))
    with pytest.raises(ValueError, match="in slices"):
        read(bundles.write(tmp_path / "s", {}, more=[sliced]) / "variables.index")


def test_a_damaged_index_is_an_error_not_a_crash(tmp_path):
    folder = bundles.write(tmp_path, bundles.some())
    index = folder / "variables.index"
    whole = index.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole) - 8, 60):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        index.write_bytes(bytes(broken))
        # a damaged checksum changes nothing
        with contextlib.suppress(ValueError, FileNotFoundError):
            tensorflow_bundle.read(index)
