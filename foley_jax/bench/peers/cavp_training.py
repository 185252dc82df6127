"""CAVP's training step in torch: both encoders with BatchNorm of the batch, contrast, AdamW.

B clips, T frames, H W, C channels, F mel bins, L mel frames, D width of a feature.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foley_jax.bench import case
from foley_jax.bench.peers import cavp, official_layers, torch_side, training

State = official_layers.OfficialState


class _ConvNorm(nn.Module):
    """A convolution over the image, or over 3 frames, and its norm."""

    def __init__(self, state: State, stride: int = 1):
        super().__init__()
        shape = state.take("conv.weight").shape
        self.temporal = shape[2] > 1
        padding = (1, 0) if self.temporal else shape[-1] // 2
        self.conv = state.conv("conv", stride=stride, padding=padding)
        self.norm = state.batch_norm("bn")

    def forward(self, x_NCHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        if not self.temporal:
            return self.norm(self.conv(x_NCHW))
        n, c, h, w = x_NCHW.shape
        # views in channels-last memory: [B*T, C, H, W] -> [B, C, T, H*W] and back
        x = x_NCHW.permute(0, 2, 3, 1).reshape(-1, num_frames, h * w, c).permute(0, 3, 1, 2)
        x = self.norm(self.conv(x)).permute(0, 2, 3, 1)
        return x.reshape(n, h, w, -1).permute(0, 3, 1, 2)


class _Bottleneck(nn.Module):
    def __init__(self, state: State, stride: int):
        super().__init__()
        self.conv1 = _ConvNorm(state.at("conv1"))
        self.conv2 = _ConvNorm(state.at("conv2"), stride)
        self.conv3 = _ConvNorm(state.at("conv3"))
        self.shortcut = None
        if state.has("downsample"):
            self.shortcut = _ConvNorm(state.at("downsample"), stride)

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        h = F.relu(self.conv1(x, num_frames))
        h = F.relu(self.conv2(h, num_frames))
        h = self.conv3(h, num_frames)
        return F.relu(h + (x if self.shortcut is None else self.shortcut(x, num_frames)))


class _Video(nn.Module):
    def __init__(self, state: State):
        super().__init__()
        encoder = state.at("video_encoder")
        self.stem = _ConvNorm(encoder.at("conv1"), stride=2)
        blocks, layer = [], 1
        while encoder.has(f"layer{layer}"):
            level, j = encoder.at(f"layer{layer}"), 0
            while level.has(str(j)):
                blocks.append(_Bottleneck(level.at(str(j)), 2 if j == 0 and layer > 1 else 1))
                j += 1
            layer += 1
        self.blocks = nn.ModuleList(blocks)
        self.head = state.linear("video_project_head")

    def forward(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        b, t = frames_BTHWC.shape[:2]
        x = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        x = F.max_pool2d(F.relu(self.stem(x, t)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, t)
        return self.head(x.mean((2, 3))).reshape(b, t, -1)


class _Audio(nn.Module):
    def __init__(self, state: State):
        super().__init__()
        state = state.at("spec_encoder")
        # every mel bin is a channel. Over [B, F, L, 1], as the official network has it, torch 2.13
        # gives wrong gradients on CPUs: it takes those that come back for channels-last ones
        self.norm = state.batch_norm("bn", nn.BatchNorm1d)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for index in range(1, len(cavp._POOLS) + 1):
            block = state.at(f"conv_block{index}")
            for i in (1, 2):
                self.convs.append(block.conv(f"conv{i}", padding=1))
                self.norms.append(block.batch_norm(f"bn{i}"))
        self.fc, self.project = state.linear("fc1"), state.linear("final_project")

    def forward(self, mel_BFL: torch.Tensor) -> torch.Tensor:
        x = self.norm(mel_BFL)[..., None]
        x = x.permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = F.relu(norm(conv(x)))
            pool = cavp._POOLS[i // 2]
            if i % 2 and pool != (1, 1):
                x = F.avg_pool2d(x, pool)
        x = x.mean(3)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        x = F.relu(self.fc(x.transpose(1, 2)))
        return self.project(F.relu(self.fc(x)))


class _Both(nn.Module):
    def __init__(self, state: State):
        super().__init__()
        self.video, self.audio = _Video(state), _Audio(state)
        self.logit_scale = nn.Parameter(state.take("logit_scale"))


def _symmetric(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of [..., K, K] logits in both directions; the diagonal holds the pairs."""
    k = logits.shape[-1]
    features, columns = logits.reshape(-1, k), logits.transpose(-1, -2).reshape(-1, k)
    own = torch.arange(k, device=logits.device).repeat(len(features) // k)
    return 0.5 * (F.cross_entropy(features, own) + F.cross_entropy(columns, own))


def peers(
    state: Mapping[str, np.ndarray],
    frames_BTHWC: np.ndarray,
    mel_BFL: np.ndarray,
    num_clips: int,
    optimizer: Mapping[str, Any],
    *,
    ours: str,
) -> dict[str, case.Peer]:
    """One update.

    Args:
      state: official state dict.
      frames_BTHWC: uint8, clip-fastest.
      mel_BFL: log-mels of the same clips.
      num_clips: of one video.
      optimizer, ours: see `training.step`.
    """
    module = _Both(State(state)).train()
    module = training.trained(torch_side.placed(module))
    frames, mel = torch_side.tensor(frames_BTHWC), torch_side.tensor(mel_BFL)

    def loss() -> torch.Tensor:
        video, audio = module.video(frames.float() / 255.0), module.audio(mel)
        video, audio = (F.normalize(x.float().amax(1), dim=-1) for x in (video, audio))
        logits = module.logit_scale.exp() * video @ audio.T
        blocks = logits.unflatten(0, (-1, num_clips)).unflatten(2, (-1, num_clips))
        # [V, K, V, K] -> [V, K, K]: clips of one video
        blocks = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        return _symmetric(logits) + _symmetric(blocks)

    return training.step(loss, (module,), optimizer, ours)
