"""The one place that chooses which form of an operation is traced.

A form gives the same numbers in another order, as its platform likes it: XLA:CPU, TPUs through
Pallas, NVIDIA GPUs through cuDNN. Everywhere else, and inside `plain_forms`, the plain mathematics
is traced, which JAX differentiates in any mode. The forms bring gradients of their own
(`jax.custom_vjp`) and therefore no forward mode: where a call sees that it is being differentiated
forwards it is plain, too; a function that was jitted or rematerialised before `jax.jvp` has to be
traced in `plain_forms`, or with FOLEY_JAX_PLAIN_FORMS=1 in the environment.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import os
import types
from typing import Any

import jax
from jax import lax
from jax.interpreters import ad
import jax.numpy as jnp

from foley_jax.kernels import plain
from foley_jax.runtime import partition

ATTENTION = ("auto", "xla", "cpu", "cudnn", "fused", "flash")
_PLAIN = contextvars.ContextVar("plain_forms", default=False)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Inside, what is traced is the plain mathematics on every platform.

    For `jax.jvp`, `jax.linearize` and `jax.hessian`. A function that was jitted and called before
    keeps its program: wrap it anew, or call `jax.clear_caches()`.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _forms(*arrays: jax.Array) -> bool:
    """Whether forms with gradients of their own may be used for these arguments."""
    if _PLAIN.get() or os.environ.get("FOLEY_JAX_PLAIN_FORMS", "") not in ("", "0"):
        return False
    return not any(isinstance(x, ad.JVPTracer) for x in arrays)


def _cpu(*arrays: jax.Array) -> types.ModuleType | None:
    """The forms for CPUs, if these arguments may have them; read only where they are used."""
    if not (partition.on_cpu() and _forms(*arrays)):
        return None
    from foley_jax.kernels import cpu

    return cpu


def _one_cpu(*arrays: jax.Array) -> types.ModuleType | None:
    """`_cpu`, for forms that several devices could not share."""
    return _cpu(*arrays) if partition.on_one_cpu() else None


def _tpu(*arrays: jax.Array) -> types.ModuleType | None:
    """The forms for TPUs, if these arguments may have them."""
    if not (partition.on_tpu() and _forms(*arrays)):
        return None
    from foley_jax.kernels import tpu

    return tpu


def _gpu(*arrays: jax.Array) -> types.ModuleType | None:
    """The forms for NVIDIA GPUs, if these arguments may have them."""
    if not (partition.on_gpu() and _forms(*arrays)):
        return None
    from foley_jax.kernels import gpu

    return gpu


def conv2d(
    x_BHWC: jax.Array,
    kernel_hwCO: jax.Array,
    *,
    stride: int = 1,
    padding: plain.Padding,
    gradients_as_products: bool = False,
) -> jax.Array:
    """2-D convolution [B, H, W, C] -> [B, H', W', O]; one of 1x1 is a matrix product.

    Args:
      x_BHWC, kernel_hwCO: of one dtype.
      stride: of both axes.
      padding: zeros before and after, of H and of W.
      gradients_as_products: in the form for CPUs the gradients are matrix products over pixels,
        which run faster and take longer to compile; only with k // 2 zeros on every side.
    """
    if kernel_hwCO.shape[:2] == (1, 1) and stride == 1 and not any(map(any, padding)):
        return matmul(x_BHWC, kernel_hwCO[0, 0])
    cpu = _cpu(x_BHWC, kernel_hwCO)
    if cpu is None:
        return plain.conv2d(x_BHWC, kernel_hwCO, stride, padding)
    if gradients_as_products:
        return cpu.gradients.conv2d(x_BHWC, kernel_hwCO, stride)
    return cpu.conv.conv2d(x_BHWC, kernel_hwCO, stride, padding)


def conv3d(x_BFHWC: jax.Array, kernel_fhwCO: jax.Array) -> jax.Array:
    """3x3x3 convolution that keeps F, H and W: [B, F, H, W, C] -> [B, F, H, W, O]."""
    if cpu := _cpu(x_BFHWC, kernel_fhwCO):
        return cpu.conv3d.conv3d(x_BFHWC, kernel_fhwCO)
    gpu = _gpu(x_BFHWC, kernel_fhwCO)
    return (gpu.conv if gpu else plain).conv3d(x_BFHWC, kernel_fhwCO)


def temporal_conv(x_BTPC: jax.Array, kernel_3CO: jax.Array) -> jax.Array:
    """Three neighbouring frames, zeros beyond the ends: [B, T, P, C] -> [B, T, P, O]."""
    if cpu := _cpu(x_BTPC, kernel_3CO):
        return cpu.gradients.temporal_conv3(x_BTPC, kernel_3CO)
    gpu = _gpu(x_BTPC, kernel_3CO)
    return (gpu.conv if gpu else plain).temporal_conv(x_BTPC, kernel_3CO)


def upsampled_conv(x_BHWC: jax.Array, kernel_33CO: jax.Array) -> jax.Array:
    """Repeats pixels 2x2, then convolves 3x3: [B, H, W, C] -> [B, 2H, 2W, O]."""
    cpu = _cpu(x_BHWC, kernel_33CO)
    if cpu:
        return cpu.upsampled.conv3x3(x_BHWC, kernel_33CO)
    return plain.conv2d(plain.nearest(x_BHWC), kernel_33CO, 1, ((1, 1), (1, 1)))


def max_pool(x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Maxima of 3x3, stride 2, zeros around; nothing negative: [B, ceil(H/2), ceil(W/2), C].

    Args:
      train: there will be gradients, for which the plain form is the better one.
    """
    even = x_BHWC.shape[1] % 2 == x_BHWC.shape[2] % 2 == 0
    cpu = _one_cpu(x_BHWC) if even and not train else None
    return cpu.strided.max_pool(x_BHWC) if cpu else plain.max_pool(x_BHWC)


