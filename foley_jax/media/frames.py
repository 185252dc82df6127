"""Decoded frames with their times, as images that are seen as they are meant.

Axis letters: H W C image.
"""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import functools
import warnings

import av
import av.container
import numpy as np

from foley_jax.media import code_values, fitting, geometry, hdr, specs
from foley_jax.media import container as containers

MOST_REORDERED = 16  # frames, in H.264 and H.265
SAID_NOTHING = (None, 0, 2)  # of transfer and primaries


@dataclasses.dataclass(frozen=True)
class Frame:
    """A decoded frame, and how it is meant to be seen.

    Attributes:
      aspect: width of a stored pixel by its height.
      transfer, primaries: of its colours, as `hdr` numbers them.
    """

    frame: av.VideoFrame
    aspect: Fraction
    transfer: int
    primaries: int

    @functools.cached_property
    def geometry(self) -> geometry.Geometry:
        """How it is turned, and the shape of its pixels."""
        return geometry.Geometry(*geometry.turned(self.frame), self.aspect)

    @property
    def is_hdr(self) -> bool:
        """Whether it is toned down for BT.709."""
        return self.transfer in hdr.NAMES

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) upright, in pixels as they are stored."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.geometry.turns % 2 else (height, width)

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) upright, in square pixels."""
        return self.geometry.shown_size(self.frame.height, self.frame.width)

    def pixels(self) -> np.ndarray:
        """Upright [H, W, 3] uint8 RGB in BT.709; pixels are `geometry.turned_aspect` wide."""
        if self.is_hdr:
            return self._toned_down(self.upright_size, cubic=False, antialias=False)
        return self.geometry.upright(self.frame.to_ndarray(format="rgb24"))

    def fitted(self, spec: specs.VideoSpec) -> np.ndarray:
        """[h, w, 3] uint8 RGB in BT.709 at the size of `spec`, see `fitting.fit`."""
        if not self.is_hdr:
            return fitting.fit(self.pixels(), spec, self.shown_size)
        size = fitting.inner_size(self.shown_size, spec)
        cubic = fitting.is_cubic(spec)
        return fitting.framed(self._toned_down(size, cubic=cubic, antialias=spec.antialias), spec)

    def _toned_down(self, size: tuple[int, int], **how: bool) -> np.ndarray:
        planes, to_rgb = code_values.planes(self.frame)
        # resized first: there is less to compute, and chroma needs no other step
        planes = [
            fitting.resample(self.geometry.upright(plane)[..., None], size, **how)
            for plane in planes
        ]
        return hdr.to_bt709(
            np.concatenate(planes, axis=-1) @ to_rgb.T, self.transfer, self.primaries
        )


class Viewer:
    """Makes images of a stream's frames; to be made before the first one is decoded.

    What the container says of the shape of pixels counts more than what frames say, as in ffmpeg,
    and what it says of colours counts where they say nothing.
    """

    def __init__(self, stream: av.video.stream.VideoStream):
        context, stated = stream.codec_context, stream.sample_aspect_ratio
        self._aspect = self._colours = None
        if context is not None:
            self._aspect = stated if stated != context.sample_aspect_ratio else None
            self._colours = context.color_trc, context.color_primaries

    def image(self, frame: av.VideoFrame, stream: av.video.stream.VideoStream) -> Frame:
        """The frame that `stream` has just given."""
        context = stream.codec_context
        aspect = geometry.sane_aspect(self._aspect or context.sample_aspect_ratio)
        of_frame = [
            getattr(frame, name, getattr(context, name))
            for name in ("color_trc", "color_primaries")
        ]
        transfer, primaries = (
            int(stated if own in SAID_NOTHING else own)
            for own, stated in zip(of_frame, self._colours)
        )
        return Frame(frame, aspect, transfer, primaries)


def timed_frames(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    begin_s: float | None = None,
) -> Iterator[tuple[float, float, Frame]]:
    """Yields (time, end, image) in seconds in display order.

    Args:
      container, stream: an open file and its video stream, of which nothing was decoded.
      begin_s: start at the key frame at or before this timestamp; None = at the beginning.
    """
    viewer = Viewer(stream)
    timed = _by_order if container.format.name == "avi" else _by_timestamp

    def read(container, stream):
        told = False
        for time_s, end_s, frame in timed(container, stream):
            image = viewer.image(frame, stream)
            if image.is_hdr and not told:
                what = f"HDR video ({hdr.NAMES[image.transfer]}), toned down to BT.709"
                warnings.warn(containers.MediaWarning(container.name, what), stacklevel=1)
                told = True
            yield time_s, end_s, image

    if begin_s is None:
        return read(container, stream)
    return containers.from_time(container, stream, begin_s, read)


def _by_timestamp(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    period_s = 1 / frame_rate(stream)
    time_s = None
    for frame in containers.decoded(container, stream):
        if frame.pts is not None:
            time_s = float(frame.pts * frame.time_base)
        elif time_s is None:
            time_s = _untimed_start_s(container.name, stream.index, period_s)
        else:  # raw streams carry no times
            time_s += period_s
        length_s = float(frame.duration * frame.time_base) if frame.duration else period_s
        yield time_s, time_s + length_s, frame


def _untimed_start_s(path: str, index: int, period_s: float) -> float:
    """When an image begins whose first frames have no time: counted back from those that have."""
    with containers.open_input(path) as container:
        origin_s = containers.origin_s(container)
        stamps = [p.pts for p in containers.packets(container, container.streams[index]) if p.size]
        tick_s = float(container.streams[index].time_base)
    timed = [pts for pts in stamps if pts is not None]
    if not timed:
        return origin_s
    first = stamps.index(timed[0])
    # packets come in the order of decoding: a few untimed ones lie behind the first timed one
    untimed = stamps[: first + MOST_REORDERED].count(None)
    return min(timed) * tick_s - untimed * period_s


def _by_order(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Times in AVI, which numbers frames in the order of decoding and has no times of display.

    Where frames are stored out of order (B-frames), FFmpeg invents timestamps that jump back and
    forth. A frame leaves the decoder with the number of the packet that pushes it out, which is
    a few behind its own.
    """
    period_s = 1 / frame_rate(stream)
    delay, time_s = _decoder_delay(container.name, stream.index), None
    for frame in containers.decoded(container, stream):
        if frame.dts is not None:
            time_s = float((frame.dts - delay) * frame.time_base)
        else:  # the last ones, which no packet pushes out
            time_s = containers.origin_s(container) if time_s is None else time_s + period_s
        yield time_s, time_s + period_s, frame


def _decoder_delay(path: str, index: int) -> int:
    """How many packets after its own a frame leaves the decoder, seen at a file's first frame."""
    with containers.open_input(path) as container:
        stream = container.streams[index]
        first_dts = None
        for packet in containers.packets(container, stream):
            first_dts = packet.dts if first_dts is None else first_dts
            for frame in containers.frames_of(packet):
                return 0 if None in (frame.dts, first_dts) else frame.dts - first_dts
    return 0


def frame_rate(stream: av.video.stream.VideoStream) -> float:
    """Frames per second, as well as the file tells."""
    return float(stream.average_rate or stream.guessed_rate or 25)


def first_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Frame | None:
    """The first frame that can be decoded, if any."""
    viewer = Viewer(stream)
    frame = next(containers.decoded(container, stream), None)
    return None if frame is None else viewer.image(frame, stream)
