"""A task in miniature with everything that makes resuming hard: dropout, BatchNorm, frozen weights.

Its records are numbers made from their index; "shards" are not needed.
"""

import time

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

FEATURES = 4


class Seen(nnx.Variable):
    """Number of batches seen in training; neither a parameter nor a statistic."""


class ToyModel(nnx.Module):
    """Linear -> BatchNorm -> dropout -> linear, behind a frozen projection."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.frozen = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
        self.layers = nnx.List(
            [nnx.Linear(FEATURES, width, rngs=rngs), nnx.Linear(width, 1, rngs=rngs)]
        )
        self.bn = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.dropout = nnx.Dropout(0.2)
        self.seen = Seen(jnp.zeros((), jnp.float32))

    def __call__(self, x_BC: jax.Array, key: jax.Array | None, *, train: bool) -> jax.Array:
        h = self.bn(self.layers[0](self.frozen(x_BC)), use_running_average=not train)
        h = self.dropout(nnx.relu(h), deterministic=not train, rngs=key)
        return self.layers[1](h)[:, 0]


class ToyTransform:
    """Audio -> features: the mean of four stretches, and a noisy target."""

    def __init__(self, delay_s):
        self.delay_s = delay_s

    def __call__(self, source, index, rng):
        time.sleep(self.delay_s)
        audio = source[index].audio.astype(np.float32) / 82.0  # so that means have variance one
        x = np.stack([part.mean() for part in np.array_split(audio, FEATURES)])
        noise = np.float32(0.1 * rng.standard_normal())
        return {"x_BC": x, "y_B": np.float32(x.sum()) + noise}


class ToyTask:
    trainable = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("frozen")))
    video = None
    accumulates = True

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config

    def build(self, rngs):
        return ToyModel(self.config.model.width, rngs=rngs)

    def transform(self, *, train):
        del train
        return ToyTransform(self.config.data.delay_s)

    def loss(self, model, batch, key, *, train):
        error = model(batch["x_BC"], key, train=train) - batch["y_B"]
        loss = jnp.mean(jnp.square(error))
        if train:
            model.seen[...] += 1
            bad = model.seen[...] > (self.config.loss.nan_after or jnp.inf)
            loss = jnp.where(bad, jnp.nan, loss)
        return loss, {"error": jnp.mean(jnp.abs(error))}

    def weight_decay_mask(self, params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    def constrain(self, params):
        return params

    def evaluate(self, model_fn, batches):
        rows = [jax.device_get(model_fn(self.predict, batch)) for batch in batches]
        return {"num_predictions": float(sum(len(row) for row in rows))}

    def predict(self, model, batch):
        return model(batch["x_BC"], None, train=False)
