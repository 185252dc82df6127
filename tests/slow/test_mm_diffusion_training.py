"""Loss, gradients and one update of the tiny coupled U-Net against the official training step."""

from flax import nnx
import jax
from mm_diffusion import official
import numpy as np
import optax
import pytest

from configs import base
from foley_jax.interop import registry
from foley_jax.mm_diffusion import weights
from foley_jax.mm_diffusion.tasks import base as tasks
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training import optimizer, paths
from foley_jax.training import state as state_lib
from foley_jax.training import step as step_lib

pytestmark = pytest.mark.slow
LOSS_RTOL = 1e-5
GRADIENT_RTOL = 1e-3  # of each tensor's norm, as tests/README.md says


def _batch() -> dict:
    shapes = {"video": (2, 16, 3, 16, 16), "audio": (2, 1, 1024)}
    return {
        "x0": {k: official.inputs(f"train.{k}", s).clip(-1, 1) for k, s in shapes.items()},
        "noise": {k: official.inputs(f"train.noise_{k}", s) for k, s in shapes.items()},
        "t": np.array(official.golden("train_tiny")[1]["t"], np.int32),
        # R = i mod (F - S + 1), i counting the middle block too
        "shifts": official.shifts("shift_i", "unet_tiny"),
    }


class OfficialStep(tasks.CoupledDiffusionTask):
    """The task with the noise and shifts of the golden."""

    def loss(self, model, batch, key, *, train):
        del key, train
        parts = tasks.losses(
            self.schedule, model, batch["x0"], batch["t"], batch["noise"], batch["shifts"]
        )
        return sum(parts).mean(), {"video_B": parts[0], "audio_B": parts[1]}


@pytest.fixture(scope="module")
def first_step() -> tuple[dict, state_lib.TrainState, dict]:
    """Flat parameters before, then state and metrics after one step of the training loop."""
    config = base.base("mm_diffusion")
    config.model = official.TINY
    config.ema_decay = 0.9999
    task = OfficialStep(config)
    mesh = mesh_lib.make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        maker = state_lib.StateFactory(
            task,
            mesh,
            lambda params: optimizer.make(config.optimizer, 10, task.weight_decay_mask(params)),
            seed=0,
            ema=True,
        )
        before = paths.flatten(nnx.to_pure_dict(nnx.state(official.tiny())))
        before = {name: np.asarray(leaf) for name, leaf in before.items()}
        state = maker.fresh({k: jax.device_put(v) for k, v in before.items()})
        step = step_lib.make(
            task,
            maker,
            mesh,
            schedule=optimizer.schedule(config.optimizer, 10),
            seed=0,
            ema_decay=config.ema_decay,
        )
        return before, *jax.device_get(step(state, _batch()))


def _as_official(array: np.ndarray) -> np.ndarray:
    """Our [*k, in, out] to torch's [out, in, *k], flat; kernel axes of size 1 do not matter."""
    if array.ndim < 2:
        return array
    return np.moveaxis(array, (-1, -2), (0, 1)).reshape(-1)


def test_loss_and_gradients_equal_official(first_step):
    arrays, meta = official.golden("train_tiny")
    _, state, metrics = first_step
    video_B, audio_B = metrics["video_B"], metrics["audio_B"]
    np.testing.assert_allclose(video_B, arrays["loss/mse_video"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(audio_B, arrays["loss/mse_audio"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(video_B + audio_B, arrays["loss/loss"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(metrics["grad_norm"], arrays["grad_global_norm"], rtol=GRADIENT_RTOL)
    # after one step the first moment is (1 - b1) times the gradient
    moments = paths.flatten(optax.tree.get(state.opt_state, "mu"))
    filled = _places()
    for key in meta["keys"]:
        want = arrays[f"grad/{key}"]
        got = _as_official(moments[filled[key]])[: want.size] / (1 - 0.9)
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        print(key, error)
        assert error < GRADIENT_RTOL, (key, error)


def test_parameters_and_their_average_after_one_step_equal_official(first_step):
    arrays, meta = official.golden("train_tiny")
    before, state, _ = first_step
    after, ema = paths.flatten(state.params), paths.flatten(state.ema)
    filled, compared = _places(), 0
    for key in meta["keys"]:
        want = arrays[f"after_step/{key}"]
        # the first step of Adam is lr * sign(gradient), unless the gradient is next to nothing
        clear = np.abs(arrays[f"grad/{key}"][: want.size]) > 1e-6
        start, got, mean = (
            _as_official(tree[filled[key]])[: want.size] for tree in (before, after, ema)
        )
        compared += clear.sum()
        assert np.abs(want - start)[clear].min() > 0.9e-4
        # one unit in the last place of float32
        np.testing.assert_allclose(got[clear], want[clear], rtol=1.2e-7, atol=1e-8, err_msg=key)
        want = arrays[f"ema_after_step/{key}"]
        np.testing.assert_allclose(mean[clear], want[clear], rtol=1.2e-7, atol=1e-9, err_msg=key)
    assert compared > 4000


def _places() -> dict[str, str]:
    """Official key -> our path."""
    values = {k: np.zeros(v.shape) for k, v in official.state("tiny_keys", "").items()}
    kind = weights.KINDS["mm_diffusion/base"]
    model = registry.model_config(kind, official.TINY)
    return registry._module(kind, values, model, False)[1].loaded
