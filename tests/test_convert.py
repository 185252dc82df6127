"""The converter: strict in both directions, and no code from a checkpoint ever runs."""

import functools
import pickle
import sys
import types

from flax import nnx, traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.torch
import torch

from foley_jax import convert
from foley_jax.diff_foley.models import audio_encoder, video_encoder
from foley_jax.interop import fill, registry, spec
from foley_jax.layers import configured, dense
from foley_jax.runtime import network as network_lib
from foley_jax.training.checkpointing import run_directory


class Small(nnx.Module):
    """One of every kind of leaf."""

    def __init__(self, width: int = 4, *, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal()
        self.conv = nnx.Conv(3, width, (3, 3), padding=((1, 1), (1, 1)), rngs=rngs)
        self.bn = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.point = dense.Pointwise(width, 5, kernel_init=init, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)])
        self.embed = nnx.Embed(7, 2, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x_BHWC, index_B):
        x = self.bn(self.conv(x_BHWC), use_running_average=True)
        x = nnx.relu(self.point(x)).mean((1, 2))
        for head in self.heads:
            x = head(x)
        return self.scale[...] * x + self.embed(index_B)


class Torch(torch.nn.Module):
    """Our network in PyTorch, under other names."""

    def __init__(self):
        super().__init__()
        self.in_conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(4)
        self.point = torch.nn.Conv2d(4, 5, 1, bias=False)
        self.heads = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 2))
        self.embed = torch.nn.Embedding(7, 2)
        self.scale = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x, index):
        x = self.heads(torch.relu(self.point(self.bn(self.in_conv(x)))).mean((2, 3)))
        return self.scale * x + self.embed(index)


KIND = spec.Checkpoint(
    build=functools.partial(configured.build, Small),
    model={"width": 4},
    renames=((r"^in_conv\.", "conv."),),
    ignore=(r"ema\..*",),
)


@pytest.fixture
def reference():
    torch.manual_seed(0)
    model = Torch()
    with torch.no_grad():
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.5, 2.0)
        model.bn.weight.normal_()
    return model.eval()


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    known = {"small": KIND}
    monkeypatch.setattr(registry, "kinds", lambda: known)
    return known


def _arrays(reference):
    return {key: value.detach().numpy() for key, value in reference.state_dict().items()}


def _assert_same(module, reference):
    x = torch.rand(2, 3, 6, 5)
    index = torch.tensor([1, 6])
    with torch.no_grad():
        want = reference(x, index).numpy()
    graphdef, state = nnx.split(module)
    fn = jax.jit(lambda state, x, i: nnx.merge(graphdef, state)(x, i))
    got = fn(nnx.to_pure_dict(state), x.permute(0, 2, 3, 1).numpy(), index.numpy())
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_a_converted_module_computes_the_same(reference):
    _assert_same(registry.from_state_dict("small", _arrays(reference)), reference)


def test_every_misfit_is_listed_in_one_error(reference):
    state = _arrays(reference)
    del state["heads.1.bias"], state["bn.running_var"]
    state["stray.weight"] = np.zeros((2, 2))
    state["other"] = np.zeros(3)
    state["embed.weight"] = np.zeros((8, 2), np.float32)
    state["point.weight"] = np.zeros((4, 5, 1, 1), np.float32)  # in and out swapped
    state["conv.weight"] = state["in_conv.weight"]  # renamed and by its own name
    with pytest.raises(fill.ConversionError) as caught:
        registry.from_state_dict("small", state)
    message = str(caught.value)
    for part in (
        "2 checkpoint keys without a place",
        "stray.weight (2, 2)",
        "other (3,)",
        "2 keys whose shape does not fit",
        "embed.weight (8, 2) -> embed/embedding wants (7, 2)",
        "point.weight (4, 5, 1, 1) -> point/kernel wants (4, 5)",
        "1 keys that fill a parameter twice",
        "conv.weight -> conv/kernel",
        "2 parameters that no checkpoint key fills",
        "heads/1/bias (2,)",
        "bn/var (4,)",
    ):
        assert part in message, (part, message)


def test_ignored_and_counter_keys_are_not_needed(reference):
    state = {"ema.decay": np.zeros(1), **_arrays(reference)}
    assert "bn.num_batches_tracked" in state
    registry.from_state_dict("small", state)


def test_prefixes_are_stripped_as_often_as_they_stand(reference):
    state = {f"module.module.{k}": v for k, v in _arrays(reference).items()}
    _assert_same(registry.from_state_dict("small", state), reference)


