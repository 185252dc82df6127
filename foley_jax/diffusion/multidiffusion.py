"""Joint denoising: a denoiser that knows windows makes a canvas of any width.

At every solver step all windows are cut from one canvas, predicted, and their predictions
blended; the solver then moves the canvas. Neighbours therefore agree where they overlap, which
windows made one by one never do.

H W C canvas rows, columns and channels; V columns of a window, N windows, B of them at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foley_jax.diffusion import gaussian

# (x_BHVC, float32 model times [B], int32 window numbers [B]) -> prediction, float32 [B, H, V, C]
WindowFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# the same, with a pytree that the batch of windows keeps: (..., kept) -> (prediction, kept)
KeepingWindowFn = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class WindowLayout(NamedTuple):
    """Where the windows lie on the canvas.

    Attributes:
      first_N: int32, first column of every window.
      weight_NV: float32, share of each window in its columns; over the windows that cover a
        column they add to one.
      count: int32 scalar, windows in use. Those after it are padding: their share must be zero,
        and batches of padding alone are not computed.
    """

    first_N: jax.Array
    weight_NV: jax.Array
    count: jax.Array


def cut(x_HWC: jax.Array, first_B: jax.Array, width: int) -> jax.Array:
    """Windows of a canvas: [H, W, C] -> [B, H, width, C]."""
    columns_BV = first_B[:, None] + jnp.arange(width)[None]
    return jnp.moveaxis(x_HWC[:, columns_BV], 1, 0)  # [H, B, V, C] -> [B, H, V, C]


def denoiser(predict: WindowFn, cover: WindowLayout, *, batch: int) -> gaussian.DenoiseFn:
    """Denoiser of a whole canvas from a denoiser of windows.

    Any prediction that is linear in the network's output (eps, v, x0) may be blended; all
    windows are at the same time.

    Args:
      predict: the windows' denoiser; it picks its condition by window number.
      cover: windows and weights; N is a multiple of `batch`.
      batch: windows that go through `predict` at once; memory does not grow beyond them.
    Returns:
      (x [1, H, W, C], t [1]) -> float32 [1, H, W, C]; columns that no window covers get zero.
    Raises:
      ValueError: the number of windows is no multiple of `batch`.
    """

    def nothing_kept(x_BHVC, t_B, index_B, kept):
        return predict(x_BHVC, t_B, index_B), kept

    denoise = remembering(nothing_kept, cover, batch=batch)
    return lambda x_1HWC, t_1: denoise(x_1HWC, t_1, ())[0]


def remembering(
    predict: KeepingWindowFn, cover: WindowLayout, *, batch: int
) -> Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]:
    """`denoiser` whose batches of windows each keep something from one evaluation to the next.

    Returns:
      (x [1, H, W, C], t [1], kept) -> (float32 [1, H, W, C], kept), the leaves of `kept` being
      [N / batch, ...]; `predict` sees those of its batch.
    Raises:
      ValueError: the number of windows is no multiple of `batch`.
    """
    num_windows, width = cover.weight_NV.shape
    if num_windows % batch:
        raise ValueError(f"{num_windows} windows in batches of {batch}; pad them to a multiple")

    def denoise(x_1HWC: jax.Array, t_1: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
        x_HWC, t_B = x_1HWC[0], jnp.full((batch,), t_1[0])

        def body(i: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            canvas_HWC, kept = carry
            index_B = i * batch + jnp.arange(batch)
            first_B = cover.first_N[index_B]
            own = jax.tree.map(lambda a: a[i], kept)
            predicted, own = predict(cut(x_HWC, first_B, width), t_B, index_B, own)
            kept = jax.tree.map(lambda a, new: a.at[i].set(new), kept, own)
            share = predicted.astype(jnp.float32) * cover.weight_NV[index_B][:, None, :, None]
            columns_BV = first_B[:, None] + jnp.arange(width)[None]
            # [B, H, V, C] -> [H, B, V, C]; windows of one batch may overlap, hence add
            return canvas_HWC.at[:, columns_BV].add(jnp.moveaxis(share, 0, 1)), kept

        start = (jnp.zeros(x_HWC.shape, jnp.float32), kept)
        if num_windows == batch:  # GPUs ask the host about every round of a loop of unknown length
            canvas_HWC, kept = body(jnp.int32(0), start)
        else:
            batches = (cover.count + batch - 1) // batch
            canvas_HWC, kept = jax.lax.fori_loop(0, batches, body, start)
        return canvas_HWC[None], kept

    return denoise
