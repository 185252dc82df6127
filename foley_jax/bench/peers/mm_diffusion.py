"""MM-Diffusion's coupled U-Net in plain torch, with its random shifts as an argument.

Activations stay channels-last in memory: every convolution and norm sees them as a view. The 1x1
convolutions are dense layers, and all frames of a shifted window attend in one call.
B batch, T frames, H W space, L audio samples, P = L // T samples per frame, S frames of a window,
R its shift, C channels, N heads, D width of the time embedding.
Source: multimodal_unet.py, with the configuration of its scripts.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from foley_jax.bench.peers import official_layers

_NUM_GROUPS, _EPSILON = 32, 1e-5
_SELF_ATTENTION_HEADS = 4
_MAX_DILATION_POWER = 10
Pair = tuple[torch.Tensor, torch.Tensor]
State = official_layers.OfficialState


def timestep_embedding(t_B: torch.Tensor, width: int) -> torch.Tensor:
    """[cos | sin] of the steps, float32 [B, width]; the longest wave is 2 pi * 10000 steps."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t_B.device)
    angle = t_B.float()[:, None] * torch.exp(-math.log(10000.0) / half * steps)
    return torch.cat([angle.cos(), angle.sin()], -1)


def _norm(state: State, name: str) -> nn.GroupNorm:
    return state.group_norm(f"{name}.GroupNorm", _NUM_GROUPS, _EPSILON)


