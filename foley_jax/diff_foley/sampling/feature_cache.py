"""Solver steps that take the U-Net's deep features from an earlier step (DeepCache).

What a U-Net's deep entries give changes little from one solver step to the next. Here they are
computed at every `interval`-th evaluation; at the others only the first and last `depth` entries
are, on the newest input. Nothing is trained for it, and the audio is no longer the same. What all
windows keep is in memory: for the paper's U-Net, float32 and with guidance, 2.6 MB a window. Videos
of more windows than fit into `KEPT_BYTES` are refused.
Source: Ma et al. 2023 (DeepCache), with evenly spaced steps.
Axis letters: N windows in M batches of B, H W C a deep feature's rows, columns and channels.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import unet as unet_lib
from foley_jax.diffusion import multidiffusion, stateful
from foley_jax.runtime import partition

KEPT_BYTES = 2**30  # of deep features: 54 minutes with the paper's U-Net

# (denoise, x_BHVC, model times [B], window numbers [B]) -> eps; `denoise` is called once, with the
# arguments of `LatentDiffusion.denoise`
Predict = Callable[[Callable[..., jax.Array], jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """How often what is computed.

    Attributes:
      interval: evaluations that one computation of the deep entries serves; 1 is no cache.
      depth: entries of the way down, and of the way up, that are computed at every step.
    Raises:
      ValueError: one is less than 1.
    """

    interval: int = 1
    depth: int = 1

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"cache_{name} is {value}, expected 1 (no cache) or more")


def denoiser(
    cache: FeatureCache,
    predict: Predict,
    unet: unet_lib.UNet,
    cover: multidiffusion.WindowLayout,
    *,
    batch: int,
    examples: int,
    latent_shape: tuple[int, int, int],
) -> stateful.Denoiser:
    """`multidiffusion.denoiser` with the deep features of every batch of windows as its memory.

    Args:
      predict: the windows' denoiser, given the U-Net it is to call.
      cover, batch: as of `multidiffusion.denoiser`.
      examples: in one call of the U-Net: `batch`, or twice as many with guidance.
      latent_shape: [H, V, C] of one window.
    Raises:
      ValueError: the U-Net has fewer entries than `cache.depth`.
    """
    shape = unet.deep_shape(latent_shape, cache.depth)
    batches = len(cover.first_N) // batch
    one_BHWC = partition.shard_batch(jnp.zeros((examples, *shape), unet.dtype))
    deep_MBHWC = jnp.broadcast_to(one_BHWC, (batches, *one_BHWC.shape))

    def evaluate(x_1HWC: jax.Array, t_1: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
        count, deep_MBHWC = kept
        fresh = count % cache.interval == 0

        def window(x_BHVC, t_B, index_B, deep_BHWC):
            newest = deep_BHWC

            def denoise(*args, **where):
                nonlocal newest
                predicted, newest = unet.reusing(
                    *args, deep_BHWC, fresh=fresh, depth=cache.depth, **where
                )
                return predicted

            return predict(denoise, x_BHVC, t_B, index_B), newest

        windows = multidiffusion.remembering(window, cover, batch=batch)
        eps_1HWC, deep_MBHWC = windows(x_1HWC, t_1, deep_MBHWC)
        return eps_1HWC, (count + 1, deep_MBHWC)

    return stateful.Denoiser(evaluate, (jnp.int32(0), deep_MBHWC))
