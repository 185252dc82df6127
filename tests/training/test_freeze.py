"""Freezing parts by config, and `init_from` keys from the command line."""

import json

from flax import nnx
import jax
import numpy as np
import pytest
import runs

from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import freeze, loop
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory


def _first(config):
    mesh = mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    return loop.maker_of(task_lib.resolve(config), config, mesh)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [("layers.0", "bn"), ("*/0", "b?")])
def test_frozen_parts_stay_bit_identical_and_cost_no_optimizer_state(toy_data, tmp_path, frozen):
    fields = {"total_steps": 3, "freeze": frozen, "eval_batches": 0}
    config = runs.config(toy_data, **fields)
    start = jax.device_get(_first(config).fresh({}))
    final = jax.device_get(runs.train(toy_data, tmp_path, **fields))
    for part in ("bn", "frozen"):
        jax.tree.map(np.testing.assert_array_equal, start.rest[part], final.rest[part])
    jax.tree.map(np.testing.assert_array_equal, start.rest["layers"][0], final.rest["layers"][0])
    assert set(final.params) == {"layers"} and set(final.params["layers"]) == {1}
    assert np.any(start.params["layers"][1]["kernel"] != final.params["layers"][1]["kernel"])
    assert final.rest["seen"] == 3  # what is not frozen still counts
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves((final.opt_state, final.ema))}
    assert (4, 8) not in shapes and (8, 1) in shapes
    assert tuple(run_directory.load_config(tmp_path).freeze) == frozen


@pytest.mark.slow
def test_without_freezing_the_same_parts_move(toy_data, tmp_path):
    config = runs.config(toy_data, total_steps=3)
    start = jax.device_get(_first(config).fresh({}))
    final = jax.device_get(runs.train(toy_data, tmp_path, total_steps=3, eval_batches=0))
    assert np.any(start.params["layers"][0]["kernel"] != final.params["layers"][0]["kernel"])
    assert np.any(start.rest["bn"]["mean"] != final.rest["bn"]["mean"])


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("layers.7",), "'layers.7' names nothing in this model; its parts: bn, frozen, layers"),
        (("layer",), "'layer' names nothing"),  # a part's name is whole
        (("layers", "bn"), r"selects no parameter; config.freeze is \('layers', 'bn'\)"),
    ],
)
def test_pattern_that_does_not_fit_is_refused(toy_data, frozen, message):
    with pytest.raises(ValueError, match=message):
        _first(runs.config(toy_data, freeze=frozen))


def test_a_string_may_hold_several_patterns():
    assert freeze.patterns("a.b, c/*") == (("a", "b"), ("c", "*"))
    assert freeze.patterns("") == freeze.patterns(()) == ()
    assert freeze.trainable(nnx.Param, ()) is nnx.Param


@pytest.mark.slow
def test_command_line_names_any_part_and_freezes(toy_data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    source = jax.device_get(runs.train(toy_data, one, total_steps=2, eval_batches=0))
    process = runs.spawn(
        toy_data,
        two,
        f"--config.init_from.layers.0={one}:layers/0",
        f"--config.init_from.frozen/kernel={one}:",
        "--config.freeze=layers.0",
        "--config.total_steps=2",
        "--config.eval_batches=0",
    )
    runs.finish(process)
    saved = json.loads((two / "config.json").read_text())
    assert set(saved["init_from"]) == {"layers/0", "frozen/kernel"}
    assert saved["freeze"] == ["layers.0"]
    _, params, rest = run_directory.load_model_state(two)
    want = source.ema["layers"][0]
    jax.tree.map(np.testing.assert_array_equal, dict(rest["layers"][0]), dict(want))
    assert np.any(params["layers"][1]["kernel"] != source.ema["layers"][1]["kernel"])
