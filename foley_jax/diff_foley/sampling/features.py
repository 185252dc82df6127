"""CAVP features of a whole video: what the latent diffusion model is conditioned on.

Axes: T frames, H W, C channels, D width.
Source: inference/demo_util.py `Extract_CAVP_Features`.
"""

from collections.abc import Iterable, Iterator
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diff_foley.models import cavp
from foley_jax.runtime import grouped, partition

GROUP_FRAMES = 40  # official "batch_size": frames the temporal convolutions see together
# Frames on either side that can reach a feature: the paper's encoder has nine three-tap
# convolutions
REACH_FRAMES = 10

EncodeFn = grouped.EncodeFn


def encode_frames(model: cavp.Cavp, frames_BTHWC: jax.Array) -> jax.Array:
    """Unit features [B, T, D] of uint8 frames [B, T, H, W, 3]; runs inside jit."""
    frames = partition.shard_batch(frames_BTHWC).astype(jnp.float32) / 255.0
    return model.encode_video(frames, normalize=True, pool=False, train=False)


def group_bounds(num_frames: int, group_frames: int = GROUP_FRAMES) -> list[tuple[int, int]]:
    """Consecutive [start, stop) groups; the last one may be shorter."""
    if group_frames < 1:
        raise ValueError(f"group_frames is {group_frames}, expected at least 1")
    return [
        (start, min(start + group_frames, num_frames))
        for start in range(0, num_frames, group_frames)
    ]


def extract_batch(
    encode_fn: EncodeFn, frames_BTHWC: np.ndarray, *, group_frames: int = GROUP_FRAMES
) -> np.ndarray:
    """Features of several videos of equal length, in the official grouping.

    The temporal convolutions see zeros at both ends of every group, so a short group is run at
    its own length (one more compilation) and never padded: padding would change its numbers.

    Args:
      encode_fn: uint8 [B, T, H, W, 3] -> unit features [B, T, D], jitted.
      frames_BTHWC: uint8 frames at CAVP's rate and size.
      group_frames: frames encoded together; a model setting, keep the official 40.
    Returns:
      float32 [B, T, D], features of length one.
    Raises:
      ValueError: the frames have another shape or type, or there are none.
    """
    frames = np.asarray(frames_BTHWC)
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 [B, T, H, W, 3]"
        )
    if frames.shape[1] == 0:
        raise ValueError("the video has no frames")
    groups = [
        np.asarray(encode_fn(frames[:, start:stop]), np.float32)
        for start, stop in group_bounds(frames.shape[1], group_frames)
    ]
    return np.concatenate(groups, axis=1)


def extract(
    encode_fn: EncodeFn, frames_THWC: np.ndarray, *, group_frames: int = GROUP_FRAMES
) -> np.ndarray:
    """Features [T, D] of one video; see `extract_batch`."""
    return extract_batch(encode_fn, np.asarray(frames_THWC)[None], group_frames=group_frames)[0]


def extract_seamless_batch(
    encode_fn: EncodeFn,
    frames_BTHWC: np.ndarray,
    *,
    group_frames: int = GROUP_FRAMES,
    reach_frames: int = REACH_FRAMES,
) -> np.ndarray:
    """Features [B, T, D] of videos of one length as if they had been encoded in one piece.

    The official groups see zeros at every border, here only the ends of the video do: longer
    videos are encoded in groups that overlap by more than the encoder's reach. Up to
    `group_frames` frames this is `extract_batch`.

    Args:
      encode_fn, frames_BTHWC: see `extract_batch`.
      group_frames: new features that a group brings.
      reach_frames: frames on either side that only lend their context.
    """
    groups = seamless_groups(
        np.moveaxis(np.asarray(frames_BTHWC), 1, 0),
        group_frames=group_frames,
        reach_frames=reach_frames,
    )
    most = group_frames + 2 * reach_frames
    parts = [extract_batch(encode_fn, f, group_frames=most)[:, own] for f, own in groups]
    return np.concatenate(parts, axis=1)


def extract_seamless(
    encode_fn: EncodeFn,
    frames_THWC: np.ndarray,
    *,
    group_frames: int = GROUP_FRAMES,
    reach_frames: int = REACH_FRAMES,
) -> np.ndarray:
    """Features [T, D] of one video; see `extract_seamless_batch`."""
    groups = {"group_frames": group_frames, "reach_frames": reach_frames}
    return extract_seamless_batch(encode_fn, np.asarray(frames_THWC)[None], **groups)[0]


def seamless_groups(
    frames: Iterable[np.ndarray],
    *,
    group_frames: int = GROUP_FRAMES,
    reach_frames: int = REACH_FRAMES,
) -> Iterator[grouped.Group]:
    """The groups of `extract_seamless_batch`, of a video of any length.

    All but that of a short video have one shape, so that one program serves them. No more frames
    than those of two groups are held.

    Args:
      frames: in order, uint8 [..., H, W, 3].
      group_frames, reach_frames: see `extract_seamless_batch`.
    Raises:
      ValueError: there are none.
    """
    group = group_frames + 2 * reach_frames
    held, new = [], 0  # `new`: the first of them that has no feature yet
    for frame in frames:
        start = max(0, new - reach_frames)
        if len(held) - start == group:
            yield _stacked(held[start:]), slice(new - start, group - reach_frames)
            held, new = held[start:], group - reach_frames
        held.append(frame)
    start = max(0, len(held) - group)
    yield _stacked(held[start:]), slice(new - start, len(held) - start)


def official_groups(
    frames: Iterable[np.ndarray], *, group_frames: int = GROUP_FRAMES
) -> Iterator[grouped.Group]:
    """The groups of `extract_batch`, side by side; see `seamless_groups`."""
    frames = iter(frames)
    first = list(itertools.islice(frames, group_frames))
    yield _stacked(first), slice(None)
    while group := list(itertools.islice(frames, group_frames)):
        yield _stacked(group), slice(None)


def _stacked(frames: list[np.ndarray]) -> np.ndarray:
    if not frames:
        raise ValueError("the video has no frames")
    return np.stack(frames, axis=-4)
