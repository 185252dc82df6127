"""Files of others: halves, configs beside tensors, shards, old formats, and what is no weights."""

import argparse
import collections
import json
import pathlib
import pickle
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
import weights_of_others

from foley_jax.interop import fill, registry, torch_reader, weight_folders


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setattr(registry, "kinds", lambda: {"small": weights_of_others.KIND})


def _cast(dtype):
    state = weights_of_others.state_dict()
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float16, {"pt": "Half", "safetensors": "F16"}),
        (torch.bfloat16, {"pt": "BFloat16", "safetensors": "BF16"}),
        (torch.float64, {"pt": "Double", "safetensors": "F64"}),
    ],
)
def test_other_precisions_are_cast_and_noted(tmp_path, ending, dtype, name):
    save = torch.save if ending == "pt" else safetensors.torch.save_file
    save(_cast(dtype), tmp_path / f"w.{ending}")
    module, filled = registry.convert("small", tmp_path / f"w.{ending}")
    weights_of_others.assert_holds(module, _cast(dtype), rtol=1e-7)  # float64 is rounded
    note = f"9 keys are stored as {name[ending]}; parameters become float32"
    assert note in filled.notes


def test_quantised_weights_and_lost_numbers_are_told(tmp_path):
    state = weights_of_others.state_dict()
    torch.save({**state, "first.weight": torch.ones(4, 3, dtype=torch.int8)}, tmp_path / "w.pt")
    with pytest.raises(fill.ConversionError, match="of int8 .*quantised"):
        registry.load_torch("small", tmp_path / "w.pt")
    torch.save({**state, "first.weight": state["first.weight"] * torch.nan}, tmp_path / "w.pt")
    _, filled = registry.convert("small", tmp_path / "w.pt")
    assert "first.weight holds values that are not finite" in filled.notes


