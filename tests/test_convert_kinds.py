"""Which kind a file is, averaged weights, Stable Diffusion's spellings, and the report."""

import json
import pathlib

import diffusers_spelling
from flax import nnx
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from foley_jax import convert
from foley_jax.diff_foley.weights import compvis_ema, diffusers_names
from foley_jax.interop import fill, registry, spec, torch_reader, weight_folders
from foley_jax.interop import report as conversion_report
from foley_jax.training.checkpointing import run_directory

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "diff_foley"


def _keys(name):
    return list(json.loads((GOLDENS / f"{name}_keys.json").read_text()))


def _state(keys):
    """Scalars under official names: enough to recognise a file by."""
    return {key: torch.zeros(()) for key in keys}


OFFICIAL = {
    "diff_foley/cavp": "cavp",
    "diff_foley/ldm": "ldm",
    "diff_foley/guidance_classifier": "classifier",
    "diff_foley/eval_classifier": "eval_classifier",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OFFICIAL)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_files_are_recognised(tmp_path, kind, prefix):
    state = _state(prefix + key for key in _keys(OFFICIAL[kind]))
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "some.ckpt")
    assert registry.recognise(tmp_path / "some.ckpt") == kind
    torch.save(state, tmp_path / "bare.pt")
    assert registry.recognise(tmp_path / "bare.pt") == kind
    safetensors.numpy.save_file(
        {k: v.numpy() for k, v in state.items()}, tmp_path / "s.safetensors"
    )
    assert registry.recognise(tmp_path / "s.safetensors") == kind


def test_the_name_decides_between_files_with_the_same_keys(tmp_path):
    state = _state(_keys("eval_classifier"))
    for name, kind in (
        ("double_guidance_classifier.ckpt", "diff_foley/guidance_classifier"),
        ("eval_classifier.ckpt", "diff_foley/eval_classifier"),
        ("other.ckpt", "diff_foley/eval_classifier"),
    ):
        torch.save({"state_dict": state}, tmp_path / name)
        assert registry.recognise(tmp_path / name) == kind


def test_stable_diffusion_is_recognised_in_a_file_and_in_a_folder(tmp_path):
    state = {k: v for k, v in _state(_keys("ldm")).items() if "cond_stage_model" not in k}
    text = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    torch.save({"state_dict": {**state, text: torch.zeros(())}}, tmp_path / "sd.ckpt")
    assert registry.recognise(tmp_path / "sd.ckpt") == "stable_diffusion/v1"
    for key, value in diffusers_spelling.folder(state, diffusers_spelling.NEW_ATTENTION).items():
        part, name = key.split(".", 1)
        (tmp_path / "sd" / part).mkdir(parents=True, exist_ok=True)
        state_of = state.setdefault(part, {})
        state_of[name] = value.numpy()
    for part in ("unet", "vae"):
        file = tmp_path / "sd" / part / "diffusion_pytorch_model.safetensors"
        safetensors.numpy.save_file(state[part], file)
    assert registry.recognise(tmp_path / "sd") == "stable_diffusion/v1"


