"""The loss of the flow network: what is drawn for it, what is missing, and what is dropped.

Batch (B examples, N latents of C channels, V frames of CLIP, S features of Synchformer, T tokens):
  "mean_BNC", "std_BNC": float, the autoencoder's posterior of the audio.
  "clip_BVD", "sync_BSD", "text_BTD": float features.
  "has_video_B", "has_text_B": bool; features of what an example does not have are not read.
Source: MMAudio mmaudio/runner.py `Runner.train_fn`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foley_jax.diffusion import flow
from foley_jax.mmaudio.models import flow_network
from foley_jax.training import task as task_lib

DROPOUT = 0.1  # of video, and independently of text


class Draws(NamedTuple):
    """The random numbers of one step.

    Attributes:
      posterior_BNC, noise_BNC: standard normal, of the autoencoder's posterior and of the flow.
      times_B: in (0, 1).
      drop_video_B, drop_text_B: bool, conditions left out for classifier-free guidance.
    """

    posterior_BNC: jax.Array
    noise_BNC: jax.Array
    times_B: jax.Array
    drop_video_B: jax.Array
    drop_text_B: jax.Array


def draw(
    shape: tuple[int, int, int], key: jax.Array, *, train: bool, dropout: float = DROPOUT
) -> Draws:
    """Draws for latents of a shape; evaluation drops nothing and spreads the times evenly."""
    posterior, noise, times, video, text = jax.random.split(key, 5)
    b, share = shape[0], dropout if train else 0.0
    return Draws(
        jax.random.normal(posterior, shape),
        jax.random.normal(noise, shape),
        flow.draw_times(b, times, train=train),
        jax.random.bernoulli(video, share, (b,)),
        jax.random.bernoulli(text, share, (b,)),
    )


def latents(
    model: flow_network.FlowNetwork, batch: task_lib.Batch, posterior_BNC: jax.Array
) -> jax.Array:
    """Returns normalised latents [B, N, C] drawn from the autoencoder's posterior."""
    drawn = batch["mean_BNC"] + batch["std_BNC"] * posterior_BNC
    return model.normalise(drawn.astype(jnp.float32))


def conditions(
    model: flow_network.FlowNetwork,
    batch: task_lib.Batch,
    drop_video_B: jax.Array,
    drop_text_B: jax.Array,
) -> flow_network.Conditions:
    """Returns the conditions of a batch; the empty features stand for what is missing or dropped.

    The gradient reaches the empty features of video through this.
    """
    clip_BVD, sync_BSD, text_BTD = batch["clip_BVD"], batch["sync_BSD"], batch["text_BTD"]
    count = clip_BVD.shape[0]
    seen = (batch["has_video_B"] & ~drop_video_B)[:, None, None]
    said = (batch["has_text_B"] & ~drop_text_B)[:, None, None]
    return model.preprocess_conditions(
        jnp.where(seen, clip_BVD, model.empty_clip(count, clip_BVD.shape[1])),
        jnp.where(seen, sync_BSD, model.empty_sync(count, sync_BSD.shape[1])),
        jnp.where(said, text_BTD, model.empty_string_feat[...][None]),
    )


def loss(
    model: flow_network.FlowNetwork, batch: task_lib.Batch, draws: Draws
) -> tuple[jax.Array, jax.Array]:
    """Mean squared error of the velocity, per example, float32 [B]; and the latents [B, N, C]."""
    told = conditions(model, batch, draws.drop_video_B, draws.drop_text_B)
    x1_BNC = latents(model, batch, draws.posterior_BNC)

    def velocity(x_BNC: jax.Array, t_B: jax.Array) -> jax.Array:
        return model.predict_flow(x_BNC, t_B, told)

    return flow.training_loss(velocity, x1_BNC, draws.times_B, draws.noise_BNC), x1_BNC
