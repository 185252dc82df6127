"""Low-rank adapters beside the kernels of a network that stays as it is (LoRA).

A kernel W [..., in, out] gets A [..., in, rank] and B [rank, out]: the layer computes with
W + (alpha / rank) A B, without ever forming it. B begins as zeros, so that the network begins as
the one it adapts. The paths of all other parameters stay what they were.
Source: Hu et al. 2021.
"""

from collections.abc import Callable, Mapping, Sequence
import fnmatch
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import conv, initializers

A, B = "lora_a", "lora_b"  # names of the two beside "kernel"


class Adapter(nnx.Param):
    """One of the two factors of an adapter; what is trained."""


def _take_over(layer: nnx.Module, base: nnx.Module, rank: int, alpha: float, rngs: Any) -> None:
    """Gives `layer` all that `base` has, and an adapter."""
    for name, value in vars(base).items():
        if not name.startswith("_"):
            setattr(layer, name, nnx.data(None) if value is None and name == "bias" else value)
    *inner, out_dim = base.kernel.shape
    shape = (*inner, rank)
    layer.lora_a = Adapter(initializers.kernel()(rngs.params(), shape, jnp.float32))
    layer.lora_b = Adapter(jnp.zeros((rank, out_dim), jnp.float32))
    layer.scale = alpha / rank


class AdaptedLinear(nnx.Linear):
    """A linear layer with an adapter."""

    def __init__(self, base: nnx.Linear, rank: int, alpha: float, *, rngs: nnx.Rngs):
        _take_over(self, base, rank, alpha, rngs)

    def __call__(self, inputs: jax.Array, *args: Any, **options: Any) -> jax.Array:
        """The layer's own output, and the adapter's."""
        y = super().__call__(inputs, *args, **options)
        factors = (inputs, self.lora_a[...], self.lora_b[...])
        x, a, b = self.promote_dtype(factors, dtype=self.dtype)
        return y + self.scale * ((x @ a) @ b)


class AdaptedConv1d(conv.Conv1d):
    """A convolution in time with an adapter: A sees the neighbours, B the channels."""

    def __init__(self, base: conv.Conv1d, rank: int, alpha: float, *, rngs: nnx.Rngs):
        _take_over(self, base, rank, alpha, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The layer's own output, and the adapter's."""
        y, x = super().__call__(x), x.astype(self.dtype)
        a, b = (factor[...].astype(self.dtype) for factor in (self.lora_a, self.lora_b))
        return y + self.scale * (self._convolve(x, a) @ b)


_ADAPTED = {nnx.Linear: AdaptedLinear, conv.Conv1d: AdaptedConv1d}


def kernel_of(layer: nnx.Module) -> jax.Array:
    """Returns the kernel that a layer computes with, for those who compute with it themselves."""
    kernel = layer.kernel[...]
    if not hasattr(layer, A):
        return kernel
    return kernel + layer.scale * (layer.lora_a[...] @ layer.lora_b[...])


def adapt(
    model: nnx.Module,
    targets: str | Sequence[str],
    *,
    rank: int,
    alpha: float,
    rngs: nnx.Rngs,
    chosen: Callable[[tuple, nnx.Variable], bool] = lambda path, kernel: True,
) -> list[str]:
    """Puts an adapter beside the kernels of the linear layers and convolutions in time it names.

    Args:
      model: changed in place.
      targets: globs of whole paths with dots, in which "*" stands for dots too:
        "*.attn.qkv", "joint_blocks.*"; a string holds one or, with commas, several.
      rank: of every adapter.
      alpha: what an adapter adds is multiplied by alpha / rank.
      chosen: (path of a kernel, kernel) -> whether it may have an adapter.
    Returns:
      Paths of the adapted layers.
    Raises:
      ValueError: rank below 1, or a pattern that names no such layer.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adapter is {rank}, expected at least 1")
    globs = [t.strip() for t in (targets.split(",") if isinstance(targets, str) else targets)]
    layers = {
        ".".join(map(str, path)): (path, layer)
        for path, layer in nnx.iter_modules(model)
        if type(layer) in _ADAPTED and chosen((*path, "kernel"), layer.kernel)
    }
    for glob in globs:
        if not fnmatch.filter(layers, glob):
            some = ", ".join(sorted(layers)[:4])
            raise ValueError(
                f"{glob!r} names no linear layer or convolution in time of this model that is "
                f"trained; it has {some}, ... ('*' stands for any part of a path, dots included)"
            )
    found = sorted(name for name in layers if any(fnmatch.fnmatchcase(name, g) for g in globs))
    for name in found:
        path, layer = layers[name]
        adapted = _ADAPTED[type(layer)](layer, rank, alpha, rngs=rngs)
        *parents, last = path
        owner = model
        for part in parents:
            owner = owner[part] if isinstance(part, int) else getattr(owner, part)
        if isinstance(last, int):
            owner[last] = adapted
        else:
            setattr(owner, last, adapted)
    return found


def is_adapter(path: str) -> bool:
    """Whether a path with slashes is that of a factor of an adapter."""
    return path.rpartition("/")[2] in (A, B)


def merged(leaves: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Returns a model's leaves without adapters, their products added to the kernels.

    Args:
      leaves: path with slashes -> array.
      scale: alpha / rank.
    """
    made = {path: leaf for path, leaf in leaves.items() if not is_adapter(path)}
    for path in leaves:
        owner, _, last = path.rpartition("/")
        if last != A:
            continue
        kernel = leaves[f"{owner}/kernel"]
        a, b = (np.asarray(leaves[f"{owner}/{name}"], np.float64) for name in (A, B))
        whole = np.asarray(kernel, np.float64) + scale * (a @ b)
        made[f"{owner}/kernel"] = whole.astype(kernel.dtype)
    return made
