"""Features of the frames of several videos, encoded in batches of one shape.

Axes: B groups, T frames, H W, C channels, D width.
"""

from collections.abc import Callable, Iterable

import jax
import numpy as np

# (uint8 [B, T, H, W, 3]) -> float32 features [B, T', D], compiled once per shape
EncodeFn = Callable[[np.ndarray], jax.Array]
# frames uint8 [..., T, H, W, 3], and which of their features are wanted
Group = tuple[np.ndarray, slice]


def encode(
    encode_fn: EncodeFn, videos: Iterable[Iterable[Group]], *, batch: int = 1
) -> list[np.ndarray]:
    """Features [T, D] of videos of any lengths, given as their groups.

    Args:
      encode_fn: frames [B, T, ...] -> features [B, T', D], jitted.
      videos: of each its groups, frames [T, H, W, 3]; walked through once, one after the other.
      batch: groups of one shape that go through the encoder at once, of whatever videos.
    """
    features: list[dict[int, np.ndarray]] = []  # of each video: number of a group -> its features
    waiting: dict[tuple[int, ...], list[tuple[int, int, Group]]] = {}

    def run(some: list[tuple[int, int, Group]]) -> None:
        frames = [frames for _, _, (frames, _) in some]
        frames += frames[-1:] * (batch - len(frames))
        features_BTD = np.asarray(encode_fn(np.stack(frames)), np.float32)
        for features_TD, (video, number, (_, own)) in zip(features_BTD, some):
            features[video][number] = features_TD[own]
        some.clear()

    for video, groups in enumerate(videos):
        features.append({})
        for number, group in enumerate(groups):
            some = waiting.setdefault(group[0].shape, [])
            some.append((video, number, group))
            if len(some) == batch:
                run(some)
    for some in filter(None, waiting.values()):
        run(some)
    return [np.concatenate([own[number] for number in sorted(own)]) for own in features]
