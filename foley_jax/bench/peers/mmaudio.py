"""MMAudio's flow network in plain torch, as the official code computes it in evaluation.

B batch, N latents, V frames, S synchronisation features, T any of these or text, H heads, D width.
Source: mmaudio/model/networks.py MMAudio, transformer_layers.py, low_level.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foley_jax.bench.peers import official_layers

State = official_layers.OfficialState
SYNC_GROUP = 8


class Conditions(NamedTuple):
    """As `flow_network.Conditions`."""

    clip_BVD: torch.Tensor
    sync_BSD: torch.Tensor
    text_BTD: torch.Tensor
    global_BD: torch.Tensor


class _OverTime(nn.Module):
    """A linear layer, or a convolution that keeps the length: [B, T, C] -> [B, T, O]."""

    def __init__(self, state: State, name: str):
        super().__init__()
        part = state.at(name)
        self.weight = nn.Parameter(part.take("weight"), requires_grad=False)
        bias = part.take("bias") if part.has("bias") else None
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        if self.weight.ndim == 2:
            return F.linear(x_BTC, self.weight, self.bias)
        pad = self.weight.shape[-1] // 2
        return F.conv1d(x_BTC.transpose(1, 2), self.weight, self.bias, padding=pad).transpose(1, 2)


class _Gated(nn.Module):
    def __init__(self, state: State, name: str):
        super().__init__()
        self.w1, self.w2, self.w3 = (_OverTime(state.at(name), f"w{i}") for i in (1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class _Projection(nn.Module):
    """A layer, perhaps an activation, a gated feed-forward: of a version 1 network."""

    def __init__(self, state: State, name: str, activated: bool):
        super().__init__()
        self.layer = _OverTime(state.at(name), "0")
        self.mlp, self.activated = _Gated(state.at(name), "2" if activated else "1"), activated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return self.mlp(F.selu(x) if self.activated else x)


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift


def rotation(
    positions: np.ndarray, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position and pair of channels, float32 [T, 1, width / 2]."""
    frequencies = (10000.0 ** (-np.arange(0, width, 2) / width)).astype(np.float32)
    angles = torch.tensor(np.float32(positions)[:, None, None] * frequencies, device=device)
    return angles.cos(), angles.sin()


def _rotated(x_BTHE: torch.Tensor, by: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    a, b = x_BTHE.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = by
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).type_as(x_BTHE)


