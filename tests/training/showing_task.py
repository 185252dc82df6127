"""The toy task with something to look at and to listen to."""

import jax
import jax.numpy as jnp
import numpy as np
import toy_task

from foley_jax.training import task as task_lib

RATE_HZ = 8000


class ShowingTask(toy_task.ToyTask):
    """An image of grey `step` of the batches seen, and the example's target as loudness."""

    def show(self, model_fn, batch):
        seen, y_B = jax.device_get(model_fn(self.numbers, batch))
        return {
            **{
                f"picture/{i}": task_lib.Image(np.full((4, 6, 3), grey, np.uint8))
                for i, grey in enumerate(seen)
            },
            **{
                f"sound/{i}": task_lib.Audio(np.full(80, y, np.float32), RATE_HZ)
                for i, y in enumerate(y_B)
            },
        }

    def numbers(self, model, batch):
        return jnp.broadcast_to(model.seen[...], batch["y_B"].shape), batch["y_B"]


class BrokenTask(toy_task.ToyTask):
    """Fails to show anything."""

    def show(self, model_fn, batch):
        raise RuntimeError("no paint left")


class PartlyBrokenTask(ShowingTask):
    """One of the things it shows cannot be written."""

    def show(self, model_fn, batch):
        return {"sound/bad": "not an audio clip", **super().show(model_fn, batch)}
