"""The programs of sampling: windows of a tape from noise to latents, latents to mels.

Axis letters: N windows in batches of B, V frames of CLIP and S features of Synchformer of one,
W columns (latents) of the tape, P of a window, M texts of T tokens, K blocks, C channels, D width.
"""

from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import flow, guidance, inpainting, multidiffusion
from foley_jax.diffusion import known as known_lib
from foley_jax.runtime import partition, seed_keys

# of conditions in the network's width, made once for all steps; those of more windows are made
# anew at every step, so that memory does not grow with their number
KEPT_BYTES = 2**28


class Packed(NamedTuple):
    """Arguments of a sampling program, padded so that few shapes occur.

    Attributes:
      cover: windows on the tape.
      clip_NVD, sync_NSD: float32 features of every window.
      seen_N: bool, whether a window has a video; else its features are not read.
      text_N: int32, which text a window has; -1 is none.
      text_MTD: float32 features of the texts.
      negative_1TD: float32 features of the negative text, or None for the null condition.
      keys_K: raw key data of every block's noise.
      kept: columns of the tape that are known, if any; latents [1, W, C] of the autoencoder.
      varied_1WC: such latents that sampling begins with, noised, if any.
    """

    cover: multidiffusion.WindowLayout
    clip_NVD: np.ndarray
    sync_NSD: np.ndarray
    seen_N: np.ndarray
    text_N: np.ndarray
    text_MTD: np.ndarray
    negative_1TD: np.ndarray | None
    keys_K: np.ndarray
    kept: known_lib.KnownColumns | None = None
    varied_1WC: np.ndarray | None = None


class Program(NamedTuple):
    """What is fixed when a sampling program is compiled.

    Attributes:
      steps, sampler: see `settings.Settings`.
      guided: whether there is a null condition.
      batch: windows evaluated at once.
      skip: steps left out at the beginning, which is then audio that is there, noised.
    """

    steps: int
    sampler: str
    guided: bool
    batch: int
    skip: int = 0

    @property
    def start(self) -> float:
        """The flow's time at which sampling begins."""
        return self.skip / self.steps


def noise(packed: Packed, channels: int) -> jax.Array:
    """Standard normal canvas [W, C]; a column's noise depends on nothing but its block's key."""
    width = packed.cover.weight_NV.shape[1]
    keys = seed_keys.wrapped(packed.keys_K)
    blocks = jax.vmap(lambda key: jax.random.normal(key, (width, channels)))(keys)
    return blocks.reshape(-1, channels)  # [K, P, C] -> [K*P, C]


def conditions_at(model: nnx.Module, packed: Packed, index_B: jax.Array) -> Any:
    """Conditions of the windows with these numbers, for `predict_flow`."""
    clip_BVD, sync_BSD = packed.clip_NVD[index_B], packed.sync_NSD[index_B]
    count, seen = index_B.shape[0], packed.seen_N[index_B][:, None, None]
    clip_BVD = jnp.where(seen, clip_BVD, model.empty_clip(count, clip_BVD.shape[1]))
    sync_BSD = jnp.where(seen, sync_BSD, model.empty_sync(count, sync_BSD.shape[1]))
    text_B = packed.text_N[index_B]
    text_BTD = packed.text_MTD[jnp.maximum(text_B, 0)]
    said = (text_B >= 0)[:, None, None]
    text_BTD = jnp.where(said, text_BTD, model.empty_string_feat[...][None])
    features = (partition.shard_batch(x) for x in (clip_BVD, sync_BSD, text_BTD))
    return model.preprocess_conditions(*features)


def _conditions(model: nnx.Module, packed: Packed, batch: int):
    """Returns window numbers [B] -> conditions, from a store of all of them if they are few."""

    def made(i: jax.Array) -> Any:
        return conditions_at(model, packed, i * batch + jnp.arange(batch))

    number = packed.cover.first_N.shape[0] // batch
    shapes = jax.tree.leaves(jax.eval_shape(made, jnp.int32(0)))
    if number * sum(x.size * x.dtype.itemsize for x in shapes) > KEPT_BYTES:
        return lambda index_B: conditions_at(model, packed, index_B)
    every = jax.lax.map(made, jnp.arange(number))  # [N / B, B, ...]

    def kept(index_B: jax.Array) -> Any:
        at = index_B[0] // batch
        return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, at, keepdims=False), every)

    return kept


def solve(
    program: Program, model: nnx.Module, packed: Packed, x_WC: jax.Array, scale: jax.Array
) -> jax.Array:
    """Latents of a tape from its start: all windows follow the flow together on one canvas.

    Args:
      model: FlowNetwork.
      packed: windows and what they are told.
      x_WC: float32 canvas at the time `program.start`: standard normal at 0.
      scale: of classifier-free guidance.
    Returns:
      float32 [W, C], un-normalised: what the autoencoder decodes.
    """
    p = program
    conditions_of = _conditions(model, packed, p.batch)
    null = None
    if p.guided:
        null = model.empty_conditions(
            p.batch,
            packed.negative_1TD,
            clip_length=packed.clip_NVD.shape[1],
            sync_length=packed.sync_NSD.shape[1],
        )

    def predict(x_B1PC: jax.Array, t_B: jax.Array, index_B: jax.Array) -> jax.Array:
        x_BPC, t_B = partition.shard_batch(x_B1PC[:, 0]), partition.shard_batch(t_B)
        conditions, own_scale = conditions_of(index_B), scale if p.guided else 1
        velocity = guidance.classifier_free(model.predict_flow, conditions, null, own_scale)
        return velocity(x_BPC, t_B)[:, None]  # a canvas has rows

    canvas = multidiffusion.denoiser(predict, packed.cover, batch=p.batch)
    x_11WC = x_WC[None, None]
    if packed.kept is not None:
        known_1WC, known_W = model.normalise(packed.kept.z_HWC), packed.kept.known_W
        canvas = inpainting.keeping_flow(canvas, x_11WC, known_1WC[None], known_W[:, None])
    x_11WC = flow.sample(
        canvas, x_11WC, num_steps=p.steps - p.skip, method=p.sampler, start=p.start
    )
    return model.unnormalise(x_11WC[0])[0]


def sample(program: Program, model: nnx.Module, packed: Packed, scale: jax.Array) -> jax.Array:
    """`solve` from the noise of the tape's keys, or from what is varied, noised with it."""
    x_WC = noise(packed, model.latent_mean.shape[-1])
    if program.skip:
        varied_WC = model.normalise(packed.varied_1WC)[0]
        x_WC = flow.on_path(x_WC, varied_WC, jnp.full(x_WC.shape[:1], program.start))
    return solve(program, model, packed, x_WC, scale)


def decode(autoencoder: nnx.Module, z_WC: jax.Array, first_B: jax.Array, *, width: int):
    """Mels [B, F, T] of the windows that begin at those columns of a tape."""
    z_BPC = multidiffusion.cut(z_WC[None], first_B, width)[:, 0]
    return autoencoder.decode(partition.shard_batch(z_BPC))
