"""Few-step students: a training step, what is saved, and sampling that takes their steps only."""

import filled
from flax import nnx
import jax
import numpy as np
import pytest
import tiny_foley

from configs import ldm_distilled
from foley_jax import sample
from foley_jax.training import task as task_lib

STEPS = 2


def student():
    """The tiny model as a student."""
    config, own = tiny_foley.ldm(), ldm_distilled.get_config("embedded")
    config.task, config.distillation = "distilled", own.distillation
    config.distillation.update({"steps": STEPS, "substeps": 2})
    return config


def test_configs_teach_each_student_by_the_one_before():
    found = [ldm_distilled.get_config(f"embedded{arg}") for arg in ("", "_2", "_1")]
    assert [c.distillation.steps for c in found] == [4, 2, 1]
    assert [c.init_from.unet for c in found] == [
        f"demo/embedded/runs/{run}:unet" for run in ("ldm", "ldm_4", "ldm_2")
    ]
    assert [c.distillation.guidance for c in found] == [3.0, 1.0, 1.0]
    for config in found[1:]:  # a student teaches on its own grid
        assert config.distillation.substeps == 2
    with pytest.raises(ValueError, match="no variant '3'"):
        ldm_distilled.get_config("3")


@pytest.mark.slow
def test_a_step_moves_the_student_and_not_its_teacher():
    config = student()
    task = task_lib.resolve(config)
    graphdef, params, rest = nnx.split(filled.model(config), task.trainable, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    assert set(params) == {"unet", "conditioner"}
    assert set(rest) == {"teacher_unet", "teacher_conditioner", "autoencoder", "latent_scale"}
    rng = np.random.default_rng(0)
    batch = {
        "audio_BPL": rng.integers(-9000, 9000, (2, 2, 20000), dtype=np.int16),
        "mel_frame_BT": np.tile(np.arange(64, dtype=np.int32), (2, 1)),
        "cavp_BLD": rng.standard_normal((2, 4, 8)).astype(np.float32),
        "context_s_BL": np.tile(np.arange(4, dtype=np.float32) / 4, (2, 1)),
    }

    def loss(params):
        model = nnx.merge(graphdef, params, rest)
        return task.loss(model, batch, jax.random.key(0), train=True)[0]

    value, grads = filled.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value) and value > 0
    assert np.abs(grads["unet"]["conv_out"]["kernel"]).max() > 0
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_students_are_sampled_in_their_own_steps(tmp_path):
    filled.save_run(tmp_path / "cavp", tiny_foley.cavp())
    filled.save_run(tmp_path / "ldm", student())
    foley = sample.load(tmp_path / "ldm")
    (video,) = tiny_foley.write_videos(tmp_path, (0.8,))
    clip = foley(video, steps=STEPS)
    assert len(clip.audio) == 12800 and np.isfinite(clip.audio).all()
    # guidance is folded in: none is asked for
    np.testing.assert_array_equal(foley(video, steps=STEPS, guidance=9.0).audio, clip.audio)
    assert not hasattr(foley.model.ldm.module(), "teacher_unet")
    with pytest.raises(ValueError, match="steps is 25, but the model was distilled to 2; give"):
        foley(video)
    with pytest.raises(ValueError, match="a distilled model has its own sampler"):
        foley(video, steps=STEPS, sampler="ddim")
