"""torch's DataLoader over our shards."""

from collections.abc import Callable
import itertools
from typing import Any

import numpy as np

from foley_jax.bench import case


def peer(source: Any, transform: Callable, batch: int, count: int, output: Callable) -> case.Peer:
    """Batches of a shuffled, endlessly repeated map-style data set.

    Args:
      source: `len` and clips by index.
      transform: (source, index, generator) -> example.
      count: of batches in a call.
      output: see `case.Peer`.
    """
    import torch

    class Examples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(source)

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            return dict(transform(source, index, np.random.default_rng(index)))

    loader = torch.utils.data.DataLoader(Examples(), batch, shuffle=True, drop_last=True)

    def repeated():
        while True:
            yield from loader

    batches = repeated()
    return case.Peer(lambda: list(itertools.islice(batches, count)), output)
