"""Loss and gradients of the tiny coupled U-Net against the official training step."""

from flax import nnx
import jax
import jax.numpy as jnp
from mm_diffusion import official
import numpy as np
import pytest

from foley_jax import convert
from foley_jax.diffusion import schedule
from foley_jax.mm_diffusion import tasks, weights

pytestmark = pytest.mark.slow
LOSS_RTOL = 1e-5
GRADIENT_RTOL = 1e-3  # of each tensor's norm, as the goldens' README says


def _inputs() -> tuple[dict, dict]:
    shapes = {"video": (2, 16, 3, 16, 16), "audio": (2, 1, 1024)}
    x0 = {k: official.inputs(f"train.{k}", s).clip(-1, 1) for k, s in shapes.items()}
    return x0, {k: official.inputs(f"train.noise_{k}", s) for k, s in shapes.items()}


def _as_official(key: str, gradient: np.ndarray) -> np.ndarray:
    """Our [*k, in, out] to torch's [out, in, *k], flat; kernel axes of size 1 do not matter."""
    if gradient.ndim < 2:
        return gradient
    return np.moveaxis(gradient, (-1, -2), (0, 1)).reshape(-1)


def test_loss_and_gradients_equal_official():
    arrays, meta = official.golden("train_tiny")
    graphdef, state = nnx.split(official.tiny())
    x0, noise = _inputs()
    # R = i mod (F - S + 1), i counting the middle block too
    shifts = official.shifts("shift_i", "unet_tiny")

    def loss(state):
        model = nnx.merge(graphdef, state)
        parts = tasks.losses(schedule.linear(), model, x0, jnp.asarray(meta["t"]), noise, shifts)
        return sum(parts).mean(), parts

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (video_B, audio_B)), gradients = jax.device_get(step(nnx.to_pure_dict(state)))
    np.testing.assert_allclose(video_B, arrays["loss/mse_video"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(audio_B, arrays["loss/mse_audio"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(video_B + audio_B, arrays["loss/loss"], rtol=LOSS_RTOL)
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(norm, arrays["grad_global_norm"], rtol=GRADIENT_RTOL)
    filled = _places()
    for key in meta["keys"]:
        ours = gradients
        for part in filled[key].split("/"):
            ours = ours[int(part) if part.isdigit() else part]
        want = arrays[f"grad/{key}"]
        got = _as_official(key, ours)[: want.size]
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        print(key, error)
        assert error < GRADIENT_RTOL, (key, error)


def _places() -> dict[str, str]:
    """Official key -> our path."""
    values = {k: np.zeros(v.shape) for k, v in official.state("tiny_keys", "").items()}
    kind = weights.KINDS["mm_diffusion/base"]
    model = convert._model_config(kind, official.TINY)
    return convert._module(kind, values, model, False)[1].loaded