def a_few_at_a_time(fn: Callable[[jax.Array], jax.Array], x_BHWC: jax.Array) -> jax.Array:
    """`fn` of a batch whose items do not meet; in the form for CPUs of as many as fit the cache."""
    cpu = _one_cpu(x_BHWC)
    return cpu.forms.in_pieces(fn, x_BHWC) if cpu else fn(x_BHWC)


def broadcast_channels(a_BC: jax.Array, x: jax.Array) -> jax.Array:
    """[B, C] as what x [B, ..., C] can be multiplied with.

    On one CPU the axis B of a single example is spread, too: its gradient is then a sum that
    XLA:CPU computes 30 to 40 times as fast as one that keeps an axis of length 1 (jaxlib 0.10.2).
    """
    if x.shape[0] == 1 and partition.on_one_cpu() and _forms(a_BC, x):
        return lax.broadcast_in_dim(a_BC[0], x.shape, (x.ndim - 1,))
    return jnp.expand_dims(a_BC, tuple(range(1, x.ndim - 1)))


def group_norm(
    x_BSC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, num_groups: int, epsilon: float
) -> jax.Array:
    """Normalises all pixels of each group of channels: [B, S, C], dtype of x, float32 inside.

    Args:
      x_BSC: any float dtype.
      scale_C, bias_C: of the result, float32.
      num_groups: of neighbouring channels; divides C.
      epsilon: added to the variance.
    """
    gpu = _gpu(x_BSC, scale_C, bias_C)
    if gpu:
        return gpu.norm.group_norm(x_BSC, scale_C, bias_C, num_groups, epsilon)
    centred_BSC, variance_BC = plain.centred(x_BSC.astype(jnp.float32), num_groups)
    a_BC = lax.rsqrt(variance_BC + epsilon) * scale_C[None]
    y_BSC = centred_BSC * broadcast_channels(a_BC, centred_BSC) + bias_C.reshape(1, 1, -1)
    return y_BSC.astype(x_BSC.dtype)


