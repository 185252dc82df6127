"""Stable Diffusion v1 in a diffusers folder: its tensor names in the words of the CompVis file.

A diffusers folder is read with keys "unet.NAME" and "vae.NAME".
"""

from collections.abc import Mapping
import re

import numpy as np

# of SD v1: residual blocks per level, and levels of the autoencoder
_BLOCKS_PER_LEVEL = 2
_VAE_LEVELS = 4

_UNET_PREFIX = "model.diffusion_model."
_VAE_PREFIX = "first_stage_model."

_RES_BLOCK = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
_UNET_ENDS = (
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
)
_VAE = (
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.down.\1.block.\2."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    # diffusers before 0.17 wrote query, key, value, proj_attn
    (r"\.attn_1\.(?:to_q|query)\.", ".attn_1.q."),
    (r"\.attn_1\.(?:to_k|key)\.", ".attn_1.k."),
    (r"\.attn_1\.(?:to_v|value)\.", ".attn_1.v."),
    (r"\.attn_1\.(?:to_out\.0|proj_attn)\.", ".attn_1.proj_out."),
)


def to_compvis(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the tensors of a diffusers folder; a state dict of other names passes unchanged."""
    if "unet.conv_in.weight" not in state:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        part, name = key.split(".", 1)
        if part == "unet":
            renamed[_UNET_PREFIX + unet_name(name)] = value
        elif part == "vae":
            renamed[_VAE_PREFIX + vae_name(name)] = value
        else:
            renamed[key] = value
    return renamed


def unet_name(name: str, blocks_per_level: int = _BLOCKS_PER_LEVEL) -> str:
    """CompVis name of a diffusers U-Net tensor, both without prefix."""
    if ".resnets." in name:
        for pattern, replacement in _RES_BLOCK:
            name = re.sub(pattern, replacement, name)
    for pattern, replacement in _UNET_ENDS:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"\.downsamplers\.0\.conv\.", ".downsamplers.0.op.", name)
    # the middle's residual blocks stand around its attention
    name = re.sub(r"^mid_block\.resnets\.(\d+)\.", lambda m: f"middle_block.{2 * int(m[1])}.", name)
    return re.sub(
        r"^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.",
        lambda match: _unet_block(match, blocks_per_level),
        name,
    )


def _unet_block(match: re.Match, blocks: int) -> str:
    """Index of a block in the official flat lists `input_blocks` and `output_blocks`."""
    side, level, kind, index = match[1], int(match[2]), match[3], int(match[4])
    place = 0 if kind == "resnets" else 1
    if side == "down":
        first = (blocks + 1) * level + 1
        if kind == "downsamplers":
            return f"input_blocks.{first + blocks}.0."
        return f"input_blocks.{first + index}.{place}."
    first = (blocks + 1) * level
    if kind == "upsamplers":
        # behind the attention, which the lowest level does not have
        return f"output_blocks.{first + blocks}.{1 if level == 0 else 2}."
    return f"output_blocks.{first + index}.{place}."


def vae_name(name: str) -> str:
    """CompVis name of a diffusers autoencoder tensor, both without prefix."""
    for pattern, replacement in _VAE:
        name = re.sub(pattern, replacement, name)

    def level(match: re.Match) -> str:
        return f"decoder.up.{_VAE_LEVELS - 1 - int(match[1])}."

    name = re.sub(r"^decoder\.up_blocks\.(\d+)\.", level, name)
    name = re.sub(r"\.resnets\.(\d+)\.", r".block.\1.", name)
    return name.replace(".upsamplers.0.", ".upsample.")
