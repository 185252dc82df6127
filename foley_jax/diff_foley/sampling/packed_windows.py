"""Windows of several videos side by side on one latent canvas, the tape.

It holds the videos of a device batch one after the other, each in a whole number of blocks of one
window's width. Windows never reach across two videos, so a video's audio does not depend on its
neighbours on the tape.
Axis letters: N windows, V columns of one, L features, R those of a whole video, D width, K blocks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from foley_jax.diff_foley.sampling import windows as windows_lib
from foley_jax.diffusion import multidiffusion
from foley_jax.runtime import seed_keys


class NoiseSeed(NamedTuple):
    """Origin of an audio clip's noise, besides the name of its video."""

    seed: int
    sample: int = 0


class Request(NamedTuple):
    """An audio clip to make: windows, its video's features [R, D], where its noise comes from."""

    windows: Sequence[windows_lib.Window]
    features_RD: np.ndarray
    name: str
    draw: NoiseSeed


class PackedWindows(NamedTuple):
    """Arguments of a sampling program, padded so that few shapes occur.

    Attributes:
      cover: windows on the tape.
      features_NLD: float32 features of every window.
      times_NL: float32 seconds of the features from the start of their window.
      keys_K: raw key data of every block's noise.
    """

    cover: multidiffusion.WindowLayout
    features_NLD: np.ndarray
    times_NL: np.ndarray
    keys_K: np.ndarray


def block_keys(seed: int, name: str, sample: int, num_blocks: int) -> np.ndarray:
    """Raw key data per block of columns.

    A column's noise is a function of seed, video name, sample and column only: key k of a split
    does not depend on how many there are.
    """
    key = seed_keys.noise_key(seed, name, sample)
    return np.asarray(jax.random.key_data(jax.random.split(key, num_blocks)))


def num_blocks(windows: Sequence[windows_lib.Window], spec: windows_lib.WindowSpec) -> int:
    """Blocks of one window's width that hold all windows."""
    return -(-windows[-1].column // spec.num_columns) + 1


def power_of_two(count: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()


def few_sizes(count: int) -> int:
    """A number that is not less, of few: powers of two, above 16 with three others in between."""
    step = power_of_two(count) // 8 if count > 16 else power_of_two(count)
    return -(-count // step) * step


def divided(requests: Sequence[Request], most: int) -> Iterator[list[Request]]:
    """Requests in order, so many at a time that they have at most `most` windows, or alone."""
    some: list[Request] = []
    for request in requests:
        if some and sum(len(r.windows) for r in [*some, request]) > most:
            yield some
            some = []
        some.append(request)
    if some:
        yield some


def batch_size(count: int, most: int) -> int:
    """Windows to evaluate at once, so that few are computed in vain and few programs compiled.

    One of 1, 2, 3, 4, 6, 8, 12, ... where all fit into one batch; else `most`, or three quarters
    of it where that leaves less of the last batch empty.
    """
    if count <= most:
        above = power_of_two(count)
        return min(most, above * 3 // 4 if above >= 4 and count <= above * 3 // 4 else above)
    choices = (most, most * 3 // 4) if most % 4 == 0 else (most,)
    return min(choices, key=lambda size: (-(-count // size) * size, -size))


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
      spec: lengths of a window.
      max_batch: most windows that one device evaluates at once.
      num_devices: that share a batch.
      room: windows to lay out the tape for, if there are fewer; padding costs less than compiling
        another program does.
    Returns:
      The tape; first column of every audio clip; windows that a device batch holds.
    """
    starts, first, shares, times, keys = [], [], [], [], []
    column = 0
    for request in requests:
        columns = [w.column for w in request.windows]
        count = num_blocks(request.windows, spec)
        starts.append(column)
        first.extend(column + c for c in columns)
        shares.append(windows_lib.weights(columns, spec.num_columns))
        times.append(windows_lib.feature_times(request.windows, spec))
        keys.append(block_keys(request.draw.seed, request.name, request.draw.sample, count))
        column += count * spec.num_columns
    room = max(room, len(first))
    batch = num_devices * batch_size(-(-room // num_devices), max_batch)
    # an audio clip never has more blocks than windows, so one size serves both
    size = batch * few_sizes(-(-room // batch))
    share_NV = np.zeros((size, spec.num_columns), np.float32)  # padding has no share
    share_NV[: len(first)] = np.concatenate(shares)
    first_N = _padded(np.array(first, np.int32), size)
    cover = multidiffusion.WindowLayout(first_N, share_NV, np.int32(len(first)))
    times_NL, keys_K = (_padded(np.concatenate(part), size) for part in (times, keys))
    return PackedWindows(cover, _features(requests, spec, size), times_NL, keys_K), starts, batch


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


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last entry until there are `size`."""
    return array[np.minimum(np.arange(size), len(array) - 1)]
