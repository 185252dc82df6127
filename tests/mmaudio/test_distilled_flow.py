"""Students of the flow network: configs, a run taught by another, sampling in their own steps."""

import json

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mmaudio_distilled
from foley_jax.inference import load_mmaudio, networks
from foley_jax.mmaudio import sources
from foley_jax.mmaudio.sampling import pipeline
from foley_jax.training import loop, paths
from foley_jax.training.checkpointing import run_directory
from tests.mmaudio import flow_records, tiny_mmaudio

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_configs_teach_each_student_by_the_one_before():
    found = [mmaudio_distilled.get_config(f"demo{arg}") for arg in ("", "_2", "_1")]
    assert [c.distillation.steps for c in found] == [4, 2, 1]
    runs = [f"demo/embedded/runs/{run}" for run in ("mmaudio", "mmaudio_4", "mmaudio_2")]
    assert [c.init_from.teacher_net for c in found] == [f"{run}:." for run in runs]
    assert [c.init_from.joint_blocks for c in found] == [f"{run}:joint_blocks" for run in runs]
    assert [(c.distillation.substeps, c.distillation.guidance) for c in found] == [
        (6, 4.5),
        (2, 1.0),
        (2, 1.0),
    ]
    wide = mmaudio_distilled.get_config("medium_44k_2")
    assert wide.model.latent_dim == 40 and wide.base == "runs/mmaudio_4"
    with pytest.raises(ValueError, match="no variant 'demo_3'"):
        mmaudio_distilled.get_config("demo_3")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    def make(config):
        model = filled.model(config)
        model.latent_mean[...] = jnp.full_like(model.latent_mean[...], flow_records.MEAN)
        model.latent_std[...] = jnp.full_like(model.latent_std[...], flow_records.STD)
        return model

    folder = tmp_path_factory.mktemp("base") / "run"
    return filled.save_run(folder, flow_records.config("unused"), make)


def config(folder, base, **fields):
    made, plain = mmaudio_distilled.get_config("demo"), flow_records.config(folder)
    for name in ("model", "data", "optimizer", "dtype", "batch_size", "log_every", "eval_batches"):
        made[name] = plain[name]
    made.base, made.autoencoder, made.cavp = str(base), "", ""
    made.distillation.update({"steps": 2, "substeps": 3})
    made.update(fields)
    return made


@pytest.mark.slow
def test_a_student_learns_its_teachers_walk_and_leaves_it_behind(base, tmp_path, one_device):
    shards, run = flow_records.write(tmp_path / "shards"), tmp_path / "run"
    state = loop.train(config(shards, base, total_steps=40), run)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert np.mean(losses[-5:]) < 0.5 * losses[0], losses
    was = run_directory.read_groups(base)
    was = {**was["params"], **was["rest"]}
    kept = paths.flatten(state.rest)
    assert {f"teacher_net/{name}" for name in was} <= set(kept)
    for name, leaf in was.items():
        np.testing.assert_array_equal(kept[f"teacher_net/{name}"], leaf, err_msg=name)
    assert not any(name.startswith("teacher_net") for name in paths.flatten(state.params))
    # what is sampled from, or exported, is the student alone
    assert load_mmaudio.is_run(run)
    own = networks.part(run, load_mmaudio.STAGE, "float32")
    assert not hasattr(own.network.module(), "teacher_net")
    run_directory.export_model(run, tmp_path / "out")
    again = networks.part(tmp_path / "out", load_mmaudio.STAGE, "float32")
    for a, b in zip(*(jax.tree.leaves(nnx.state(x.network.module())) for x in (own, again))):
        np.testing.assert_array_equal(a, b)


def test_students_are_sampled_in_their_own_steps():
    model = tiny_mmaudio.make(student_steps=2)
    source = sources.of_text("rain", 1.0)

    def audio(**options):
        settings = pipeline.Settings(text="rain", seed=1, **options)
        return model.generate([source], settings)[0][0].audio

    # guidance is folded in: none is asked for
    np.testing.assert_array_equal(audio(steps=2), audio(steps=2, guidance=9.0))
    assert all(not program.guided for program, _ in model._programs)
    with pytest.raises(ValueError, match="steps is 25, but the model was distilled to 2; give"):
        audio()
    for options in ({"sampler": "heun"}, {"negative_text": "wind"}):
        with pytest.raises(ValueError, match="a distilled model has its own sampler and guidance"):
            audio(steps=2, **options)
