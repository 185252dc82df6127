"""Checkpoints as training tools wrap them: names in keys, dicts in dicts, averages beside raw."""

import functools
import json
import operator
import warnings

import numpy as np
import pytest
import torch
import weights_of_others

from foley_jax import convert
from foley_jax.interop import fill, registry, weight_norm, wrappers
from foley_jax.interop import report as conversion_report
from tests import official_keys


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setattr(registry, "kinds", lambda: {"small": weights_of_others.KIND})


def _converted(tmp_path, content, **options):
    torch.save(content, tmp_path / "w.pt")
    return registry.convert("small", tmp_path / "w.pt", **options)


def _wrapped(front):
    return {front + key: value for key, value in weights_of_others.state_dict().items()}


FRONTS = (
    "_orig_mod.",
    "module.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.module._orig_mod._orig_mod.",
    "_fsdp_wrapped_module.",
    "_forward_module.module.",
    "_orig_mod._fsdp_wrapped_module._checkpoint_wrapped_module.",
)


@pytest.mark.parametrize("front", FRONTS)
def test_wrappers_are_stripped_in_any_order_and_reported(tmp_path, front):
    module, filled = _converted(tmp_path, _wrapped(front))
    weights_of_others.assert_holds(module, weights_of_others.state_dict())
    for name in set(front.split(".")) - {""}:
        assert f"stripped '{name}.' from 10 keys" in filled.notes
    assert registry.recognise(tmp_path / "w.pt") == "small"


def test_wrappers_within_a_key_are_stripped(tmp_path):
    state = weights_of_others.state_dict()
    wrapped = {
        key.replace("conv.", "conv._checkpoint_wrapped_module.").replace("bn.", "bn.module."): value
        for key, value in state.items()
    }
    module, filled = _converted(tmp_path, wrapped)
    weights_of_others.assert_holds(module, state)
    assert "stripped '_checkpoint_wrapped_module.' from 2 keys" in filled.notes
    assert "stripped 'module.' from 5 keys" in filled.notes  # four and the counter


def test_a_key_that_only_contains_the_word_is_left(tmp_path):
    kept = ["my_module.weight", "first_stage_model.a", "x.submodule.b", "orig_mod.c", "a_ema.d"]
    assert list(wrappers.unwrap(kept)[0].values()) == kept
    with pytest.raises(fill.ConversionError, match=r"my_module\.weight"):
        _converted(tmp_path, {**weights_of_others.state_dict(), "my_module.weight": torch.ones(1)})


def test_a_key_with_and_without_a_wrapper_is_refused(tmp_path):
    both = {**weights_of_others.state_dict(), "module.logit_scale": torch.tensor(7.0)}
    with pytest.raises(fill.ConversionError, match="twice.*logit_scale"):
        _converted(tmp_path, both)


@pytest.mark.parametrize("front", ["model.", "net.", "net.model.", "model._orig_mod.", "ema."])
def test_the_front_of_a_training_class_goes_where_nothing_fits_with_it(tmp_path, front):
    module, filled = _converted(tmp_path, {"state_dict": _wrapped(front), "global_step": 3})
    weights_of_others.assert_holds(module, weights_of_others.state_dict())
    assert any(note.startswith("stripped") for note in filled.notes)
    assert registry.recognise(tmp_path / "w.pt") == "small"


@pytest.mark.parametrize(
    ("kind", "front"),
    [*((kind, "module._orig_mod.") for kind in official_keys.KINDS), ("diff_foley/cavp", "net.")],
)
def test_wrapped_official_files_are_recognised(tmp_path, monkeypatch, kind, front):
    monkeypatch.undo()
    keys = official_keys.of(kind)
    torch.save({front + key: torch.zeros(()) for key in keys}, tmp_path / "w.pt")
    assert registry.recognise(tmp_path / "w.pt") == kind


def test_official_keys_lose_nothing(monkeypatch):
    """Names that wrappers share with official files stay: "model." of the diffusion model."""
    monkeypatch.undo()
    for kind in official_keys.KINDS:
        keys = list(official_keys.of(kind))
        bare, notes = wrappers.unwrap(keys)
        assert list(bare.values()) == keys and not notes


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_one_number_is_taken_in_any_shape_of_one_and_noted(tmp_path, shape):
    state = weights_of_others.state_dict()
    state["logit_scale"] = state["logit_scale"].reshape(shape)
    module, filled = _converted(tmp_path, state)
    assert module.logit_scale[...].shape == ()
    assert float(module.logit_scale[...]) == float(state["logit_scale"])
    assert f"logit_scale: one number of shape {shape} taken as ()" in filled.notes


def test_any_other_shape_stays_an_error(tmp_path):
    for key, value in (
        ("logit_scale", torch.ones(2)),
        ("logit_scale", torch.ones(0)),
        ("first.bias", torch.ones(1)),
        ("first.bias", torch.ones(1, 4)),
        ("first.weight", torch.ones(3, 4)),
    ):
        with pytest.raises(fill.ConversionError, match="shape does not fit"):
            _converted(tmp_path, {**weights_of_others.state_dict(), key: value})


@pytest.mark.parametrize(
    "path", [["model_state_dict"], ["module"], ["net"], ["state_dict", "model"], ["weights"]]
)
def test_dicts_of_training_codes_are_opened_and_the_rest_is_named(tmp_path, path):
    state = weights_of_others.state_dict()
    inner = functools.reduce(lambda inner, name: {name: inner}, reversed(path), state)
    content = {**inner, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}
    module, filled = _converted(tmp_path, content)
    weights_of_others.assert_holds(module, state)
    assert f"weights taken from {path[0]!r}; left beside them: epoch, optimizer" in filled.notes


