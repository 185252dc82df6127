"""Our networks as official files: the names and shapes of these, and the same numbers back."""

import filled
from flax import nnx, traverse_util
from goldens import fill as fill_rule
import numpy as np
import pytest
import tiny_foley
import torch

from foley_jax import convert
from foley_jax.interop import fill, official_names, registry, torch_reader, torch_writer
from foley_jax.runtime import network as network_lib
from foley_jax.training.checkpointing import run_directory
from tests import official_keys

SMALL = {
    "diff_foley/cavp": {
        "embed_dim": 6,
        "video": {"depths": (1, 1, 1, 1), "width": 4},
        "audio": {"channels": (2, 2, 4, 4, 4, 4)},
    },
    "diff_foley/ldm": {
        "unet": {"model_channels": 8, "num_heads": 2, "context_dim": 6, "num_groups": 4},
        "autoencoder": {"ch": 4, "num_groups": 2},
        "conditioner": {"in_dim": 5, "out_dim": 6},
    },
    "mm_diffusion/base": {"model_channels": 32, "head_channels": 32},
    "mmaudio/small_16k": {"width": 32, "num_heads": 2},
}


def _leaves(module):
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module)))
    return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flat.items()}


def _build(kind, fields):
    description = registry.lookup(kind)
    model = registry.model_config(description, fields)
    return lambda keys: description.build(model, rngs=keys)


@pytest.mark.parametrize(
    "kind", [*official_keys.KINDS, "mmaudio/small_16k", "mmaudio/large_44k_v2"]
)
def test_every_official_name_and_shape_comes_back(kind):
    abstract = nnx.to_pure_dict(nnx.state(network_lib.shapes(_build(kind, {}))))
    ours = {
        "/".join(map(str, path)): np.broadcast_to(np.float32(0), leaf.shape)
        for path, leaf in traverse_util.flatten_dict(abstract).items()
    }
    written = torch_writer.state_dict(kind, ours)
    description = registry.lookup(kind)
    theirs = {
        key: tuple(shape)
        for key, (shape, _) in official_keys.of(kind).items()
        if fill.reason_of(description, key) is None
    }
    assert {key: value.shape for key, value in written.state.items()} == theirs
    assert written.left == (("latent_scale",) if kind == "diff_foley/ldm" else ())


def _first(kind):
    """A small network: of the goldens' official weights, where there are small ones."""
    if kind != "mm_diffusion/base":
        return filled.module(_build(kind, SMALL[kind]))
    keys = official_keys.read("mm_diffusion/tiny")
    state = {key: fill_rule.fill_value(key, shape, "") for key, (shape, _) in keys.items()}
    return registry.from_state_dict(kind, state, **SMALL[kind])


@pytest.mark.parametrize("kind", SMALL)
def test_files_and_networks_go_round(tmp_path, kind):
    first = _leaves(_first(kind))
    file, container = tmp_path / "new.ckpt", registry.lookup(kind).writing.container
    state, left = torch_writer.write(file, kind, first)
    torch_writer.write(tmp_path / "new.safetensors", kind, first)
    if kind == "mm_diffusion/base":  # official -> ours -> official
        keys = official_keys.read("mm_diffusion/tiny")
        assert {key: list(value.shape) for key, value in state.items()} == {
            key: shape for key, (shape, _) in keys.items()
        }
        for key, value in state.items():
            np.testing.assert_array_equal(value, fill_rule.fill_value(key, value.shape, ""))
    for path in (file, tmp_path / "new.safetensors"):
        assert registry.recognise(path) == kind
        found = torch_reader.read_state_dict(path, containers=(container,) if container else ())
        assert found.keys() == state.keys()
        for key, value in state.items():
            assert found[key].dtype == value.dtype and found[key].shape == np.shape(value), key
            np.testing.assert_array_equal(found[key], value, err_msg=key)
    # ours -> official -> ours -> official
    second = _leaves(registry.load_torch(kind, file, **SMALL[kind]))
    assert second.keys() == first.keys()
    for path in first.keys() - set(left):
        np.testing.assert_array_equal(second[path], first[path], err_msg=path)
    torch_writer.write(tmp_path / "again.ckpt", kind, second)
    assert (tmp_path / "again.ckpt").read_bytes() == file.read_bytes()
    theirs = torch.load(file, weights_only=True)
    theirs = theirs[container] if container else theirs
    assert all(np.array_equal(theirs[key], value) for key, value in state.items())


def test_a_run_through_the_command(tmp_path, capsys):
    config = tiny_foley.cavp()
    config.model.update(SMALL["diff_foley/cavp"])
    config.model.audio = SMALL["diff_foley/cavp"]["audio"]
    config.model.video = SMALL["diff_foley/cavp"]["video"]
    run = filled.save_run(tmp_path / "run", config)
    file = tmp_path / "new" / "cavp.pt"
    assert convert.main(["to_torch", str(run), str(file)]) == 0
    said = capsys.readouterr()
    assert "diff_foley/cavp" in said.out and not said.err
    fields = {name: config.model.to_dict()[name] for name in ("embed_dim", "video", "audio")}
    back = _leaves(registry.load_torch("diff_foley/cavp", file, **fields))
    groups = run_directory.read_groups(run)
    ours = {**groups["params"], **groups["rest"]}
    assert back.keys() == ours.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(back[path], value)
    for more, told in (
        ([str(file)], "is there already"),
        ([str(tmp_path / "new.bin")], "does not end in one of"),
        ([str(tmp_path / "a.pt"), "--kind=ldm"], "the network is not that of diff_foley/ldm"),
        ([str(tmp_path / "a.pt"), "--kind=clip"], "no official file for kind 'clip'"),
    ):
        assert convert.main(["to_torch", str(run), *more]) == 1
        assert told in capsys.readouterr().err
    assert not (tmp_path / "a.pt").exists()


def test_a_scale_without_a_place_is_told(tmp_path, capsys):
    kernel = {"kernel": np.ones((3, 3, 2, 4), np.float32)}
    run_directory.save_model(
        tmp_path / "run",
        config={"task": "ldm", "model": {}},
        params={
            "conditioner": {"pos_emb": {"embedding": np.ones((2, 3), np.float32)}},
            "unet": {"input_blocks": {0: {0: kernel}}},
            "autoencoder": {"encoder": {"conv_in": kernel}},
        },
        rest={"latent_scale": np.float32(0.25)},
    )
    assert convert.main(["to_torch", str(tmp_path / "run"), str(tmp_path / "a.ckpt")]) == 0
    assert "latent_scale = 0.25 is not in the file" in capsys.readouterr().err
    found = torch_reader.read_state_dict(tmp_path / "a.ckpt")
    assert set(found) == {
        "cond_stage_model.pos_emb.weight",
        "first_stage_model.encoder.conv_in.weight",
        "model.diffusion_model.input_blocks.0.0.weight",
    }
    assert all(v.shape == (4, 2, 3, 3) for k, v in found.items() if not k.startswith("cond"))


def test_renames_are_turned_round():
    ((regex, template),) = official_names.inverse(r"\.(a|b)_in\.0\.\1_conv\.", r".\1_conv1.")
    assert regex.sub(template, "x.a_conv1.weight") == "x.a_in.0.a_conv.weight"
    both = official_names.inverse(r"^(old|new)\.", "ours.")
    assert [template for _, template in both] == ["old.", "new."]
    with pytest.raises(ValueError, match="cannot be turned round"):
        official_names.inverse(r"\.\w+_conv\.", ".conv.")
