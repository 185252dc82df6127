"""Files of the official formats and sizes, seeded, through the command line and back.

The weights are the goldens' (`goldens/fill.py`), so the parity tests say what the converted
networks compute; here every tensor has to arrive where it belongs.
"""

import collections
import json
import pathlib
import shutil
import subprocess
import sys
import types

import diffusers_spelling
from flax import nnx, traverse_util
from goldens import fill
import numpy as np
import pytest
import safetensors.numpy
import torch

from foley_jax.interop import registry
from foley_jax.interop import report as conversion_report
from foley_jax.training.checkpointing import run_directory

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "diff_foley"
PREFIX = "public/"


def _keys(name):
    return json.loads((GOLDENS / f"{name}_keys.json").read_text())


def _value(key, shape, dtype):
    if fill.is_filled(key, shape, dtype):
        return fill.fill_value(key, shape, PREFIX)
    constants = {"scale_factor": 0.18215, "logit_scale": np.log(1 / 0.07)}
    return np.full(shape, constants.get(key, 0), dtype)


def _tensors(name):
    return collections.OrderedDict(
        (key, torch.from_numpy(_value(key, *rest))) for key, rest in _keys(name).items()
    )


def _lightning(state):
    """Returns what pytorch-lightning 1.2 writes around a state dict.

    Its callback class is pickled too.
    """
    name = "pytorch_lightning.callbacks.model_checkpoint"
    parts = [".".join(name.split(".")[:n]) for n in (1, 2, 3)]
    sys.modules.update({part: types.ModuleType(part) for part in parts})
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback
    moments = {"step": 7, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    return {
        "epoch": 240,
        "global_step": 1234,
        "pytorch-lightning_version": "1.2.10",
        "state_dict": state,
        "callbacks": {callback: {"monitor": "val/loss", "best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [{"base_lrs": [1e-4], "last_epoch": 3}],
    }


def _save(content, path):
    torch.save(content, path)
    for part in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        del sys.modules[part]


def _open_cavp(state):
    """Returns what open_clip's training code writes, of a network wrapped for several GPUs."""
    wrapped = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 66, "name": "cavp", "state_dict": wrapped}


FILES = {
    "diff_foley/cavp": ("cavp", _open_cavp),
    "diff_foley/guidance_classifier": ("classifier", _lightning),
    "diff_foley/eval_classifier": ("eval_classifier", _lightning),
    "diff_foley/ldm": ("ldm", _lightning),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_official_format_through_the_command_line(tmp_path, kind):
    name, wrap = FILES[kind]
    file, out = tmp_path / "official.ckpt", tmp_path / "converted"
    _save(wrap(_tensors(name)), file)
    command = [sys.executable, "-m", "foley_jax.convert", "auto", str(file), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert kind in done.stdout
    file.unlink()
    report = json.loads((out / conversion_report.FILE).read_text())
    keys = _keys(name)
    assert report["kind"] == kind and report["source"] == str(file)
    assert set(report["loaded"]) | set(report["ignored"]) == set(keys)
    tables = {key for key in keys if key in fill.SCHEDULE_BUFFERS}
    counters = {key for key in keys if key.endswith("num_batches_tracked")}
    scale = {"scale_factor"} & set(keys) if kind == "diff_foley/guidance_classifier" else set()
    assert set(report["ignored"]) == tables | counters | scale
    assert report["initialised"] == (["latent_scale"] if kind == "diff_foley/ldm" else [])

    groups = run_directory.read_groups(out)
    leaves = {**groups["params"], **groups["rest"]}
    assert set(leaves) == {*report["loaded"].values(), *report["initialised"]}
    every = 8 if name == "ldm" else 1  # a second fill of 950 million numbers takes long
    for key, path in list(report["loaded"].items())[::every]:
        want = _value(key, *keys[key])
        if path.endswith("kernel"):
            want = np.moveaxis(want, (0, 1), (-1, -2))  # [out, in, *k] -> [*k, in, out]
        np.testing.assert_array_equal(np.ravel(leaves[path]), np.ravel(want), err_msg=key)
    if "latent_scale" in leaves:
        assert leaves["latent_scale"] == np.float32(0.18215)
    shutil.rmtree(out)


def test_a_guidance_classifier_may_bring_its_autoencoder(tmp_path):
    file = tmp_path / "double_guidance_classifier.ckpt"
    _save(_lightning(_tensors("eval_classifier")), file)
    module, filled = registry.convert(registry.recognise(file), file)
    assert module.autoencoder is None and len(filled.loaded) == 149
    assert {k.split(".")[0] for k in filled.ignored} >= {"first_stage_model", "scale_factor"}
    judge = registry.load_torch("diff_foley/eval_classifier", file)
    np.testing.assert_array_equal(
        judge.classifier.head.kernel[...], module.classifier.head.kernel[...]
    )


NARROW = {
    "unet": {"model_channels": 8, "num_heads": 2, "context_dim": 6, "num_groups": 4},
    "autoencoder": {"ch": 4, "num_groups": 2},
    "conditioner": {"in_dim": 5, "out_dim": 6},
}


def _narrow(key, shape):
    """Shape of a tensor of Stable Diffusion when every width shrinks as NARROW says."""
    width, ours = (320, 8) if key.startswith("model.") else (128, 4)
    return [6 if n == 768 else n * ours // width if n % width == 0 else n for n in shape]


@pytest.fixture(scope="module")
def narrow():
    """All of Stable Diffusion's tensors, narrow and random: last weights and averages."""
    rng, state = np.random.default_rng(0), {}
    for key, (shape, _) in _keys("ldm").items():
        if key.startswith(("model.", "first_stage_model.")):
            state[key] = rng.standard_normal(_narrow(key, shape)).astype(np.float32)
    for key in [k for k in state if k.startswith("model.")]:
        copy = "model_ema." + key.removeprefix("model.").replace(".", "")
        state[copy] = rng.standard_normal(state[key].shape).astype(np.float32)
    state["model_ema.decay"] = np.float32(0.9999)
    state["betas"] = np.zeros(1000, np.float32)
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    return state


def _averages(state):
    """Returns the same state dict with the averages as the only weights."""
    names = {k.replace(".", ""): k for k in state if k.startswith("model.")}
    taken = {k: v for k, v in state.items() if not k.startswith("model_ema.")}
    for key, value in state.items():
        if key.startswith("model_ema.diffusion"):
            taken[names["model" + key.removeprefix("model_ema.")]] = value
    return taken


def _write(state, form, folder):
    """The state dict as a file or folder of that form; its path."""
    if form == "ckpt":
        path = folder / "sd-v1-4-full-ema.ckpt"
        tensors = {k: torch.from_numpy(np.asarray(v)) for k, v in state.items()}
        _save(_lightning(tensors), path)
    elif form == "safetensors":
        path = folder / "sd.safetensors"
        safetensors.numpy.save_file({k: np.asarray(v) for k, v in state.items()}, path)
    else:
        path = folder / form
        theirs = diffusers_spelling.folder(state, getattr(diffusers_spelling, form))
        for part in ("unet", "vae"):
            (path / part).mkdir(parents=True)
            own = {k.removeprefix(f"{part}."): v for k, v in theirs.items() if k.startswith(part)}
            file = path / part / "diffusion_pytorch_model.safetensors"
            safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in own.items()}, file)
    return path


@pytest.mark.parametrize("form", ["ckpt", "safetensors", "OLD_ATTENTION", "NEW_ATTENTION"])
@pytest.mark.parametrize("averaged", [False, True])
def test_every_form_of_stable_diffusion(tmp_path, narrow, form, averaged):
    state = narrow
    if form.isupper() and averaged:
        state = _averages(narrow)  # a diffusers folder holds one set of weights
    path = _write(state, form, tmp_path)
    kind = registry.recognise(path)
    assert kind == "stable_diffusion/v1"
    module, filled = registry.convert(kind, path, averaged=averaged, **NARROW)
    assert len(filled.loaded) == 686 + 248
    fresh = [name for name in filled.initialised if not name.startswith("conditioner/")]
    assert fresh == ["latent_scale"]
    want = _averages(narrow) if averaged else narrow
    leaves = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module)))
    leaves = {"/".join(map(str, name)): leaf for name, leaf in leaves.items()}
    for key, name in filled.loaded.items():
        value = want[key]
        if name.endswith("kernel"):
            value = np.moveaxis(value, (0, 1), (-1, -2))
        np.testing.assert_array_equal(np.ravel(leaves[name]), np.ravel(value), err_msg=key)