def dot_general(x: jax.Array, kernel_CO: jax.Array, dimension_numbers: Any, **options: Any):
    """`lax.dot_general` as `nnx.Linear` calls it: over the last axis of x."""
    cpu = _cpu(x, kernel_CO)
    if cpu:
        return cpu.dense.dot_general(x, kernel_CO, dimension_numbers, **options)
    return lax.dot_general(x, kernel_CO, dimension_numbers, **options)


def matmul(x: jax.Array, kernel_CO: jax.Array, *, gradients_as_products: bool = False) -> jax.Array:
    """x @ kernel over the last axis: [..., C] -> [..., O]."""
    cpu = _cpu(x, kernel_CO) if gradients_as_products else None
    if cpu:
        return cpu.dense.dense(x, kernel_CO)
    return dot_general(x, kernel_CO, (((x.ndim - 1,), (0,)), ((), ())))


def feed_forward(x: jax.Array, weights: plain.FeedForwardWeights) -> jax.Array:
    """The gated feed-forward (GEGLU) [..., C] -> [..., C]; weights in the dtype of x."""
    tpu = _tpu(x, *weights)
    if tpu and tpu.geglu.fits(x, weights.out_HC.shape[0]):
        return tpu.geglu.feed_forward(x, weights)
    # two products instead of one that is split: nothing of the double width is written
    value = _affine(x, weights.value_CH, weights.value_bias_H)
    gate = _affine(x, weights.gate_CH, weights.gate_bias_H)
    return _affine(value * jax.nn.gelu(gate, approximate=False), weights.out_HC, weights.out_bias_C)


def _affine(x: jax.Array, kernel_CO: jax.Array, bias_O: jax.Array) -> jax.Array:
    return matmul(x, kernel_CO) + bias_O.reshape((1,) * (x.ndim - 1) + (-1,))


def attention(
    q_BTND: jax.Array,
    k_BSND: jax.Array,
    v_BSND: jax.Array,
    *,
    bias_BNTS: jax.Array | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """softmax(q k^T / sqrt(D) + bias) v, softmax in float32.

    Args:
      q_BTND, k_BSND, v_BSND: queries, keys, values, any float dtype.
      bias_BNTS: added to the logits; its axes may be 1.
      implementation: "xla" anywhere; "cudnn" on NVIDIA GPUs in half precision, for what
        `gpu.attention.fits` takes ("auto": without bias only); "fused" and "flash" on TPUs, without
        bias, for the shapes that `tpu.attention.fits` and `tpu.splash.fits` take; "cpu" without
        bias, see `cpu.attention`; "auto": the best of these that is possible here.
    Returns:
      [B, T, N, D], dtype of the values.
    Raises:
      ValueError: unknown implementation.
    """
    if implementation == "auto":
        implementation = "xla" if bias_BNTS is not None else _best(q_BTND, k_BSND, v_BSND)
    if implementation == "xla":
        return plain.attention(q_BTND, k_BSND, v_BSND, bias_BNTS)
    if implementation not in ATTENTION:
        raise ValueError(f"attention implementation {implementation!r} is not in {ATTENTION}")
    from foley_jax.kernels import cpu, gpu, tpu

    if implementation == "cudnn":
        return gpu.attention.attention(q_BTND, k_BSND, v_BSND, bias_BNTS)
    forms = {"cpu": cpu.attention, "fused": tpu.attention, "flash": tpu.splash}
    return forms[implementation].attention(q_BTND, k_BSND, v_BSND)


def _best(*qkv: jax.Array) -> str:
    """The implementation for these shapes, without bias, where it is traced for."""
    if _one_cpu(*qkv):
        return "cpu"
    if gpu := _gpu(*qkv):
        return "cudnn" if gpu.attention.fits(*qkv[:2]) else "xla"
    tpu = _tpu(*qkv)
    if tpu is None:
        return "xla"
    if tpu.attention.fits(*qkv[:2]):
        return "fused"
    return "flash" if tpu.splash.fits(*qkv[:2]) else "xla"
