"""Files of named tensors, against torch.save and torch.load themselves."""

import collections
import pickle
import zipfile

import numpy as np
import pytest
import torch

from foley_jax.interop import torch_tensors

DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")


def _arrays(seed=0):
    rng = np.random.default_rng(seed)
    plain = {kind: (3 * rng.normal(size=(2, 3))).astype(kind) for kind in DTYPES}
    return {
        "b/ä": plain,
        "a": rng.normal(size=(4, 5, 6)).astype("f4").transpose(2, 0, 1),  # not contiguous
        "scalar": np.float32(2.5),
        "none": np.zeros((0, 7), "f4"),
        "swapped": np.arange(5).astype(">i4"),
        "": {"inner": {"deep": np.ones(1, "f4")}, "empty": {}},
    }


def _assert_equal(found, want):
    if isinstance(want, dict):
        assert list(found) == list(want)
        for key in want:
            _assert_equal(found[key], want[key])
    else:
        found = found.numpy() if isinstance(found, torch.Tensor) else found
        assert found.dtype == np.asarray(want).dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, want, strict=False)
        assert found.shape == np.shape(want)


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_we_write(tmp_path, mmap):
    torch_tensors.write(tmp_path / "x.pth", _arrays())
    found = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
    _assert_equal(found, _arrays())
    _assert_equal(torch_tensors.read(tmp_path / "x.pth"), _arrays())
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_torch_loads_it_twice_alike_and_can_save_it_again(tmp_path):
    for name in "xy":
        torch_tensors.write(tmp_path / name, _arrays())
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    torch.save(torch.load(tmp_path / "x", weights_only=True), tmp_path / "z")
    _assert_equal(torch_tensors.read(tmp_path / "z"), _arrays())


def test_a_note_lies_beside_the_tensors(tmp_path):
    path = tmp_path / "x.pth"
    torch_tensors.write(path, _arrays(), "made by ä")
    assert torch_tensors.read_note(path) == "made by ä"
    _assert_equal(torch_tensors.read(path), _arrays())
    _assert_equal(torch.load(path, weights_only=True, mmap=True), _arrays())
    torch.save({"a": torch.ones(1)}, path)
    assert torch_tensors.read_note(path) == ""
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="zip format"):
        torch_tensors.read_note(path)


def test_storages_are_aligned(tmp_path):
    torch_tensors.write(tmp_path / "x", _arrays())
    data = (tmp_path / "x").read_bytes()
    wanted = np.ascontiguousarray(_arrays()["a"]).tobytes()
    assert data.index(wanted) % 64 == 0


def test_what_torch_wrote_is_read_back(tmp_path):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    saved = collections.OrderedDict(
        view=rows[2],  # av-benchmark stores rows of a batch: windows on one storage
        column=rows[:, 1],
        turned=rows.T,
        half=rows.half(),
        brain=rows.bfloat16(),
        learnt=rows.clone().requires_grad_(),
        number=torch.tensor(7),
        yes=torch.tensor([True, False]),
        nested={"x": {"y": rows[5, 1:3]}},
    )
    torch.save(saved, tmp_path / "x.pth")
    found = torch_tensors.read(tmp_path / "x.pth")
    want = {key: value for key, value in saved.items() if key not in ("brain", "learnt")}
    _assert_equal({key: found[key] for key in want}, _numpy(want))
    np.testing.assert_array_equal(found["brain"], saved["brain"].float().numpy())
    np.testing.assert_array_equal(found["learnt"], rows.numpy())
    assert not found["view"].flags.writeable