def test_other_files_are_not_recognised(tmp_path):
    torch.save({"state_dict": {"x": torch.zeros(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt is none of the kinds.*diff_foley/cavp"):
        registry.recognise(tmp_path / "other.ckpt")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        registry.recognise(tmp_path / "none.ckpt")


def test_each_signature_fits_only_what_it_should():
    kinds = registry.kinds()
    for kind, name in OFFICIAL.items():
        keys = _keys(name)
        fitting = {k for k, d in kinds.items() if d.signature and fill.has_signature(d, keys)}
        own = {
            "diff_foley/ldm": {kind, "stable_diffusion/v1"},
            "diff_foley/eval_classifier": {kind, "diff_foley/guidance_classifier"},
        }
        assert fitting == own.get(kind, {kind})


@pytest.mark.parametrize("spelling", ["OLD_ATTENTION", "NEW_ATTENTION"])
def test_diffusers_names_become_those_of_the_compvis_file(spelling):
    keys = [k for k in _keys("ldm") if k.startswith(("model.", "first_stage_model."))]
    assert len(keys) == 686 + 248
    state = {key: np.full(1, number) for number, key in enumerate(keys)}
    theirs = diffusers_spelling.folder(state, getattr(diffusers_spelling, spelling))
    assert len(theirs) == len(keys) and not set(theirs) & set(keys)
    # a few names of the published folder, letter by letter
    assert {
        "unet.conv_in.weight",
        "unet.down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
        "unet.down_blocks.2.downsamplers.0.conv.bias",
        "unet.mid_block.resnets.1.time_emb_proj.weight",
        "unet.up_blocks.0.upsamplers.0.conv.weight",
        "unet.up_blocks.3.resnets.2.conv_shortcut.weight",
        "vae.encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
        "vae.decoder.up_blocks.2.upsamplers.0.conv.weight",
        "vae.decoder.mid_block.attentions.0.group_norm.weight",
        "vae.decoder.mid_block.attentions.0."
        + {"OLD_ATTENTION": "proj_attn", "NEW_ATTENTION": "to_out.0"}[spelling]
        + ".weight",
        "vae.post_quant_conv.weight",
    } <= set(theirs)
    assert diffusers_names.to_compvis(theirs) == state


def _with_averages():
    keys = [k for k in _keys("ldm") if k.startswith(("model.", "first_stage_model."))]
    state = {key: np.float32(1) for key in keys}
    for key in keys:
        if key.startswith("model."):
            # CompVis LitEma: the name within `model`, without its dots
            state["model_ema." + key.removeprefix("model.").replace(".", "")] = np.float32(2)
    extra = {"model_ema.decay": np.float32(0.9999), "model_ema.num_updates": np.int64(7)}
    return {**state, **extra}


def test_averaged_weights_take_the_place_of_the_last():
    state = _with_averages()
    assert "model_ema.diffusion_modelinput_blocks00weight" in state
    taken = compvis_ema.averaged(state)
    assert len(taken) == 686 + 248
    for key, value in taken.items():
        assert value == (2 if key.startswith("model.") else 1), key
    folder = {"unet.conv_in.weight": 1}
    assert compvis_ema.averaged(folder) == folder


def test_missing_averages_are_named():
    state = _with_averages()
    del state["model_ema.diffusion_modelout2bias"]
    with pytest.raises(ValueError, match=r"1 tensors \(model.diffusion_model.out.2.bias\)"):
        compvis_ema.averaged(state)
    none = {k: v for k, v in state.items() if not k.startswith("model_ema.")}
    with pytest.raises(ValueError, match="copy of 686 tensors .*without --ema"):
        compvis_ema.averaged(none)


def test_folders_choose_between_averaged_and_last_weights(tmp_path):
    names = {"model.safetensors": 1, "model.non_ema.safetensors": 2, "model.fp16.safetensors": 3}
    for name, value in names.items():
        safetensors.numpy.save_file({"x": np.full(1, value)}, tmp_path / name)
    assert torch_reader.read_state_dict(tmp_path)["x"] == 2
    assert torch_reader.read_state_dict(tmp_path, averaged=True)["x"] == 1
    (tmp_path / "model.non_ema.safetensors").unlink()
    assert torch_reader.read_state_dict(tmp_path)["x"] == 1
    assert [f.name for _, f in weight_folders.weight_files(tmp_path)] == ["model.safetensors"]


class _Two(nnx.Module):
    def __init__(self, *, rngs):
        self.a, self.b = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)


def _averaged(state):
    return {k.removeprefix("mean."): v for k, v in state.items() if k.startswith("mean.")}


TWO = spec.Checkpoint(
    build=lambda model, rngs: _Two(rngs=rngs),
    model={},
    ignore=((r"table", "derived from the config"), r"plain"),
    init=(r"b/.*",),
    signature=(r"a\.weight",),
    averaged=_averaged,
)


@pytest.fixture
def two(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "kinds", lambda: {"two": TWO})
    state = {
        "module.a.weight": torch.ones(3, 2),
        "module.a.bias": torch.ones(3),
        "table": torch.zeros(4),
        "plain": torch.zeros(4),
    }
    state.update({"mean." + k.removeprefix("module."): 2 * v for k, v in state.items()})
    without = {k: v for k, v in state.items() if not k.startswith("mean.")}
    torch.save(state, tmp_path / "both.ckpt")
    torch.save(without, tmp_path / "two.ckpt")
    return tmp_path


def test_the_report_tells_what_became_of_every_key(two, capsys):
    assert convert.main(["auto", str(two / "two.ckpt"), str(two / "out")]) == 0
    shown = capsys.readouterr().out
    for line in (
        "2 keys loaded: a.weight, a.bias",
        "1 keys ignored (derived from the config): table",
        "1 keys ignored (ignored by plain): plain",
        "2 parameters left as initialised: b/",
        "two, 13 parameters, every key accounted for",
    ):
        assert line in shown, (line, shown)
    report = json.loads((two / "out" / conversion_report.FILE).read_text())
    assert report["kind"] == "two" and report["ema"] is False
    assert report["counts"] == {"loaded": 2, "ignored": 2, "initialised": 2}
    assert report["loaded"] == {"a.weight": "a/kernel", "a.bias": "a/bias"}
    assert report["ignored"]["table"] == "derived from the config"
    assert sorted(report["initialised"]) == ["b/bias", "b/kernel"]
    _, params, _ = run_directory.load_model_state(two / "out")
    np.testing.assert_array_equal(params["a"]["kernel"], np.ones((2, 3)))


def test_the_command_line_takes_averages_when_asked(two, capsys):
    both = str(two / "both.ckpt")
    assert convert.main(["two", both, str(two / "mean"), "--ema"]) == 0
    _, params, _ = run_directory.load_model_state(two / "mean")
    np.testing.assert_array_equal(params["a"]["kernel"], np.full((2, 3), 2.0))
    assert convert.main(["two", both, str(two / "out")]) == 1  # "mean." keys have no place
    assert "mean.a.weight" in capsys.readouterr().err


def test_averages_of_a_kind_without_any_are_refused(two, monkeypatch, capsys):
    kind = spec.Checkpoint(build=TWO.build, model={}, ignore=TWO.ignore, init=TWO.init)
    monkeypatch.setattr(registry, "kinds", lambda: {"two": kind})
    assert convert.main(["two", str(two / "two.ckpt"), str(two / "out"), "--ema"]) == 1
    assert "no averaged (EMA) weights" in capsys.readouterr().err
    assert not (two / "out").exists()


def test_numpy_values_beside_the_weights_do_no_harm(two):
    state = torch.load(two / "two.ckpt")
    beside = {"indexes": np.arange(3), "best": np.float64(0.5)}
    torch.save({"state_dict": state, "sampler": beside}, two / "with.ckpt")
    assert registry.load_torch("two", two / "with.ckpt").a.kernel.shape == (2, 3)


def test_bfloat16_safetensors_are_read_exactly(tmp_path):
    values = torch.randn(2, 3).bfloat16()
    state = {"a": torch.ones(2), "b": values, "c": torch.tensor(1.5).bfloat16()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    got = torch_reader.read_state_dict(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(got["b"], values.float().numpy())
    assert got["b"].dtype == np.float32 and got["c"] == 1.5 and got["c"].shape == ()
    np.testing.assert_array_equal(got["a"], np.ones(2))
