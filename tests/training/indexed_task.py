"""The toy task with a log of the records of every step, and a state that takes time to write."""

from flax import nnx
import jax.numpy as jnp
import numpy as np
import toy_task


class Ballast(nnx.Variable):
    """Values that do nothing but weigh."""


class IndexedTransform(toy_task.ToyTransform):
    """Also tells which record an example comes from."""

    def __call__(self, source, index, rng):
        return {**super().__call__(source, index, rng), "index_B": np.int32(index)}


class IndexedTask(toy_task.ToyTask):
    """`config.model.ballast` kilobytes of noise, that no compression makes small."""

    def build(self, rngs):
        model = super().build(rngs)
        size = self.config.model.ballast * 256
        model.ballast = Ballast(
            nnx.initializers.normal(1.0)(rngs.params(), (max(size, 1),), jnp.float32)
        )
        return model

    def transform(self, *, train):
        del train
        return IndexedTransform(self.config.data.delay_s)

    def loss(self, model, batch, key, *, train):
        value, metrics = super().loss(model, batch, key, train=train)
        rows = {f"record_{i}": index for i, index in enumerate(batch["index_B"])}
        return value, {**metrics, **rows, "seen": model.seen[...]}
