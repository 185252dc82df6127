"""Adapters of the flow network: a run that trains them alone, goes on, is sampled from, merged."""

import json

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mmaudio
from foley_jax import convert
from foley_jax.inference import networks
from foley_jax.layers import lora
from foley_jax.runtime import network
from foley_jax.training import loop, paths
from foley_jax.training.checkpointing import run_directory
from tests.mmaudio import flow_records, tiny_mmaudio

pytestmark = pytest.mark.usefixtures("quick_compilation")
TARGETS = ("*_blocks.*.qkv", "*.linear1", "*.ffn.*", "final_layer.conv")


def config(folder, base, steps):
    made = mmaudio.get_config("lora")
    plain = flow_records.config(folder)
    for name in ("model", "data", "optimizer", "dtype", "batch_size", "log_every"):
        made[name] = plain[name]
    made.base, made.total_steps, made.lora.rank = str(base), steps, 4
    made.lora.targets = TARGETS
    return made


def test_variants_take_over_every_part_of_the_base():
    assert mmaudio.get_config("medium_44k_lora").model == mmaudio.get_config("medium_44k").model
    made = mmaudio.get_config("lora")
    made.base = "runs/other"
    model = network.shapes(tiny_mmaudio.flow_of)
    held = (nnx.Module, nnx.Variable)
    parts = {name for name, value in vars(model).items() if isinstance(value, held)}
    assert dict(made.init_from) == {part: f"runs/other:{part}" for part in parts}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A network whose statistics are not those of the clips that it is adapted to."""
    folder = tmp_path_factory.mktemp("base")
    plain = flow_records.config("unused")

    def make(config):
        model = filled.model(config)
        model.latent_mean[...] = jnp.full_like(model.latent_mean[...], flow_records.MEAN + 1)
        model.latent_std[...] = jnp.full_like(model.latent_std[...], flow_records.STD)
        return model

    return filled.save_run(folder / "base", plain, make)


def velocity(net):
    """Of a fixed point and conditions."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, *shape)) for shape in ((60, 20), (15, 16), (40, 24), (5, 16))]

    def run(model, x, clip, sync, text):
        told = model.preprocess_conditions(clip, sync, text)
        return model.predict_flow(x, jnp.full(1, 0.4), told)

    return np.asarray(net.jit(run)(*(jnp.float32(x) for x in arrays)))


@pytest.mark.slow
def test_only_adapters_learn_and_the_run_goes_on_is_loaded_and_merged(base, tmp_path, one_device):
    shards = flow_records.write(tmp_path / "shards")
    run = tmp_path / "run"
    whole = loop.train(config(shards, base, 10), tmp_path / "whole")
    loop.train(config(shards, base, 4), run)
    state = loop.train(config(shards, base, 10), run)
    for name, leaf in paths.flatten(whole).items():
        np.testing.assert_array_equal(leaf, paths.flatten(state)[name], err_msg=name)
    # the base is as it was, and nothing but adapters is trained
    kept, was = paths.flatten(state.rest), run_directory.read_groups(base)
    was = {**was["params"], **was["rest"]}
    assert set(kept) == set(was)
    for name, leaf in was.items():
        np.testing.assert_array_equal(kept[name], leaf, err_msg=name)
    assert all(map(lora.is_adapter, paths.flatten(state.params)))
    moments = {name for name in paths.flatten(state.opt_state) if "/mu/" in name}
    assert len(moments) == len(jax.tree.leaves(state.params))
    # loaded with adapters, merged, and without
    adapted = velocity(networks.part(run, "mmaudio", None).network)
    first = velocity(networks.part(base, "mmaudio", None).network)
    assert convert.main(["export", str(run), str(tmp_path / "merged")]) == 0
    merged = networks.part(tmp_path / "merged", "mmaudio", None)
    assert merged.config.lora.rank == 0
    gap = np.linalg.norm(velocity(merged.network) - adapted) / np.linalg.norm(adapted)
    assert gap < 1e-5, gap
    assert np.linalg.norm(adapted - first) > 0.05 * np.linalg.norm(first)
    plain = {**config(shards, base, 10).to_dict(), "lora": {"rank": 0}}
    run_directory.save_model(tmp_path / "off", config=plain, params={}, rest=state.rest)
    off = velocity(networks.part(tmp_path / "off", "mmaudio", None).network)
    np.testing.assert_array_equal(off, first)
    rows = map(json.loads, (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert len(losses) == 10 and losses[-1] < 0.5 * losses[0], losses


@pytest.mark.slow
def test_gradients_are_the_same_when_blocks_are_made_again():
    def gradients(remat):
        def build(rngs):
            model = tiny_mmaudio.flow_of(rngs)
            model.remat = remat
            return model

        graphdef, params, rest = nnx.split(filled.module(build), nnx.Param, ...)

        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            told = model.empty_conditions(1, clip_length=15, sync_length=40)
            x = jnp.sin(jnp.arange(1200.0)).reshape(1, 60, 20)
            return jnp.square(model.predict_flow(x, jnp.full(1, 0.4), told)).mean()

        program = jax.jit(jax.grad(loss))
        again = str(program.trace(params).jaxpr).count("remat")
        return paths.flatten(nnx.to_pure_dict(program(params))), again

    (want, none), (got, some) = gradients(False), gradients(True)
    assert not none and some
    for name, gradient in want.items():
        scale = np.abs(gradient).max() + 1e-12
        np.testing.assert_allclose(got[name] / scale, gradient / scale, atol=1e-5, err_msg=name)
