"""MM-Diffusion's super-resolution U-Net (ADM's upsampler) in plain torch, channels last in memory.

B batch, H W space, h w of the small image, C channels, D width of the time embedding.
Source: image_unet.py ImageSuperResModel.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from foley_jax.bench.peers import mm_diffusion, official_layers

_NUM_GROUPS, _EPSILON = 32, 1e-5
State = official_layers.OfficialState


def _norm(state: State, name: str) -> nn.GroupNorm:
    return state.group_norm(name, _NUM_GROUPS, _EPSILON)


def _resample(x: torch.Tensor, how: str) -> torch.Tensor:
    if how == "none":
        return x
    return F.avg_pool2d(x, 2) if how == "down" else F.interpolate(x, scale_factor=2.0)


class _ResBlock(nn.Module):
    """Resampled before its first convolution: [B, C, H, W]."""

    def __init__(self, state: State, resample: str):
        super().__init__()
        self.norm1, self.norm2 = _norm(state, "in_layers.0"), _norm(state, "out_layers.0")
        self.conv1 = state.conv("in_layers.2", padding=1)
        self.conv2 = state.conv("out_layers.3", padding=1)
        self.time = state.linear("emb_layers.1")
        grows = state.has("skip_connection")
        self.shortcut = state.conv("skip_connection") if grows else nn.Identity()
        self.resample = resample

    def forward(self, x: torch.Tensor, time_BD: torch.Tensor) -> torch.Tensor:
        h = self.conv1(_resample(F.silu(self.norm1(x), inplace=True), self.resample))
        scale, shift = self.time(time_BD)[..., None, None].chunk(2, 1)
        h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale), inplace=True)
        return self.shortcut(_resample(x, self.resample)) + self.conv2(h)


class _Attention(nn.Module):
    """Self-attention over the pixels; qkv is ordered by head."""

    def __init__(self, state: State, num_heads: int):
        super().__init__()
        self.norm = _norm(state, "norm")
        self.qkv, self.proj = state.linear("qkv"), state.linear("proj_out")
        self.num_heads = num_heads

    def forward(self, x: torch.Tensor, time_BD: torch.Tensor) -> torch.Tensor:
        del time_BD
        # [B, C, H, W] -> [B, H, W, C], a view
        qkv = self.qkv(self.norm(x).permute(0, 2, 3, 1)).flatten(1, 2)
        qkv = qkv.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, N, H*W, 3*C/N]
        y = F.scaled_dot_product_attention(*qkv.chunk(3, -1)).transpose(1, 2).flatten(2)
        return x + self.proj(y).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class _Network(nn.Module):
    def __init__(self, state: State, config: Mapping[str, Any]):
        super().__init__()
        self.width, heads = config["model_channels"], config["num_heads"]
        self.time_embed = nn.ModuleList([state.linear(f"time_embed.{i}") for i in (0, 2)])
        self.first = state.conv("input_blocks.0.0", padding=1)
        levels, per_level = len(config["channel_mult"]), config["num_res_blocks"]
        self.inputs, self.outputs = nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            for end in ["none"] * per_level + ["down"] * (i < levels - 1):
                name = f"input_blocks.{len(self.inputs) + 1}"
                self.inputs.append(self._entry(state.at(name), heads, end))
        self.middle = self._entry(state.at("middle_block"), heads, "none")
        for i in reversed(range(levels)):
            for j in range(per_level + 1):
                name, rises = f"output_blocks.{len(self.outputs)}", i > 0 and j == per_level
                self.outputs.append(self._entry(state.at(name), heads, "up" if rises else "none"))
        self.norm_out, self.conv_out = _norm(state, "out.0"), state.conv("out.2", padding=1)
        state.check_used()

    @staticmethod
    def _entry(state: State, heads: int, last: str) -> nn.ModuleList:
        """Residual blocks and attention; the last block resamples as `last` says."""
        count = 0
        while state.has(str(count)):
            count += 1
        parts = [state.at(str(i)) for i in range(count)]
        return nn.ModuleList(
            _Attention(part, heads)
            if part.has("qkv")
            else _ResBlock(part, last if part is parts[-1] else "none")
            for part in parts
        )

    def forward(
        self, x_BHWC: torch.Tensor, low_BhwC: torch.Tensor, t_B: torch.Tensor
    ) -> torch.Tensor:
        dtype = self.time_embed[0].weight.dtype
        time_BD = self.time_embed[0](mm_diffusion.timestep_embedding(t_B, self.width).to(dtype))
        time_BD = F.silu(self.time_embed[1](F.silu(time_BD)))
        low = low_BhwC.permute(0, 3, 1, 2).float()
        low = F.interpolate(low, x_BHWC.shape[1:3], mode="bilinear", align_corners=False)
        x = torch.cat([x_BHWC.permute(0, 3, 1, 2).to(dtype), low.to(dtype)], 1)

        def run(entry: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
            for layer in entry:
                x = layer(x, time_BD)
            return x

        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for entry in self.inputs:
            x = run(entry, x)
            skips.append(x)
        x = run(self.middle, x)
        for entry in self.outputs:
            x = run(entry, torch.cat([x, skips.pop()], 1))
        return self.conv_out(F.silu(self.norm_out(x))).permute(0, 2, 3, 1).float()


def network(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """The 64 -> 256 network, as `super_resolution.SuperResolution`.

    Args:
      state_dict: official names and layouts, without class embedding.
      config: `config.model`: model_channels, channel_mult, num_res_blocks, num_heads are read.
    Returns:
      A module from noisy images [B, H, W, C], small ones [B, h, w, C] and steps [B] to float32
      [B, H, W, 2 * C].
    Raises:
      ValueError: tensors that are missing or have no place.
    """
    return _Network(official_layers.OfficialState(state_dict), config).eval()