def normalize(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Group norm over all axes between the first and the channels, which are last."""
    b, c = x.shape[0], x.shape[-1]
    # as images of one column, which torch's channels-last kernel takes as they are
    y = norm(x.reshape(b, -1, 1, c).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).reshape(x.shape)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, T, C] attends to [B, S, C] -> [B, T, C]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class _VideoConv(nn.Module):
    """3x3 over the image, then 3 over time: [B, T, H, W, C]."""

    def __init__(self, state: State):
        super().__init__()
        self.spatial = state.conv("video_conv_spatial", padding=1)
        self.temporal = state.conv("video_conv_temporal", padding=(1, 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, h, w, _ = x.shape
        x = self.spatial(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # [B*T, H, W, C] -> [B, C, T, H*W]
        x = self.temporal(x.reshape(b, t, h * w, -1).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).reshape(b, t, h, w, -1)


class _AudioConv(nn.Module):
    """Three samples, `dilation` apart: [B, L, C]."""

    def __init__(self, state: State, name: str, dilation: int = 1):
        super().__init__()
        conv = state.conv(name, padding=(dilation, 0), dilation=(dilation, 1))
        # one row of pixels, not a column: torch is faster so
        conv.weight = nn.Parameter(
            conv.weight.transpose(2, 3).contiguous(memory_format=torch.channels_last), False
        )
        conv.kernel_size, conv.padding = (1, 3), (0, dilation)
        conv.dilation = (1, dilation)
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x[:, None].permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1)[:, 0]


def _resample(x: torch.Tensor, how: str) -> torch.Tensor:
    """[B, T, H, W, C] by 2x2 pixels, or [B, L, C] by 4 samples."""
    if how == "none":
        return x
    if x.ndim == 3:
        if how == "up":
            return x.repeat_interleave(4, 1)
        return x.unflatten(1, (-1, 4)).mean(2)
    b, t = x.shape[:2]
    x = x.flatten(0, 1).permute(0, 3, 1, 2)
    x = F.avg_pool2d(x, 2) if how == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")
    return x.permute(0, 2, 3, 1).unflatten(0, (b, t))


class _SelfAttention(nn.Module):
    def __init__(self, state: State):
        super().__init__()
        self.norm = _norm(state, "norm")
        self.qkv, self.proj = state.linear("qkv"), state.linear("proj_out")

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(normalize(self.norm, x_BTC)).chunk(3, -1)
        return x_BTC + self.proj(attend(*qkv, _SELF_ATTENTION_HEADS))


class _ResBlock(nn.Module):
    """Both modalities under one time embedding; resampled after the first convolution."""

    def __init__(self, state: State, dilation: int, resample: str = "none"):
        super().__init__()
        self.resample = resample
        self.time = state.linear("emb_layers.1")
        first, last, shortcut = {}, {}, {}
        for part in ("video", "audio"):
            first[part] = _norm(state, f"{part}_in_layers.0")
            last[part] = _norm(state, f"{part}_out_layers.0")
            last[f"{part}_map"] = state.linear(f"{part}_out_layers.3.{part}_conv")
            name = f"{part}_skip_connection"
            grows = state.has(name)
            shortcut[part] = state.linear(f"{name}.{part}_conv") if grows else nn.Identity()
        self.first, self.last = nn.ModuleDict(first), nn.ModuleDict(last)
        self.shortcut = nn.ModuleDict(shortcut)
        self.video_conv = _VideoConv(state.at("video_in_layers.2"))
        self.audio_conv = _AudioConv(state, "audio_in_layers.2.audio_conv", dilation)
        names = ("spatial", "temporal", "audio")
        self.attention = nn.ModuleDict(
            {
                name: _SelfAttention(state.at(f"{name}_attention_block"))
                for name in names
                if state.has(f"{name}_attention_block")
            }
        )

    def _one(self, part: str, conv: nn.Module, x: torch.Tensor, time_BD: torch.Tensor):
        h = conv(F.silu(normalize(self.first[part], x), inplace=True))
        h, x = _resample(h, self.resample), _resample(x, self.resample)
        scale, shift = time_BD.reshape(len(x), *(1,) * (x.ndim - 2), -1).chunk(2, -1)
        h = torch.addcmul(shift, normalize(self.last[part], h), 1 + scale)
        return self.shortcut[part](x) + self.last[f"{part}_map"](F.silu(h, inplace=True))

    def forward(self, video: torch.Tensor, audio: torch.Tensor, time_BD: torch.Tensor) -> Pair:
        time_BD = self.time(time_BD)
        video = self._one("video", self.video_conv, video, time_BD)
        audio = self._one("audio", self.audio_conv, audio, time_BD)
        if "spatial" in self.attention:
            b, t, h, w, c = shape = video.shape
            video = self.attention["spatial"](video.reshape(b * t, h * w, c))
            # [B*T, H*W, C] -> [B*H*W, T, C] and back
            video = video.reshape(b, t, h * w, c).transpose(1, 2).reshape(b * h * w, t, c)
            video = self.attention["temporal"](video)
            video = video.reshape(b, h * w, t, c).transpose(1, 2).reshape(shape)
        if "audio" in self.attention:
            audio = self.attention["audio"](audio)
        return video, audio


def _windows(x_BMC: torch.Tensor, first: int, count: int, step: int, size: int) -> torch.Tensor:
    """Tokens from `first` + i * `step`, around the end, for each window -> [B, count, size, C]."""
    x = x_BMC.roll(-first, 1)
    again = max(0, (count - 1) * step + size - x.shape[1])
    x = torch.cat([x, x[:, :again]], 1)
    return x.unfold(1, size, step)[:, :count].transpose(2, 3)


class _CrossAttention(nn.Module):
    """RS-MMA: each frame and its samples attend to `window` frames of the other side."""

    def __init__(self, state: State, head_channels: int, window: int | None):
        super().__init__()
        self.norms = nn.ModuleList([_norm(state, "v_norm"), _norm(state, "a_norm")])
        self.qkvs = nn.ModuleList([state.linear("v_qkv"), state.linear("a_qkv")])
        names = ("video_proj_out.video_conv", "audio_proj_out.audio_conv")
        self.projs = nn.ModuleList([state.linear(name) for name in names])
        self.head_channels, self.window = head_channels, window

    def forward(self, video: torch.Tensor, audio: torch.Tensor, shift: int | None) -> Pair:
        b, t, h, w, c = video.shape
        video_qkv, audio_qkv = (
            qkv(normalize(norm, x)).reshape(b, -1, 3 * c)
            for norm, qkv, x in zip(self.norms, self.qkvs, (video, audio))
        )
        if self.window is None and audio.shape[1] % t == 0:  # the whole clip, in any order
            new_video = self._attend(video_qkv[..., :c], audio_qkv[..., c:])
            new_audio = self._attend(audio_qkv[..., :c], video_qkv[..., c:])
        else:
            new_video, new_audio = self._in_windows(video_qkv, audio_qkv, t, shift or 0)
        new_video, new_audio = self.projs[0](new_video), self.projs[1](new_audio)
        return video + new_video.reshape(video.shape), audio + new_audio

    def _attend(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return attend(q, *kv.chunk(2, -1), q.shape[-1] // self.head_channels)

    def _in_windows(self, video: torch.Tensor, audio: torch.Tensor, t: int, shift: int) -> Pair:
        b, c = len(video), video.shape[-1] // 3
        pixels, samples = video.shape[1] // t, audio.shape[1] // t
        window = t if self.window is None else self.window
        audio_keys, video_keys = (
            _windows(x[..., c:], shift * step, t, step, window * step).flatten(0, 1)
            for x, step in ((audio, samples), (video, pixels))
        )
        # [B, T*P, C] -> [B*T, P, C] and back
        new_video = self._attend(video[..., :c].reshape(b * t, pixels, c), audio_keys)
        own = audio[:, : t * samples, :c].reshape(b * t, samples, c)
        new_audio = self._attend(own, video_keys).reshape(b, t * samples, c)
        left = audio.shape[1] - t * samples  # the last segment takes what T does not divide
        if left:
            keys = video_keys.unflatten(0, (b, t))[:, -1]
            new_audio = torch.cat([new_audio, self._attend(audio[:, -left:, :c], keys)], 1)
        return new_video.reshape(b, -1, c), new_audio


class _CoupledUNet(nn.Module):
    def __init__(self, state: State, config: Mapping[str, Any]):
        super().__init__()
        self.width = config["model_channels"]
        self.time_embed = nn.ModuleList([state.linear(f"time_embed.{i}") for i in (0, 2)])
        first = state.at("input_blocks.0.0")
        self.first_video = _VideoConv(first.at("video_conv"))
        self.first_audio = _AudioConv(first, "audio_conv.audio_conv")
        self._state, self._config = state, config
        self.inputs, number = self._way_down()
        self.middle = self._entry("middle_blocks", [number, number], "none", None)
        self.outputs = self._way_up(number)
        self.norms_out = nn.ModuleList([_norm(state, f"{p}_out.0") for p in ("video", "audio")])
        head = state.at("video_out.2")
        weight, bias = head.take("video_conv.weight"), head.take("video_conv.bias")
        self.video_out = nn.Conv3d(weight.shape[1], len(weight), 3, padding=1, device="meta")
        self.video_out.weight = nn.Parameter(
            weight.contiguous(memory_format=torch.channels_last_3d), False
        )
        self.video_out.bias = nn.Parameter(bias, False)
        self.audio_out = _AudioConv(state.at("audio_out.2"), "audio_conv")
        state.check_used()
        del self._state, self._config

    def _entry(
        self, name: str, numbers: Sequence[int], last: str, window: int | None
    ) -> nn.ModuleList:
        """The layers below `name`; `numbers` of its residual blocks, the last one resampling."""
        state, layers, numbers = self._state.at(name), [], list(numbers)
        i = 0
        while state.has(str(i)):
            if state.has(f"{i}.v_qkv"):
                head_channels = self._config["head_channels"]
                layers.append(_CrossAttention(state.at(str(i)), head_channels, window))
            else:
                if not numbers:
                    raise ValueError(f"{name} has more blocks than the config says; check both")
                dilation = 2 ** (numbers.pop(0) % _MAX_DILATION_POWER)
                ends = not numbers and last != "none"
                layers.append(_ResBlock(state.at(str(i)), dilation, last if ends else "none"))
            i += 1
        return nn.ModuleList(layers)

    def _windows(self) -> list[int | None]:
        """Frames of the windows of every level; None where there is no cross-attention."""
        downsamples = self._config["cross_attention_downsamples"]
        by_level = dict(zip(downsamples, self._config["cross_attention_windows"]))
        return [by_level.get(2**i) for i in range(len(self._config["channel_mult"]))]

    def _way_down(self) -> tuple[nn.ModuleList, int]:
        """All entries but the first, and the number of the block that follows."""
        entries, number, windows = [], 1, self._windows()
        for i, window in enumerate(windows):
            ends = ["none"] * self._config["num_res_blocks"]
            for end in ends + ["down"] * (i < len(windows) - 1):
                name = f"input_blocks.{number}"
                entries.append(self._entry(name, [number], end, window))
                number += 1
        return nn.ModuleList(entries), number

    def _way_up(self, number: int) -> nn.ModuleList:
        entries, windows = [], self._windows()
        for i, window in reversed(list(enumerate(windows))):
            for j in range(self._config["num_res_blocks"] + 1):
                number -= 1
                rises = i > 0 and j == self._config["num_res_blocks"]
                numbers = [number, number - 1] if rises else [number]
                name = f"output_blocks.{len(entries)}"
                entries.append(self._entry(name, numbers, "up" if rises else "none", window))
        return nn.ModuleList(entries)

    def forward(
        self,
        video_BTHWC: torch.Tensor,
        audio_BLC: torch.Tensor,
        t_B: torch.Tensor,
        shifts: Sequence[int],
    ) -> Pair:
        shifts, dtype = list(shifts), self.time_embed[0].weight.dtype
        time_BD = self.time_embed[0](timestep_embedding(t_B, self.width).to(dtype))
        time_BD = F.silu(self.time_embed[1](F.silu(time_BD)))

        def run(entry: nn.ModuleList, x: Pair) -> Pair:
            for layer in entry:
                if isinstance(layer, _CrossAttention):
                    x = layer(*x, None if layer.window is None else shifts.pop(0))
                else:
                    x = layer(*x, time_BD)
            return x

        x = self.first_video(video_BTHWC.to(dtype)), self.first_audio(audio_BLC.to(dtype))
        skips = [x]
        for entry in self.inputs:
            x = run(entry, x)
            skips.append(x)
        x = run(self.middle, x)
        for entry in self.outputs:
            x = run(entry, tuple(torch.cat(pair, -1) for pair in zip(x, skips.pop())))
        video, audio = (F.silu(normalize(norm, y)) for norm, y in zip(self.norms_out, x))
        video = self.video_out(video.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return video.float(), self.audio_out(audio).float()


def coupled_unet(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """The base network, as `coupled_unet.CoupledUNet`.

    Args:
      state_dict: official names and layouts.
      config: `config.model` of configs/mm_diffusion.py without patches; training's fields are not
        read.
    Returns:
      A module from video [B, T, H, W, C], audio [B, L, C], steps [B] and a sequence of shifts,
      int, one for each shifted window, to the noise of both, float32.
    Raises:
      ValueError: patches, or tensors that are missing or have no place.
    """
    patches = config.get("video_patch", 1), config.get("audio_patch", 1)
    if patches != (1, 1):
        raise ValueError(f"video_patch and audio_patch are {patches}; the official network has 1")
    return _CoupledUNet(official_layers.OfficialState(state_dict), config).eval()
