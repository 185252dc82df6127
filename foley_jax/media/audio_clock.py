"""When decoded audio begins, to the sample, in containers that count in milliseconds.

Matroska, WebM, FLV and ASF round every timestamp to 1 ms, which is 16 samples at 16 kHz. The length
of the audio between two timestamps is known to the sample, so that many roundings together tell
the time exactly; and where all packets are alike, so does their number since the track's beginning.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import pathlib

import numpy as np

from foley_jax.media import container as containers

GRID_CHUNKS = 64  # read at the beginning of a track to find out where its packets lie
VARIABLE_CODECS = ("vorbis",)  # may begin with packets of one length and go on with others


@dataclasses.dataclass(frozen=True)
class Start:
    """When a run of contiguous audio begins, and how far off that may be, in seconds."""

    time_s: float
    unsure_s: float


@dataclasses.dataclass(frozen=True)
class Grid:
    """Packets of one length, one after the other: one ends at `anchor_s`, all last `step_s`."""

    anchor_s: float
    step_s: float


def run_start(
    times_s: Sequence[float | None], lengths: Sequence[int], rate_hz: int, tick_s: float
) -> Start:
    """When a run of contiguous chunks begins on the container's clock.

    Args:
      times_s: rounded timestamps of the chunks; None where there is none, not everywhere.
      lengths: their samples.
      rate_hz: rate of the audio.
      tick_s: what timestamps are rounded to.
    """
    ends = np.cumsum([0, *lengths[:-1]]) / rate_hz
    starts_s = [t - end for t, end in zip(times_s, ends) if t is not None]
    if len(starts_s) > 2 and lengths[0] < lengths[1]:
        starts_s = starts_s[1:]  # priming was cut off the first one: its time is rounded twice
    low, high = min(starts_s), max(starts_s)
    if high - low > tick_s + 2 / rate_hz:  # more than rounding: clocks that drift or jump
        return Start(float(np.median(starts_s)), 0.0)
    if times_s[0] == 0:  # a track is begun at 0 exactly
        return Start(0.0, 0.0)
    return Start((low + high) / 2, max(0.0, tick_s - (high - low)))


def find_grid(path: str | pathlib.Path, index: int) -> Grid | None:
    """Where the packets of a track lie, if all but the first are of one length; else None.

    Args:
      path: the file.
      index: number of the stream.
    """
    with containers.open_input(path) as container:
        stream = container.streams[index]
        frames = itertools.islice(containers.decoded(container, stream), GRID_CHUNKS)
        chunks = [
            (None if f.pts is None else float(f.pts * f.time_base), f.samples, f.sample_rate)
            for f in frames
        ]
        tick_s, codec = float(stream.time_base), stream.codec_context.name
    if len(chunks) < 3 or chunks[0][0] is None or codec in VARIABLE_CODECS:
        return None
    times_s, lengths, rates = zip(*chunks)
    if len(set(lengths[1:-1])) != 1 or len(set(rates)) != 1:
        return None
    begin_s = run_start(times_s, lengths, rates[0], tick_s).time_s
    return Grid(begin_s + lengths[0] / rates[0], lengths[1] / rates[0])


def on_grid(start: Start, lengths: Sequence[int], rate_hz: int, grid: Grid) -> float:
    """Moves the start of a run onto the grid, unless that is farther than rounding explains.

    Where all roundings are alike, the codec's delay may have been rounded, too: the start may be
    off by one and a half times of what one rounding explains. The first and last chunk may be
    shorter than a step; otherwise the run is not moved.
    """
    step = round(grid.step_s * rate_hz)
    if len(lengths) < 3 or set(lengths[1:-1]) != {step}:
        return start.time_s
    before_s = lengths[0] / rate_hz
    steps = (start.time_s + before_s - grid.anchor_s) / grid.step_s
    moved_s = grid.anchor_s + round(steps) * grid.step_s - before_s
    near = abs(moved_s - start.time_s) <= 1.5 * start.unsure_s + 1 / rate_hz
    return moved_s if near else start.time_s
