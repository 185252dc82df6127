"""Windows of several videos side by side on one latent canvas, the tape.

It holds the videos of a device batch one after the other, each in a whole number of blocks of one
window's width. Windows never reach across two videos, so a video's audio does not depend on its
neighbours on the tape.
Axis letters: N windows, V columns of one, L features, R those of a whole video, D width, K blocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foley_jax.diffusion import known as known_lib
from foley_jax.diffusion import multidiffusion, tape
from foley_jax.diffusion import windows as windows_lib
from foley_jax.runtime import seed_keys


class NoiseSeed(NamedTuple):
    """Origin of an audio clip's noise, besides the name of its video."""

    seed: int
    sample: int = 0


class Request(NamedTuple):
    """An audio clip to make.

    Windows, its video's features [R, D], where its noise comes from, what is known of it, and
    latents [H, W, C] that are varied.
    """

    windows: Sequence[windows_lib.Window]
    features_RD: np.ndarray
    name: str
    draw: NoiseSeed
    kept: known_lib.KnownColumns | None = None
    varied_HWC: np.ndarray | None = None


class PackedWindows(NamedTuple):
    """Arguments of a sampling program, padded so that few shapes occur.

    Attributes:
      cover: windows on the tape.
      features_NLD: float32 features of every window.
      times_NL: float32 seconds of the features from the start of their window.
      keys_K: raw key data of every block's noise.
      kept: columns of the tape that are known, if any.
      varied_HWC: latents that sampling begins with, noised, if any.
    """

    cover: multidiffusion.WindowLayout
    features_NLD: np.ndarray
    times_NL: np.ndarray
    keys_K: np.ndarray
    kept: known_lib.KnownColumns | None = None
    varied_HWC: np.ndarray | None = None


def pack_windows(
    requests: Sequence[Request],
    spec: windows_lib.WindowSpec,
    max_batch: int,
    *,
    num_devices: int = 1,
    room: int = 0,
) -> tuple[PackedWindows, list[int], int]:
    """Lays audio clips one after the other on a tape.

    Args:
      requests: the audio clips.
      spec, max_batch, num_devices, room: see `tape.lay_out`.
    Returns:
      The tape; first column of every audio clip; windows that a device batch holds.
    """
    laid = tape.lay_out(
        [r.windows for r in requests], spec, max_batch, num_devices=num_devices, room=room
    )
    times = [windows_lib.feature_times(r.windows, spec) for r in requests]
    keys = [
        seed_keys.block_keys(r.draw.seed, r.name, r.draw.sample, count)
        for r, count in zip(requests, laid.blocks)
    ]
    times_NL, keys_K = (tape.padded(np.concatenate(part), laid.size) for part in (times, keys))
    features_NLD = _features(requests, spec, laid.size)
    count = laid.size * spec.num_columns
    kept = known_lib.columns_on_tape([r.kept for r in requests], laid.starts, count)
    varied_HWC = known_lib.on_tape([r.varied_HWC for r in requests], laid.starts, count)
    packed = PackedWindows(laid.cover, features_NLD, times_NL, keys_K, kept, varied_HWC)
    return packed, laid.starts, laid.batch


def _features(requests: Sequence[Request], spec: windows_lib.WindowSpec, size: int) -> np.ndarray:
    """Features of all windows, then the last ones again: the largest array, so without copies."""
    width, at = requests[0].features_RD.shape[1], 0
    features_NLD = np.empty((size, spec.num_features, width), np.float32)
    for request in requests:
        stop = at + len(request.windows)
        features_NLD[at:stop] = windows_lib.window_features(
            request.features_RD, request.windows, spec
        )
        at = stop
    features_NLD[at:] = features_NLD[at - 1]
    return features_NLD
