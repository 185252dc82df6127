"""CAVP's encoders in plain torch: what a user of the official code would run.

The official 3-D convolutions have kernels 1xkxk or 3x1x1; here they are 2-D convolutions over B*T
frames, or over time and pixels, which torch computes faster. BatchNorm is folded into them by
torch's own `fuse_conv_bn_eval`, and memory is channels-last throughout.
B batch, T frames, N = B*T, H W, C channels, F mel bins, L mel frames, D width of a feature.
Source: inference/model/cavp_modules.py `ResNet3dSlowOnly`, `Cnn14`; cavp_model.py.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from foley_jax.bench.peers import official_layers

_POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (1, 2), (1, 1))  # (time, frequency) per block


class _Conv(nn.Module):
    """A convolution with its BatchNorm folded in: over the image, or over 3 frames."""

    def __init__(self, state: official_layers.OfficialState, stride: int = 1):
        super().__init__()
        self.temporal = state.take("conv.weight").shape[2] > 1
        kernel = state.take("conv.weight").shape[-1]
        padding = (1, 0) if self.temporal else kernel // 2
        conv = state.conv("conv", stride=stride, padding=padding)
        self.conv = fusion.fuse_conv_bn_eval(conv, state.batch_norm("bn"))

    def forward(self, x_NCHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        if not self.temporal:
            return self.conv(x_NCHW)
        n, c, h, w = x_NCHW.shape
        # in channels-last memory these are views: [B*T, C, H, W] -> [B, C, T, H*W]
        x = x_NCHW.permute(0, 2, 3, 1).reshape(-1, num_frames, h * w, c).permute(0, 3, 1, 2)
        x = self.conv(x).permute(0, 2, 3, 1)
        return x.reshape(n, h, w, -1).permute(0, 3, 1, 2)  # back to [B*T, C, H, W]


class _Bottleneck(nn.Module):
    """1x1x1 (or 3x1x1) -> 1x3x3 (spatial stride) -> 1x1x1, added to the shortcut."""

    def __init__(self, state: official_layers.OfficialState, stride: int):
        super().__init__()
        self.conv1 = _Conv(state.at("conv1"))
        self.conv2 = _Conv(state.at("conv2"), stride)
        self.conv3 = _Conv(state.at("conv3"))
        self.shortcut = _Conv(state.at("downsample"), stride) if state.has("downsample") else None

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        h = F.relu_(self.conv1(x, num_frames))
        h = F.relu_(self.conv2(h, num_frames))
        h = self.conv3(h, num_frames)
        h += x if self.shortcut is None else self.shortcut(x, num_frames)
        return F.relu_(h)


class _VideoEncoder(nn.Module):
    def __init__(self, state: official_layers.OfficialState):
        super().__init__()
        encoder = state.at("video_encoder")
        self.stem = _Conv(encoder.at("conv1"), stride=2)
        self.blocks = nn.ModuleList()
        layer = 1
        while encoder.has(f"layer{layer}"):
            blocks, j = encoder.at(f"layer{layer}"), 0
            while blocks.has(str(j)):
                stride = 2 if j == 0 and layer > 1 else 1
                self.blocks.append(_Bottleneck(blocks.at(str(j)), stride))
                j += 1
            layer += 1
        encoder.check_used()
        self.head = state.linear("video_project_head")

    def forward(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        b, t = frames_BTHWC.shape[:2]
        # a view in channels-last memory: [B, T, H, W, C] -> [B*T, C, H, W]
        x = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        x = F.max_pool2d(F.relu_(self.stem(x, t)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, t)
        features = self.head(x.mean((2, 3)))
        return F.normalize(features.reshape(b, t, -1).float(), dim=-1)


class _AudioEncoder(nn.Module):
    def __init__(self, state: official_layers.OfficialState):
        super().__init__()
        state = state.at("spec_encoder")
        self.norm = state.batch_norm("bn")
        self.convs = nn.ModuleList()
        for index in range(1, len(_POOLS) + 1):
            block = state.at(f"conv_block{index}")
            for i in (1, 2):
                conv = block.conv(f"conv{i}", padding=1)
                self.convs.append(fusion.fuse_conv_bn_eval(conv, block.batch_norm(f"bn{i}")))
        self.fc = state.linear("fc1")
        self.project = state.linear("final_project")
        state.check_used()

    def forward(self, mel_BFL: torch.Tensor) -> torch.Tensor:
        x = self.norm(mel_BFL[..., None])  # every mel bin is a channel
        # [B, F, L, 1] -> [B, 1, L, F] in channels-last memory
        x = x.permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        for i, pool in enumerate(_POOLS):
            x = F.relu_(self.convs[2 * i](x))
            x = F.relu_(self.convs[2 * i + 1](x))
            if pool != (1, 1):
                x = F.avg_pool2d(x, pool)
        x = x.mean(3)  # [B, C, L', F'] -> [B, C, L']
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        x = F.relu_(self.fc(x.transpose(1, 2)))
        x = self.project(F.relu_(self.fc(x)))  # the official network applies one layer twice
        return F.normalize(x.float(), dim=-1)


def video_encoder(state_dict: Mapping[str, Any]) -> nn.Module:
    """CAVP's features of images, as `Cavp.encode_video`.

    Args:
      state_dict: official names and layouts, of any depths and widths with the official stem; only
        `video_encoder.*` and `video_project_head.*` are read.
    Returns:
      A module from float [B, T, H, W, 3], RGB in [0, 1], to unit features float32 [B, T, D].
    Raises:
      ValueError: tensors that are missing or have no place.
    """
    return _VideoEncoder(official_layers.OfficialState(state_dict)).eval()


def audio_encoder(state_dict: Mapping[str, Any]) -> nn.Module:
    """CAVP's features of audio, as `Cavp.encode_spec`.

    Args:
      state_dict: official names and layouts; only `spec_encoder.*` is read.
    Returns:
      A module from float [B, F, L], log-mel in [0, 1], to unit features float32 [B, L // 16, D].
    Raises:
      ValueError: tensors that are missing or have no place.
    """
    return _AudioEncoder(official_layers.OfficialState(state_dict)).eval()
