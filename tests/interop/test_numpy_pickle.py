"""Pickles of NumPy arrays, read without calling what they name."""

import os
import pickle

import numpy as np
import pytest

from foley_jax.interop import numpy_pickle


def _arrays():
    rng = np.random.default_rng(0)
    return {
        "params": {
            "a/b": {"kernel": rng.standard_normal((2, 3, 4)).astype(np.float32)},
            "fortran": np.asfortranarray(rng.standard_normal((3, 5))),
        },
        "big": np.arange(4, dtype=">i4"),
        "scalar": np.array(2.5, np.float16),
        "flags": np.array([True, False]),
    }


def _write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_come_back(tmp_path, protocol):
    want = _arrays()
    path = _write(tmp_path / "x.ckpt", want, protocol)
    assert numpy_pickle.is_one(path)
    got = numpy_pickle.read(path)
    flat = {"params/a/b/kernel": want["params"]["a/b"]["kernel"]}
    flat |= {"params/fortran": want["params"]["fortran"]}
    flat |= {key: want[key] for key in ("big", "scalar", "flags")}
    assert set(got) == set(flat)
    for key, array in flat.items():
        np.testing.assert_array_equal(got[key], array)
        assert got[key].dtype == array.dtype.newbyteorder("=") and not got[key].flags.writeable


class _Harmful:
    def __reduce__(self):
        return os.getpid, ()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"a": _Harmful()}, "getpid, expected NumPy arrays alone"),
        ({"a": np.array([None, 1])}, "expected numbers"),
        ({"a": np.array(["text"])}, "expected numbers"),
        ({"a": [np.zeros(2)]}, "a is a list, expected dicts of arrays"),
        ({"a": np.zeros(1, [("x", "f4")])}, "expected numbers"),
    ],
)
def test_anything_else_is_refused(tmp_path, value, why):
    with pytest.raises(ValueError, match=f"x.ckpt is refused: .*{why}"):
        numpy_pickle.read(_write(tmp_path / "x.ckpt", value))


def test_dicts_within_themselves_are_refused(tmp_path):
    loop = {}
    loop["again"] = loop
    with pytest.raises(ValueError, match="expected dicts of arrays"):
        numpy_pickle.read(_write(tmp_path / "x.ckpt", loop))


def test_a_cut_off_file_is_named(tmp_path):
    path = _write(tmp_path / "x.ckpt", _arrays())
    whole = path.read_bytes()
    for size in (3, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="x.ckpt"):
            numpy_pickle.read(path)