def test_training_states_between_the_tensors_are_left_out(tmp_path):
    state = weights_of_others.state_dict()
    content = {**state, "optimizer": {"state": {}}, "epoch": 3, "args": None}
    module, filled = _converted(tmp_path, content)
    weights_of_others.assert_holds(module, state)
    assert "left beside the weights: args, epoch, optimizer" in filled.notes


CONTAINERS = [
    ("state_dict", ["state_dict_ema"]),
    ("model", ["ema"]),
    ("model", ["model_ema"]),
    ("state_dict", ["ema_state_dict"]),
    ("model", ["ema", "shadow"]),
    ("model", ["ema", "module"]),
]


@pytest.mark.parametrize(("raw", "averaged"), CONTAINERS)
def test_the_last_weights_are_taken_and_averages_when_asked_for(tmp_path, raw, averaged):
    last, mean = weights_of_others.state_dict(0), weights_of_others.state_dict(1)
    content = {raw: last}
    functools.reduce(lambda d, name: d.setdefault(name, {}), averaged, content).update(mean)
    for name in reversed(averaged[:1]):  # whatever their order in the file
        content = {name: content[name], **content}
    module, filled = _converted(tmp_path, content)
    weights_of_others.assert_holds(module, last)
    assert f"weights taken from {raw!r}; left beside them: {averaged[0]}" in filled.notes
    module, filled = _converted(tmp_path, content, averaged=True)
    weights_of_others.assert_holds(module, mean)
    assert any("averaged over training" in note for note in filled.notes)


def test_only_averages_are_taken_and_called_so(tmp_path):
    module, filled = _converted(tmp_path, {"ema": weights_of_others.state_dict(1)})
    weights_of_others.assert_holds(module, weights_of_others.state_dict(1))
    assert "weights averaged over training (EMA) taken from 'ema'" in filled.notes


@pytest.mark.parametrize(
    ("last", "mean"),
    [("", "ema."), ("", "model_ema."), ("module.", "module.ema_model."), ("online_model.",) * 2],
)
def test_averages_among_the_keys_are_told_apart(tmp_path, last, mean):
    mean = "ema_model." if mean == last else mean
    content = {last + k: v for k, v in weights_of_others.state_dict(0).items()}
    content |= {mean + k: v for k, v in weights_of_others.state_dict(1).items()}
    if last == "online_model.":  # as ema-pytorch counts
        content |= {"initted": torch.tensor(True), "step": torch.tensor(7)}
    module, filled = _converted(tmp_path, content)
    weights_of_others.assert_holds(module, weights_of_others.state_dict(0))
    assert any("averaged copies left" in note for note in filled.notes)
    module, _ = _converted(tmp_path, content, averaged=True)
    weights_of_others.assert_holds(module, weights_of_others.state_dict(1))


def test_averaged_models_of_torch_are_read(tmp_path):
    net = weights_of_others.Net()
    net.load_state_dict(weights_of_others.state_dict())
    module, filled = _converted(tmp_path, torch.optim.swa_utils.AveragedModel(net).state_dict())
    weights_of_others.assert_holds(module, weights_of_others.state_dict())
    assert filled.ignored["n_averaged"] == "AveragedModel's step counter"


@pytest.mark.slow  # torch.compile takes its time to be imported
def test_wrappers_that_pytorch_makes_itself(tmp_path):
    net = weights_of_others.Net()
    net.load_state_dict(weights_of_others.state_dict())
    net.conv = torch.compile(net.conv)
    wrapped = torch.nn.DataParallel(torch.compile(net)).state_dict()
    assert "module._orig_mod.conv._orig_mod.weight" in wrapped
    weights_of_others.assert_holds(_converted(tmp_path, wrapped)[0], weights_of_others.state_dict())


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_of_either_spelling_folds_in_every_kind(tmp_path, new, dim):
    net = weights_of_others.Net()
    net.load_state_dict(weights_of_others.state_dict())
    norm = torch.nn.utils.parametrizations.weight_norm if new else torch.nn.utils.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the old spelling
        norm(net.conv, dim=dim)
    name = "conv.parametrizations.weight.original0" if new else "conv.weight_g"
    operator.attrgetter(name)(net).data.mul_(1.5)
    state = net.state_dict()
    assert name in state
    module, _ = _converted(tmp_path, {"module._orig_mod." + k: v for k, v in state.items()})
    net.conv(torch.zeros(1, 4, 3))  # the old spelling makes the weight here
    want = {**weights_of_others.state_dict(), "conv.weight": net.conv.weight.detach()}
    weights_of_others.assert_holds(module, want, rtol=1e-6)  # float32 rounding
    half = {k: np.ones(1) for k in ("a.weight_g", "b.weight_v")}
    assert weight_norm.fold(half) == half


def test_flattened_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="FULL_STATE_DICT"):
        _converted(tmp_path, {"_fsdp_wrapped_module._flat_param": torch.ones(40)})


def test_the_report_has_the_notes(tmp_path, capsys):
    torch.save(_wrapped("_orig_mod."), tmp_path / "w.pt")
    assert convert.main(["auto", str(tmp_path / "w.pt"), str(tmp_path / "out")]) == 0
    assert "stripped '_orig_mod.' from 10 keys" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / conversion_report.FILE).read_text())
    assert report["notes"] == ["stripped '_orig_mod.' from 10 keys"]
