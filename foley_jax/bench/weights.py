"""Weights by a rule, the same for us and for peers: nothing is downloaded, nothing is trained.

Peers read them under the official names, in which `foley_jax.convert` writes them.
"""

from collections.abc import Mapping
import math
from typing import Any
import zlib

from flax import nnx, traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.interop import torch_writer
from foley_jax.runtime import network as network_lib

_KEPT = {"logit_scale": math.log(1 / 0.07), "latent_scale": 0.18215}  # of CAVP, of SD's latents


def network(build: network_lib.Build, seed: int = 0) -> network_lib.Network:
    """Returns what `build` makes, filled by `value`.

    Activations keep their size, no layer is zero.
    """
    graphdef, abstract = nnx.split(network_lib.shapes(build))
    return network_lib.Network(graphdef, filled(nnx.to_pure_dict(abstract), seed))


def filled(abstract: Any, seed: int = 0) -> Any:
    """A nested dict of shapes and dtypes, filled by `value`."""

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        return jnp.asarray(value(name, leaf.shape, seed), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, abstract)


def value(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values of the parameter `name`, a path "a/0/kernel"; they depend on it alone."""
    leaf = name.rsplit("/", 1)[-1]
    if leaf in _KEPT:
        return np.full(shape, _KEPT[leaf], np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = rng.standard_normal(shape, np.float32)
    if len(shape) >= 2:
        normal /= np.float32(np.sqrt(np.prod(shape[:-1])))
        return normal
    normal *= np.float32(0.1)
    if leaf == "var":
        return np.exp(normal)
    return normal + np.float32(1) if leaf == "scale" else normal


def official(kind: str, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our weights as the official state dict; arrays are views where that is possible.

    Args:
      kind: of `foley_jax.convert`: "diff_foley/ldm", "mm_diffusion/base", ...
      state: nested dict of a whole network, or of its parts that are wanted.
    Raises:
      ValueError: nothing is known about that kind.
    """
    known = torch_writer.kinds()
    if kind not in known:
        raise ValueError(f"no official names for {kind!r}, only for {', '.join(known)}")
    flat = traverse_util.flatten_dict(dict(state))
    leaves = {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in flat.items()}
    return torch_writer.of_parts(kind, leaves).state