class _AttrDict(dict):
    """A config that is a dict with attributes, as EasyDict and OmegaConf are."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = dict(items)


class _Listed(list):
    pass


@pytest.fixture
def configs(monkeypatch):
    """Objects of classes that are not there when the file is read."""
    module = types.ModuleType("omegaconf")
    for cls in (_AttrDict, _Listed):
        monkeypatch.setattr(cls, "__module__", "omegaconf")
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    yield {
        "args": argparse.Namespace(lr=1e-4, out=pathlib.Path("runs")),
        "config": _AttrDict(width=4, layers=_Listed([1, 2])),
        "best": np.float64(0.5),
        "history": collections.defaultdict(list, loss=[1.0, np.float32(2)]),
        "rng_state": np.arange(3),
        "sizes": {torch.float32: torch.Size([2]), "bytes": b"\0\1", "device": torch.device("cpu")},
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_objects_beside_the_tensors_are_passed_over(tmp_path, configs, monkeypatch, zipped, inside):
    state = weights_of_others.state_dict()
    content = {**state, "args": configs} if inside else {"state_dict": state, **configs}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "omegaconf")
    module, filled = registry.convert("small", tmp_path / "w.pt")
    weights_of_others.assert_holds(module, state)
    notes = "\n".join(filled.notes)
    assert "passed over: argparse.Namespace, omegaconf._AttrDict, omegaconf._Listed" in notes
    assert "omegaconf" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_in_a_class_of_their_own_are_read(tmp_path, configs, zipped):
    content = {"state_dict": _AttrDict(**weights_of_others.state_dict())}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    module, _ = registry.convert("small", tmp_path / "w.pt")
    weights_of_others.assert_holds(module, weights_of_others.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("held", ["alone", "model"])
def test_a_whole_model_is_refused_in_words(tmp_path, zipped, held):
    net = weights_of_others.Net()
    content = net if held == "alone" else {held: net, "epoch": 3}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"w\.pt is refused: .*weights_of_others\.Net.*state_dict"):
        registry.load_torch("small", tmp_path / "w.pt")


class _Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_functions_of_python_are_refused_and_not_run(tmp_path, zipped):
    import os
    import subprocess

    marker = tmp_path / "ran"
    for attack in (
        _Attack(os.system, f"touch {marker}"),
        _Attack(subprocess.check_call, ["touch", str(marker)]),
        _Attack(eval, f"open({str(marker)!r}, 'w')"),
        _Attack(getattr, os, "system"),
    ):
        content = {"state_dict": weights_of_others.state_dict(), "extra": attack}
        if attack.call[0] is getattr:
            content["extra"] = _Attack(getattr, argparse.Namespace, "__init__")
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"w\.pt is refused: its pickle names"):
            registry.load_torch("small", tmp_path / "w.pt")
    assert not marker.exists()


def _odd_tensors():
    """Tied, turned, strided and expanded tensors, and what they are worth."""
    state = weights_of_others.state_dict()
    row = torch.arange(8.0).repeat(3, 1)
    state["first.weight"] = row.T[::2]  # not contiguous, an offset stride
    state["first.bias"] = state["first.weight"][:, 0]  # the same storage
    state["bn.bias"] = torch.tensor(3.0).expand(2)
    state["conv.bias"] = torch.nn.Parameter(state["conv.bias"])
    return state


@pytest.mark.parametrize("zipped", [True, False])
def test_shared_and_turned_tensors_keep_their_values(tmp_path, zipped):
    torch.save(_odd_tensors(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = torch_reader.read_state_dict(tmp_path / "w.pt")
    for key, value in _odd_tensors().items():
        np.testing.assert_array_equal(found[key], value.detach().numpy(), strict=True)


def test_tensors_of_other_devices_are_read(tmp_path):
    """Where a tensor lay when it was saved is a word in the pickle: "cuda:0"."""
    with zipfile.ZipFile(tmp_path / "cpu.pt", "w"):
        pass
    torch.save(weights_of_others.state_dict(), tmp_path / "cpu.pt")
    with (
        zipfile.ZipFile(tmp_path / "cpu.pt") as source,
        zipfile.ZipFile(tmp_path / "w.pt", "w") as target,
    ):
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("data.pkl"):
                before = b"X\x03\x00\x00\x00cpu"
                assert before in data
                data = data.replace(before, b"X\x06\x00\x00\x00cuda:0")
            # and another folder at the top
            target.writestr("epoch=66-step=1234/" + info.filename.split("/", 1)[1], data)
    module, _ = registry.convert("small", tmp_path / "w.pt")
    weights_of_others.assert_holds(module, weights_of_others.state_dict())


@pytest.mark.parametrize("name", ["w.bin", "w.ckpt", "w.safetensors", "w.pth.tar"])
def test_the_content_decides_and_not_the_ending(tmp_path, name):
    state = weights_of_others.state_dict()
    if name == "w.safetensors":
        torch.save(state, tmp_path / name)
    elif name == "w.pth.tar":
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    module, _ = registry.convert("small", tmp_path / name)
    weights_of_others.assert_holds(module, state)


def test_files_without_checksums_are_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights_of_others.state_dict(), tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    module, _ = registry.convert("small", tmp_path / "w.pt")
    weights_of_others.assert_holds(module, weights_of_others.state_dict())


def _shards(folder, ending):
    """Two shards, their index, and what accelerate leaves beside them; returns the index."""
    state = weights_of_others.state_dict()
    stem = "pytorch_model" if ending == "bin" else "model"
    save = torch.save if ending == "bin" else safetensors.torch.save_file
    weight_map = {}
    for number, keys in enumerate((list(state)[:4], list(state)[4:])):
        name = f"{stem}-{number + 1:05}-of-00002.{ending}"
        save({key: state[key] for key in keys}, folder / name)
        weight_map |= dict.fromkeys(keys, name)
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer.bin")
    torch.save({"last_epoch": 3}, folder / "scheduler.bin")
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_shards_are_read_together(tmp_path, ending):
    index = _shards(tmp_path, ending)
    first = next(tmp_path.glob("*-00001-of-*"))
    for source in (tmp_path, index, first):
        module, _ = registry.convert("small", source)
        weights_of_others.assert_holds(module, weights_of_others.state_dict())
        assert registry.recognise(source) == "small"
    index.unlink()
    weights_of_others.assert_holds(
        registry.load_torch("small", tmp_path), weights_of_others.state_dict()
    )


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_a_missing_shard_is_named(tmp_path, ending):
    index = _shards(tmp_path, ending)
    lost = next(tmp_path.glob("*-00002-of-*"))
    lost.unlink()
    first = next(tmp_path.glob("*-00001-of-*"))
    for source in (tmp_path, index, first):
        with pytest.raises(weight_folders.MissingShardError, match=f"lacks 1 .*{lost.name}"):
            registry.load_torch("small", source)
        with pytest.raises(weight_folders.MissingShardError, match=lost.name):
            registry.recognise(source)
    first.unlink()
    with pytest.raises(weight_folders.MissingShardError, match="lacks 2"):
        registry.load_torch("small", tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="is not an index of shards"):
        registry.load_torch("small", index)


def test_unlike_files_in_one_folder_are_not_mixed(tmp_path):
    for name in ("model.safetensors", "other.safetensors"):
        safetensors.torch.save_file(weights_of_others.state_dict(), tmp_path / name)
    with pytest.raises(ValueError, match=r"is in .*model.safetensors and in .*other.safetensors"):
        registry.load_torch("small", tmp_path)


def test_accelerate_folders_leave_the_optimizer_out(tmp_path):
    torch.save(weights_of_others.state_dict(), tmp_path / "pytorch_model.bin")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.bin")
    torch.save(argparse.Namespace(lr=1), tmp_path / "training_args.bin")
    weights_of_others.assert_holds(
        registry.load_torch("small", tmp_path), weights_of_others.state_dict()
    )


def test_parameters_that_lie_elsewhere_are_told(tmp_path):
    empty = {key: torch.zeros(0) for key in weights_of_others.state_dict()}
    torch.save({"module": empty, "optimizer": None}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(ValueError, match="ZeRO stage 3.*zero_to_fp32"):
        registry.load_torch("small", tmp_path)
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(ValueError, match="dcp_to_torch"):
        registry.load_torch("small", tmp_path / "dcp")


class _Scripted(torch.nn.Module):
    def forward(self, x):
        return x


def _torchscript(path):
    torch.jit.save(torch.jit.trace(_Scripted(), torch.ones(1)), str(path))


def _packed_folder(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
        archive.writestr("folder/model.pt", "x")


def _tar(path):
    inner = path.with_name("inner.txt")
    inner.write_text("x")
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "inner.txt")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 512345678\n"
FOREIGN = {
    "lfs": (LFS, "Git LFS pointer.*512,345,678 bytes.*git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><body>quota exceeded", "web page, not weights"),
    "html2": (b"\xef\xbb\xbf<HTML lang=en>", "web page, not weights"),
    "xml": (b"<?xml version='1.0'?><Error>AccessDenied", "web page, not weights"),
    "json": (b'{"error": "Invalid credentials"}', "is text .*Invalid credentials"),
    "text": (b"Not Found", "is text .*Not Found"),
    "empty": (b"", "is empty"),
    "zeros": (bytes(4096), "nothing but zeros"),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "packed with gzip: unpack"),
    "xz": (b"\xfd7zXZ\0" + bytes(30), "packed with xz: unpack"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    "gguf": (b"GGUF\x03" + bytes(30), "a GGUF file"),
    "npy": (b"\x93NUMPY\x01" + bytes(30), "a NumPy array"),
    "pickle": (pickle.dumps({"a": np.ones(3)}), "plain pickle"),
    "cut zip": (b"PK\x03\x04" + bytes(200), "is it whole"),
    "torchscript": (_torchscript, r"TorchScript archive.*torch\.jit\.load"),
    "zip": (_packed_folder, "0 data.pkl.*packed folder, unpack it"),
    "tar": (_tar, "tar archive: unpack"),
    "noise": (bytes(range(128, 256)) * 9, "is it whole|damaged|plain pickle"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its archives
def test_files_that_are_no_weights_are_refused_in_words(tmp_path, name, ending):
    content, words = FOREIGN[name]
    path = tmp_path / f"w.{ending}"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    for read in (lambda: registry.load_torch("small", path), lambda: registry.recognise(path)):
        with pytest.raises(ValueError, match=rf"w\.{ending} .*({words})"):
            read()


def test_pytorch_is_not_needed(tmp_path, monkeypatch):
    torch.save(weights_of_others.state_dict(), tmp_path / "w.pt")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert set(torch_reader.read_state_dict(tmp_path / "w.pt")) > {"first.weight"}
