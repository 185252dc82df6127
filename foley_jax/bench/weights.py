"""Weights by a rule, the same for us and for peers: nothing is downloaded, nothing is trained.

Peers read them under the official names, which `official` writes. That these names are right is
tested with the converter, which is strict in both directions.
"""

from collections.abc import Mapping
import math
import re
from typing import Any
import zlib

from flax import nnx, traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.mmaudio import weights as mmaudio_weights
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


_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# ours -> CompVis, below `unet.` and `classifier.`; the way here: diff_foley/weights/tables.py
_BLOCKS = (
    (r"\.time_embed\.1\.", ".time_embed.2."),
    (r"\.norm_out\.", ".out.0."),
    (r"\.conv_out\.", ".out.2."),
    (r"(blocks?(?:\.\d+)+)\.norm1\.(?=weight|bias)", r"\1.in_layers.0."),
    (r"(blocks?(?:\.\d+)+)\.norm2\.(?=weight|bias)", r"\1.out_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_proj\.", ".emb_layers.1."),
    (r"\.shortcut\.", ".skip_connection."),
    (r"\.to_out\.", ".to_out.0."),
    (r"\.ff\.proj_in\.", ".ff.net.0.proj."),
    (r"\.ff\.proj_out\.", ".ff.net.2."),
    (r"(transformer_blocks\.\d+)\.in_layers\.0\.", r"\1.norm1."),
    (r"(transformer_blocks\.\d+)\.out_layers\.0\.", r"\1.norm2."),
)
_LDM = (
    (r"^(autoencoder\..*)\.shortcut\.", r"\1.nin_shortcut."),
    (r"^autoencoder\.", "first_stage_model."),
    (r"^conditioner\.embedder\.", "cond_stage_model.embedder.0."),
    (r"^conditioner\.", "cond_stage_model."),
    (r"^unet\.", "model.diffusion_model."),
    (r"^latent_scale$", "scale_factor"),
)
_ALIGNMENT = (
    (r"^classifier\.head\.", "model.classifier."),
    (r"^classifier\.", "model."),
    (r"^conditioner\.embedder\.", "cond_model.embedder.0."),
    (r"^conditioner\.", "cond_model."),
)
_COUPLED = (
    (r"((?:^|\.|_)norm(?:1|2|_out)?)\.(?=weight|bias)", r"\1.GroupNorm."),
    (r"^time_embed\.1\.", "time_embed.2."),
    (r"^(video|audio)_norm_out\.", r"\1_out.0."),
    (r"^(video|audio)_conv_out\.", r"\1_out.2.\1_conv."),
    (r"\.(video|audio)_norm1\.", r".\1_in_layers.0."),
    (r"\.video_conv1\.", r".video_in_layers.2."),
    (r"\.audio_conv1\.", r".audio_in_layers.2.audio_conv."),
    (r"\.(video|audio)_norm2\.", r".\1_out_layers.0."),
    (r"\.(video|audio)_conv2\.", r".\1_out_layers.3.\1_conv."),
    (r"\.(video|audio)_shortcut\.", r".\1_skip_connection.\1_conv."),
    (r"\.(video|audio)_proj\.", r".\1_proj_out.\1_conv."),
    (r"\.(spatial|temporal)\.(?=weight|bias)", r".video_conv_\1."),
    (r"\.audio_conv\.(?=weight|bias)", ".audio_conv.audio_conv."),
    (r"(_layers\.\d|_connection|_out|_out\.2)\.audio_conv\.audio_conv\.", r"\1.audio_conv."),
    (r"\.time_proj\.", ".emb_layers.1."),
    (r"\.(spatial|temporal|audio)_attention\.", r".\1_attention_block."),
    (r"\.video_(norm|qkv)\.", r".v_\1."),
    (r"\.audio_(norm|qkv)\.", r".a_\1."),
)
_IMAGES = (
    (r"^time_embed\.1\.", "time_embed.2."),
    (r"^norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.shortcut\.", ".skip_connection."),
)
_FLOW = (
    (r"_input_proj\.layer\.", "_input_proj.0."),
    (r"^(audio|sync)_input_proj\.mlp\.", r"\1_input_proj.2."),
    (r"^(clip|text)_input_proj\.mlp\.", r"\1_input_proj.1."),
    (r"\.modulation\.linear\.", ".adaLN_modulation.1."),
    (r"^t_embed\.first\.", "t_embed.mlp.0."),
    (r"^t_embed\.second\.", "t_embed.mlp.2."),
)
_RENAMES = {
    "diff_foley/cavp": (),
    "diff_foley/ldm": (*_BLOCKS, *_LDM),
    "diff_foley/guidance_classifier": (*_BLOCKS, *_ALIGNMENT),
    "mm_diffusion/base": _COUPLED,
    "mm_diffusion/super_resolution": _IMAGES,
    "mmaudio/small_16k": _FLOW,
}
# official kernels of so many axes, where ours leave out those of size 1
_AXES = {
    "diff_foley/cavp": ((r"video_encoder\..*conv\.weight", 3),),
    "mm_diffusion/base": (
        (r".*\.video_(conv_)?spatial\.weight", 2),
        (r".*\.video_conv\.weight", 3),
        (r".*\.(video_conv_temporal|audio_conv|[av]_qkv|qkv|proj_out)\.weight", 1),
    ),
    "mm_diffusion/super_resolution": ((r".*\.(qkv|proj_out)\.weight", 1),),
}


def official(kind: str, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our weights as the official state dict; arrays are views where that is possible.

    Args:
      kind: of `foley_jax.convert`: "diff_foley/ldm", "mm_diffusion/base", ...
      state: nested dict of a whole network, or of its parts that are wanted.
    Raises:
      ValueError: nothing is known about that kind.
    """
    if kind not in _RENAMES:
        raise ValueError(f"no official names for {kind!r}, only for {', '.join(_RENAMES)}")
    found = {}
    for path, leaf in traverse_util.flatten_dict(dict(state)).items():
        *parents, last = map(str, path)
        key = ".".join((*parents, _LEAVES.get(last, last)))
        blocks = not key.startswith(("autoencoder.", "conditioner."))
        for pattern, replacement in _RENAMES[kind]:
            if blocks or (pattern, replacement) not in _BLOCKS:
                key = re.sub(pattern, replacement, key)
        array = np.asarray(leaf)
        if last == "kernel":
            array = _kernel(array, key, _AXES.get(kind, ()))
        if kind.startswith("mmaudio/") and ".attn.qkv." in key:
            array = mmaudio_weights.parts_mixed(array)
        found[key] = array
    return found


def _kernel(array: np.ndarray, key: str, axes: tuple[tuple[str, int], ...]) -> np.ndarray:
    """[*k, in, out] -> [out, in, *k], with the official number of axes."""
    array = np.moveaxis(array, (-1, -2), (0, 1))
    wanted = next((count for pattern, count in axes if re.fullmatch(pattern, key)), None)
    if wanted is None:
        return array
    sides = [n for n in array.shape[2:] if n != 1]
    ones = [1] * (wanted - len(sides))
    # of [T, H, W] a lone side is the time's, two are the image's
    sides = sides + ones if len(sides) == 1 else ones + sides
    return array.reshape(*array.shape[:2], *sides)