def test_parts_named_init_start_fresh_and_only_those(reference, kinds):
    kinds["small"] = spec.Checkpoint(
        build=KIND.build, model=KIND.model, renames=KIND.renames, init=(r"heads/1/.*",)
    )
    state = {k: v for k, v in _arrays(reference).items() if not k.startswith("heads.1")}
    module = registry.from_state_dict("small", state)
    fresh = KIND.build(ml_collections.ConfigDict(KIND.model), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(module.heads[1].kernel[...], fresh.heads[1].kernel[...], rtol=1e-6)
    np.testing.assert_array_equal(module.heads[0].kernel[...].T, state["heads.0.weight"])
    del state["heads.0.weight"]
    with pytest.raises(fill.ConversionError, match="heads/0/kernel"):
        registry.from_state_dict("small", state)


def test_transforms_and_prepare_replace_the_rules(reference, kinds):
    state = _arrays(reference)
    state["heads.0.weight"] = state["heads.0.weight"][::-1].T
    kinds["small"] = spec.Checkpoint(
        build=KIND.build,
        model=KIND.model,
        renames=KIND.renames,
        transforms=((r"heads\.0\.weight", lambda w: w[:, ::-1]),),
        prepare=lambda state: {k.removeprefix("old_"): v for k, v in state.items()},
    )
    state = {f"old_{k}": v for k, v in state.items()}
    _assert_same(registry.from_state_dict("small", state), reference)


def test_unknown_kinds_and_fields_are_named(reference):
    with pytest.raises(ValueError, match="known kinds: small"):
        registry.from_state_dict("smal", {})
    with pytest.raises(ValueError, match=r"unknown model fields \['widht'\]"):
        registry.from_state_dict("small", _arrays(reference), widht=3)


@pytest.mark.parametrize("container", [None, "state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_are_read(tmp_path, reference, container, zipped):
    state = reference.state_dict()
    content = {container: state, "epoch": 3, "optimizer": {"lr": 0.1}} if container else state
    torch.save(content, tmp_path / "m.ckpt", _use_new_zipfile_serialization=zipped)
    _assert_same(registry.load_torch("small", tmp_path / "m.ckpt"), reference)


def test_safetensors_files_and_folders_are_read(tmp_path, reference, kinds):
    safetensors.torch.save_file(reference.state_dict(), tmp_path / "m.safetensors")
    _assert_same(registry.load_torch("small", tmp_path / "m.safetensors"), reference)
    _assert_same(registry.load_torch("small", tmp_path), reference)
    parts = {"a": {}, "b": {}}
    for number, (key, value) in enumerate(reference.state_dict().items()):
        parts["ab"[number % 2]][key] = value
    for name, part in parts.items():
        (tmp_path / "parts" / name).mkdir(parents=True)
        safetensors.torch.save_file(part, tmp_path / "parts" / name / "w.safetensors")
    kinds["small"] = spec.Checkpoint(
        build=KIND.build,
        model=KIND.model,
        renames=((r"^[ab]\.", ""), *KIND.renames),
        ignore=(r"[ab]\..*num_batches_tracked",),
        folders=("a", "b"),
    )
    _assert_same(registry.load_torch("small", tmp_path / "parts"), reference)


def test_half_precision_becomes_float32(tmp_path, reference):
    state = {
        k: v.bfloat16() if v.is_floating_point() else v for k, v in reference.state_dict().items()
    }
    torch.save(state, tmp_path / "m.pt")
    module = registry.load_torch("small", tmp_path / "m.pt")
    assert module.conv.kernel.dtype == jnp.float32
    want = state["heads.0.weight"].float().numpy().T
    np.testing.assert_array_equal(module.heads[0].kernel[...], want)


class _Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, reference, zipped):
    mark = tmp_path / "ran"
    content = {"state_dict": reference.state_dict(), "extra": _Bomb(mark)}
    torch.save(content, tmp_path / "m.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="is refused.*safetensors"):
        registry.load_torch("small", tmp_path / "m.ckpt")
    with (tmp_path / "plain.pt").open("wb") as file:
        pickle.dump(_Bomb(mark), file)
    with pytest.raises(ValueError, match="plain.pt"):
        registry.load_torch("small", tmp_path / "plain.pt")
    assert not mark.exists()


def test_the_class_names_in_lightning_files_do_no_harm(tmp_path, reference, monkeypatch):
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)

    class ModelCheckpoint:
        pass

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    content = {"state_dict": reference.state_dict(), "callbacks": {ModelCheckpoint: {"best": 1.0}}}
    torch.save(content, tmp_path / "m.ckpt")
    monkeypatch.delitem(sys.modules, name)
    _assert_same(registry.load_torch("small", tmp_path / "m.ckpt"), reference)


@pytest.mark.parametrize("name", ["m.ckpt", "m.pth", "m.safetensors"])
def test_damaged_files_give_one_clear_error(tmp_path, reference, name):
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(reference.state_dict(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint at all" * 9):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            registry.load_torch("small", tmp_path / name)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        registry.load_torch("small", tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError, match="has no weight files"):
        registry.load_torch("small", tmp_path)
    (tmp_path / "m.txt").write_text("x")
    with pytest.raises(ValueError, match="known endings"):
        registry.load_torch("small", tmp_path / "m.txt")
    torch.save({"state_dict": {"names": ["a"]}}, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match="'names' is a list"):
        registry.load_torch("small", tmp_path / "m.ckpt")


def test_the_command_line_writes_a_folder_that_can_be_loaded(tmp_path, reference, capsys):
    torch.save(reference.state_dict(), tmp_path / "m.ckpt")
    out = tmp_path / "converted"
    assert convert.main(["small", str(tmp_path / "m.ckpt"), str(out)]) == 0
    assert "every key accounted for" in capsys.readouterr().out
    config, params, rest = run_directory.load_model_state(out)
    assert config.model.width == 4 and config.kind == "small"
    graphdef = nnx.graphdef(network_lib.shapes(lambda keys: KIND.build(config.model, rngs=keys)))
    _assert_same(nnx.merge(graphdef, params, rest), reference)
    assert convert.main(["small", str(tmp_path / "m.ckpt"), str(out)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_command_line_errors_are_one_line(tmp_path, capsys):
    assert convert.main(["--list"]) == 0
    assert capsys.readouterr().out == "small\n"
    assert convert.main(["small", str(tmp_path / "none.ckpt"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: no such checkpoint")
    assert not (tmp_path / "out").exists()


def test_every_kind_says_what_it_leaves_out(monkeypatch):
    monkeypatch.undo()
    known = registry.kinds()
    assert {"diff_foley/cavp", "panns/cnn14", "mmaction/slowonly_r50"} <= set(known)
    for kind, description in known.items():
        config = convert.run_config(kind)
        assert set(config.model) == set(description.model)


def _official(build, prefix=""):
    """Random weights of one of our modules, by our path and in PyTorch's names and layouts."""
    rng = np.random.default_rng(0)
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    abstract = nnx.to_pure_dict(nnx.state(network_lib.shapes(build)))
    ours, state = {}, {}
    for path, leaf in traverse_util.flatten_dict(abstract).items():
        value = rng.standard_normal(leaf.shape).astype(np.float32)
        *parents, name = map(str, path)
        ours["/".join((*parents, name))] = value
        if name == "kernel":
            value = np.moveaxis(value, (-1, -2), (0, 1))
        state[".".join((*([prefix] if prefix else []), *parents, names.get(name, name)))] = value
    return ours, state


def _leaves(module):
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module)))
    return {"/".join(map(str, path)): leaf for path, leaf in flat.items()}


def test_panns_fills_all_but_the_norm_and_the_projection(monkeypatch):
    monkeypatch.undo()
    fields = {"channels": (4,) * 6, "embed_dim": 3}
    ours, state = _official(lambda keys: audio_encoder.Cnn14(**fields, rngs=keys))
    own = ("bn.", "final_project.")
    state = {key: value for key, value in state.items() if not key.startswith(own)}
    extra = {"bn0.weight": np.ones(64), "fc_audioset.bias": np.ones(527)}
    state.update(extra, **{"logmel_extractor.melW": np.ones((513, 64))})
    module = registry.from_state_dict("panns/cnn14", state, **fields)
    got = _leaves(module)
    assert set(got) == set(ours)
    for path, value in got.items():
        if not path.startswith(("bn/", "final_project/")):
            np.testing.assert_array_equal(value, ours[path])
    np.testing.assert_array_equal(got["bn/scale"], np.ones(128))
    assert 0 < np.abs(got["final_project/kernel"]).max() < 1
    del state["fc1.weight"]
    with pytest.raises(fill.ConversionError, match="fc1/kernel"):
        registry.from_state_dict("panns/cnn14", state, **fields)


def test_mmaction_fills_the_whole_backbone(monkeypatch):
    monkeypatch.undo()
    fields = {"depths": (1, 1, 1, 1), "width": 4}
    ours, flat = _official(lambda keys: video_encoder.SlowOnly(**fields, rngs=keys), "backbone")
    state = {}
    for key, value in flat.items():
        if key.endswith("conv.weight") and value.ndim == 3:  # [O, I, 3]
            value = value[..., None, None]
        elif key.endswith("conv.weight"):  # [O, I] or [O, I, k, k]
            value = value.reshape(*value.shape[:2], 1, *(value.shape[2:] or (1, 1)))
        state[key] = value
    assert state["backbone.layer4.0.conv1.conv.weight"].shape == (32, 64, 3, 1, 1)
    state["cls_head.fc_cls.weight"] = np.zeros((400, 128))
    got = _leaves(registry.from_state_dict("mmaction/slowonly_r50", state, **fields))
    assert set(got) == set(ours)
    for path, value in got.items():
        np.testing.assert_array_equal(value, ours[path])