def _numpy(value):
    return {k: _numpy(v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


class Attack:
    """Would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _archive(path, data, **records):
    with zipfile.ZipFile(path, "w", records.pop("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in records.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def test_code_is_refused_and_not_run(tmp_path):
    torch.save({"a": Attack(tmp_path / "bad")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth is refused: its pickle names .*open"):
        torch_tensors.read(tmp_path / "x.pth")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    "held",
    [[torch.ones(1)], torch.ones(1), {"a": 1.0}, {"a": [torch.ones(1)]}, {1: torch.ones(1)}],
    ids=["list", "tensor", "number", "inner list", "number as name"],
)
def test_anything_but_dicts_of_tensors_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="refused.*expected"):
        torch_tensors.read(tmp_path / "x.pth")


def _tensor_pickle(offset, shape, strides, count=4):
    """The pickle of {"a": a float tensor}, whatever its numbers."""
    text = torch_tensors._text  # noqa: SLF001, the writer's own opcodes
    number, pack, name = torch_tensors._number, torch_tensors._tuple, torch_tensors._global  # noqa: SLF001
    storage = [text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu")]
    parts = [pack([*storage, number(count)]) + pickle.BINPERSID, number(offset)]
    parts += [pack(map(number, shape)), pack(map(number, strides))]
    built = name("torch._utils", "_rebuild_tensor_v2") + pack(parts) + pickle.REDUCE
    return b"\x80\x02}" + text("a") + built + pickle.SETITEM + pickle.STOP


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ((0, (5,), (1,)), "shape .5,. in a storage of 4"),
        ((2, (3,), (1,)), "in a storage of 4"),
        ((0, (2, 2), (3, 1)), "in a storage of 4"),
        ((-1, (2,), (1,)), "offset, shape and strides"),
        ((0, (2,), (-1,)), "offset, shape and strides"),
        ((0, (1 << 40,), (0,)), "in a storage of 4"),
        ((0, (2, 2), (1,)), "unlike shape"),
        ((0, (2,), (1,), 5), "4 of 5 numbers"),
    ],
)
def test_tensors_stay_inside_their_storage(tmp_path, numbers, complaint):
    good = _archive(tmp_path / "good", _tensor_pickle(1, (3,), (1,)), **{"0": bytes(16)})
    np.testing.assert_array_equal(torch_tensors.read(good)["a"], np.zeros(3, "f4"))
    bad = _archive(tmp_path / "bad", _tensor_pickle(*numbers), **{"0": bytes(16)})
    with pytest.raises(ValueError, match=complaint):
        torch_tensors.read(bad)


def test_a_pickle_cannot_change_the_reader(tmp_path):
    name, text = torch_tensors._global, torch_tensors._text  # noqa: SLF001
    for called in (name("torch._utils", "_rebuild_tensor_v2"), name("torch", "FloatStorage")):
        changed = pickle.EMPTY_DICT + text("_call") + pickle.EMPTY_DICT + pickle.SETITEM
        state = pickle.NONE + changed + pickle.TUPLE2
        path = _archive(tmp_path / "x", b"\x80\x02" + called + state + pickle.BUILD + pickle.STOP)
        with pytest.raises(ValueError, match="refused: its pickle sets '_call'"):
            torch_tensors.read(path)


def test_broken_files_are_told(tmp_path):
    path = tmp_path / "x.pth"
    torch_tensors.write(path, _arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is it whole"):
        torch_tensors.read(path)
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="not in the zip format"):
        torch_tensors.read(path)
    _archive(path, _tensor_pickle(0, (4,), (1,)))
    with pytest.raises(ValueError, match="data/0"):
        torch_tensors.read(path)
    _archive(path, b"\x80\x02}", **{"0": b""})
    with pytest.raises(ValueError, match="not a readable file of torch.save"):
        torch_tensors.read(path)
    _archive(path, pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        torch_tensors.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(ValueError, match="0 data.pkl"):
        torch_tensors.read(path)
    with pytest.raises(FileNotFoundError):
        torch_tensors.read(tmp_path / "gone")


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"a": np.ones(2, "c16")}, "a: an array of complex128"),
        ({"a": {"b": np.array(["x"])}}, "a/b: an array of <U1"),
        ({1: np.ones(2)}, "a key is 1"),
        ({"a": [1.0]}, "a is a list, expected a dict"),
    ],
)
def test_what_torch_has_not_is_not_written(tmp_path, tensors, complaint):
    with pytest.raises(ValueError, match=complaint):
        torch_tensors.write(tmp_path / "x", tensors)
    assert not list(tmp_path.iterdir())
