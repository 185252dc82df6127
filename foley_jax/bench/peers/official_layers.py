"""torch layers filled from a state dict of an official checkpoint, by the official names.

A peer takes the very state dict that the converter takes, so one fill serves both sides.
Peers import torch, and whoever wants one imports it when it is wanted.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class OfficialState:
    """The state dict below one name; remembers what was taken.

    Raises:
      ValueError: a tensor that is not there, or, by `check_used`, one that nobody took.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = "", taken: set[str] | None = None):
        self._values, self._prefix = values, prefix
        self._taken = set() if taken is None else taken

    def at(self, name: str) -> "OfficialState":
        """Returns what lies below `name`."""
        return OfficialState(self._values, f"{self._prefix}{name}.", self._taken)

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name, or one below it."""
        name = self._prefix + name
        return name in self._values or any(key.startswith(f"{name}.") for key in self._values)

    def take(self, name: str) -> torch.Tensor:
        """A tensor of its own memory."""
        name = self._prefix + name
        if name not in self._values:
            raise ValueError(f"the state dict has no {name!r}; give one of the official format")
        self._taken.add(name)
        return torch.tensor(np.asarray(self._values[name]))

    def check_used(self) -> None:
        """Raises ValueError if tensors below this name, other than counters, were not taken."""
        left = [
            key
            for key in self._values
            if key.startswith(self._prefix)
            and key not in self._taken
            and not key.endswith("num_batches_tracked")
        ]
        if left:
            raise ValueError(f"{len(left)} tensors have no place in the peer: {left[:5]}")

    def linear(self, name: str) -> nn.Linear:
        """A dense layer, or a 1x1 convolution seen as one."""
        part = self.at(name)
        weight = part.take("weight").flatten(1)
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        return _filled(layer, weight, part.take("bias"))

    def conv(self, name: str, **options: Any) -> nn.Conv2d:
        """A 2-D convolution in channels-last memory; `options` as of `nn.Conv2d`.

        A kernel over time alone, [out, in, k] or [out, in, k, 1, 1], becomes [out, in, k, 1]; one
        over the image alone, [out, in, 1, h, w], becomes [out, in, h, w].
        """
        part = self.at(name)
        weight = part.take("weight")
        if weight.ndim == 3:
            weight = weight[..., None]
        elif weight.ndim == 5 and weight.shape[2] == 1:
            weight = weight[:, :, 0]
        elif weight.ndim == 5:
            weight = weight[..., 0]
        bias = part.take("bias") if part.has("bias") else None
        out_channels, in_channels, *kernel = weight.shape
        layer = nn.Conv2d(
            in_channels, out_channels, kernel, bias=bias is not None, device="meta", **options
        )
        return _filled(layer, weight.contiguous(memory_format=torch.channels_last), bias)

    def group_norm(self, name: str, num_groups: int, epsilon: float) -> nn.GroupNorm:
        """Group normalisation."""
        part = self.at(name)
        weight = part.take("weight")
        layer = nn.GroupNorm(num_groups, len(weight), epsilon, device="meta")
        return _filled(layer, weight, part.take("bias"))

    def batch_norm(self, name: str, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
        """Batch normalisation with torch's epsilon, by its running statistics."""
        part = self.at(name)
        weight = part.take("weight")
        layer = kind(len(weight), device="meta")
        layer.running_mean, layer.running_var = part.take("running_mean"), part.take("running_var")
        layer.num_batches_tracked = torch.zeros((), dtype=torch.int64)
        return _filled(layer, weight, part.take("bias"))


def _filled(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer.eval()