class _Stream(nn.Module):
    """One stream's part of a block."""

    def __init__(self, state: State, heads: int):
        super().__init__()
        self.modulation = _OverTime(state, "adaLN_modulation.1")
        self.qkv, self.heads = _OverTime(state, "attn.qkv"), heads
        self.norms = nn.ParameterList(
            nn.Parameter(state.take(f"attn.{name}_norm.weight"), requires_grad=False)
            for name in ("q", "k")
        )
        self.pre_only = not state.has("linear1")
        if not self.pre_only:
            self.linear1, self.ffn = _OverTime(state, "linear1"), _Gated(state, "ffn")

    def before(self, x: torch.Tensor, condition: torch.Tensor, turn: Any):
        shift, scale, *rest = self.modulation(F.silu(condition)).chunk(
            2 if self.pre_only else 6, -1
        )
        # rows are ordered [head][channel][q, k, v]
        qkv = self.qkv(_modulated(x, shift, scale)).unflatten(-1, (self.heads, -1, 3))
        q, k, v = qkv.unbind(-1)
        q, k = (F.rms_norm(y, y.shape[-1:], weight) for y, weight in zip((q, k), self.norms))
        if turn is not None:
            q, k = _rotated(q, turn), _rotated(k, turn)
        return (q, k, v), rest

    def after(self, x: torch.Tensor, seen: torch.Tensor, rest: Sequence[torch.Tensor]):
        if self.pre_only:
            return x
        gate, shift, scale, gate_ffn = rest
        x = x + self.linear1(seen) * gate
        return x + self.ffn(_modulated(x, shift, scale)) * gate_ffn


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[B, T, H, E] -> [B, T, H * E]."""
    heads_first = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first).transpose(1, 2).flatten(2)


class FlowNetwork(nn.Module):
    """A version 1 network: `preprocess` once, then `forward` for every step."""

    def __init__(self, state_dict: Mapping[str, Any], num_heads: int):
        super().__init__()
        state = State(state_dict)
        for name in ("audio", "sync", "clip", "text"):
            activated = name in ("audio", "sync")
            setattr(self, name, _Projection(state, f"{name}_input_proj", activated))
        self.clip_cond, self.text_cond = (
            _OverTime(state, f"{name}_cond_proj") for name in ("clip", "text")
        )
        self.global_mlp = _Gated(state, "global_cond_mlp")
        self.time = nn.ModuleList([_OverTime(state, f"t_embed.mlp.{i}") for i in (0, 2)])
        self.joint, self.fused = nn.ModuleList(), nn.ModuleList()
        while state.has(name := f"joint_blocks.{len(self.joint)}"):
            parts = (state.at(f"{name}.{stream}_block") for stream in ("latent", "clip", "text"))
            self.joint.append(nn.ModuleList(_Stream(part, num_heads) for part in parts))
        while state.has(name := f"fused_blocks.{len(self.fused)}"):
            self.fused.append(_Stream(state.at(name), num_heads))
        self.final_modulation = _OverTime(state, "final_layer.adaLN_modulation.1")
        self.final_conv = _OverTime(state, "final_layer.conv")
        self.sync_pos = nn.Parameter(state.take("sync_pos_emb"), requires_grad=False)
        for name in ("empty_clip_feat", "empty_sync_feat", "empty_string_feat"):
            state.take(name)  # of guidance, which is not timed here
        for name in ("latent_mean", "latent_std"):
            state.take(name)
        state.check_used()
        self.head_dim = self.clip_cond.weight.shape[0] // num_heads

    def preprocess(
        self, clip_BVD: torch.Tensor, sync_BSD: torch.Tensor, text_BTD: torch.Tensor
    ) -> Conditions:
        """As `flow_network.FlowNetwork.preprocess_conditions`."""
        sync = sync_BSD.unflatten(1, (-1, SYNC_GROUP)) + self.sync_pos
        clip, text = self.clip(clip_BVD), self.text(text_BTD)
        means = self.clip_cond(clip.mean(1)) + self.text_cond(text.mean(1))
        return Conditions(clip, self.sync(sync.flatten(1, 2)), text, self.global_mlp(means))

    def forward(
        self, latent_BNC: torch.Tensor, t_B: torch.Tensor, given: Conditions
    ) -> torch.Tensor:
        """As `predict_flow`: float32 [B, N, C]."""
        n, v = latent_BNC.shape[1], given.clip_BVD.shape[1]
        frequencies = 10000.0 ** (-torch.arange(0, 256, 2, device=t_B.device) / 256)
        angle = t_B[:, None] * frequencies
        time = self.time[0](torch.cat([angle.cos(), angle.sin()], -1).type_as(latent_BNC))
        g = (self.time[1](F.silu(time)) + given.global_BD)[:, None]
        stretched = F.interpolate(given.sync_BSD.transpose(1, 2), n, mode="nearest-exact")
        e = g + stretched.transpose(1, 2)
        turns = [
            rotation(positions, self.head_dim, latent_BNC.device)
            for positions in (np.arange(n), np.arange(v) * (n / v))
        ]
        streams = [self.audio(latent_BNC), given.clip_BVD, given.text_BTD]
        for block in self.joint:
            made = [
                part.before(*args) for part, *args in zip(block, streams, (e, g, g), (*turns, None))
            ]
            seen = _attention(*(torch.cat(x, 1) for x in zip(*(qkv for qkv, _ in made))))
            lengths = [x.shape[1] for x in streams]
            streams = [
                part.after(x, own, rest)
                for part, x, own, (_, rest) in zip(block, streams, seen.split(lengths, 1), made)
            ]
        x = streams[0]
        for part in self.fused:
            qkv, rest = part.before(x, e, turns[0])
            x = part.after(x, _attention(*qkv), rest)
        x = _modulated(x, *self.final_modulation(F.silu(g)).chunk(2, -1))
        return self.final_conv(x).float()
