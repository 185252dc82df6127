"""Training of the super-resolution as a task: record in, loss and gradients out."""

import filled
from flax import nnx
import jax
import ml_collections
import numpy as np
import pytest

from foley_jax.data import records
from foley_jax.media import pixels
from foley_jax.mm_diffusion.sampling import upscaling
from foley_jax.mm_diffusion.tasks import super_resolution
from foley_jax.training import task as task_lib

SIDE, LOW = 16, 4


def config(**degradation):
    return ml_collections.ConfigDict(
        {
            "task": "mm_super_resolution",
            "dtype": "float32",
            "video": {"fps": 10.0, "height": SIDE, "width": SIDE},
            "data": {"degradation": {"height": LOW, "width": LOW, **degradation}},
            "loss": {},
            "model": {"model_channels": 32, "channel_mult": (1,), "num_res_blocks": 1},
        }
    )


def clip(num_frames):
    """Frame i is of grey 20 * i."""
    frames = np.repeat(20 * np.arange(num_frames, dtype=np.uint8), SIDE * SIDE * 3)
    return records.Clip(
        id="a",
        split="train",
        labels=[],
        source="a.mp4",
        start_s=0.0,
        end_s=num_frames / 10,
        fps=10.0,
        frames=records.encode_frames(frames.reshape(num_frames, SIDE, SIDE, 3)),
        audio=np.zeros(10, np.int16),
        sample_rate_hz=16000,
    )


@pytest.mark.parametrize("train", [True, False])
def test_both_images_show_one_frame(train):
    clean = config(noise_probability=0.0, jpeg_probability=0.0)
    transform = task_lib.resolve(clean).transform(train=train)
    seen = set()
    for seed in range(20):
        example = transform([clip(7)], 0, np.random.default_rng(seed))
        high, low = example["high_BHWC"], example["low_BHWC"]
        assert high.shape == (SIDE, SIDE, 3) and high.dtype == np.uint8
        assert low.shape == (LOW, LOW, 3) and low.dtype == np.float32
        np.testing.assert_allclose(low, high[0, 0, 0], atol=1)
        seen.add(round(high.mean() / 20))
    assert seen == {3} if not train else len(seen) > 4


def test_records_of_another_size():
    wrong = config()
    wrong.video.width = 32
    with pytest.raises(ValueError, match="16x16 images"):
        task_lib.resolve(wrong).transform(train=True)([clip(1)], 0, np.random.default_rng(0))


def test_records_without_images():
    empty = clip(1)
    empty.frames = []
    with pytest.raises(ValueError, match="no frames"):
        task_lib.resolve(config()).transform(train=True)([empty], 0, np.random.default_rng(0))


@pytest.mark.slow
def test_loss_and_gradients_of_a_batch():
    task = task_lib.resolve(config())
    graphdef, state = nnx.split(filled.module(task.build))
    rng = np.random.default_rng(0)
    examples = [task.transform(train=True)([clip(7)], 0, rng) for _ in range(2)]
    batch = {name: np.stack([x[name] for x in examples]) for name in examples[0]}

    def loss(state, batch, key):
        return task.loss(nnx.merge(graphdef, state), batch, key, train=True)

    step = filled.jit(jax.value_and_grad(loss, has_aux=True))
    (total, metrics), gradients = step(nnx.to_pure_dict(state), batch, jax.random.key(0))
    np.testing.assert_allclose(total, metrics["loss_prediction"] + metrics["loss_bound"], rtol=1e-6)
    assert 1.0 < metrics["loss_prediction"] < 1e3  # zero-mean predictions of unit noise
    assert metrics["loss_bound"] > 0
    leaves = jax.tree.leaves(jax.device_get(gradients))
    assert all(np.isfinite(g).all() for g in leaves)
    # both halves of the head learn
    head = np.asarray(gradients["conv_out"]["bias"])
    assert head.shape == (6,) and (np.abs(head) > 0).all()


@pytest.mark.slow
def test_shows_small_sampled_and_true_images():
    task = task_lib.resolve(config(noise_probability=0.0, jpeg_probability=0.0))
    module = filled.module(task.build)
    example = task.transform(train=False)([clip(7)], 0, np.random.default_rng(0))
    batch = {name: x[None] for name, x in example.items()}
    found = filled.shown(task, module, batch, 1)
    image = found["picture/0"].pixels_HWC
    assert set(found) == {"picture/0"}
    assert image.shape == (14 + SIDE, 3 * SIDE + 2 * 3, 3)
    small, made, true = (image[14:, k * (SIDE + 3) :][:, :SIDE] for k in range(3))
    np.testing.assert_array_equal(true, example["high_BHWC"])
    grey = np.broadcast_to(example["low_BHWC"][0, 0], small.shape)
    np.testing.assert_allclose(small.astype(int), grey, atol=1)
    wanted = filled.jit(_upscaled, static_argnums=0)(nnx.graphdef(module), nnx.state(module), batch)
    # rounding may tip a grey level
    np.testing.assert_allclose(made.astype(int), pixels.to_uint8(wanted[0, 0]), atol=1)


def _upscaled(graphdef, state, batch):
    """Returns what sampling makes of the same noise."""
    low = pixels.from_uint8(batch["low_BHWC"][:, None])
    network = nnx.merge(graphdef, state)
    return upscaling.upscale(
        network, low, jax.random.key(0), num_steps=super_resolution.SHOWN_STEPS
    )
