"""A video stream copied packet by packet into another container, and whether it looks alike.

What a container cannot say is lost without an error: that frames are hidden (edit lists), that
pixels are no squares, that a video is turned, what its colours mean. So a copy is looked at.
"""

from collections.abc import Iterator
import pathlib

import av
import av.container
import av.error
import numpy as np

from foley_jax.media import container as containers
from foley_jax.media import frames as frames_lib
from foley_jax.media import specs

TIME_SLACK_S = 2e-3  # containers round timestamps to 1 ms (Matroska) and finer
# A file's second 0 is that of its first packet, which may be the new audio's run-up (Matroska)
RUN_UP_S = 0.03
LOOK = specs.VideoSpec(height=64, width=64, fit="letterbox")  # at a first frame
# sample entries that say where parameter sets are; Apple's players want them in front
WITH_SETS_IN_FRONT = {"hev1": "hvc1", "dvhe": "dvh1"}


class CannotCopyError(Exception):
    """The output container does not take these packets."""


class VideoCopy:
    """A video stream on its way into an output container.

    Attributes:
      shown_s: when each shown frame begins, from the clip's second 0; in order of decoding.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        stream: av.video.stream.VideoStream,
        out: av.container.OutputContainer,
        sample_entry: str | None,
    ):
        """Adds a stream to `out`.

        Args:
          source, stream: what is copied.
          out: where to.
          sample_entry: one of `sample_entries`.
        Raises:
          CannotCopyError: it takes no stream of this kind.
        """
        self._source, self._stream = source, stream
        try:
            # opaque: without opening an encoder, which would describe its own stream
            self._target = out.add_stream_from_template(stream, opaque=True)
        except (av.error.FFmpegError, ValueError) as error:
            raise CannotCopyError from error
        context = self._target.codec_context
        if sample_entry is not None:
            context.codec_tag = sample_entry
        if stream.sample_aspect_ratio:  # the source's container may be the only one who says it
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        self.shown_s: list[float] = []

    def packets(self) -> Iterator[tuple[av.Packet, float]]:
        """The packets, second 0 moved to 0, and when the last of what they show ends, in seconds.

        Hidden packets at the end are left out: nothing depends on them, and an mp4 that we write
        could not hide them.

        Raises:
          CannotCopyError: they have no times.
        """
        stream, end_s = self._stream, 0.0
        period = round(1 / (frames_lib.frame_rate(stream) * stream.time_base))
        hidden: list[av.Packet] = []
        for packet in self._retimed():
            packet.stream = self._target
            if packet.is_discard:
                hidden.append(packet)
                continue
            yield from ((one, end_s) for one in hidden)
            hidden = []
            self.shown_s.append(float(packet.pts * stream.time_base))
            end_s = max(end_s, float((packet.pts + (packet.duration or period)) * stream.time_base))
            yield packet, end_s

    def _retimed(self) -> Iterator[av.Packet]:
        origin = round(containers.origin_s(self._source) / self._stream.time_base)
        for packet in containers.packets(self._source, self._stream):
            if packet.dts is None and packet.pts is None:
                continue  # the flush packet
            if packet.pts is None:
                raise CannotCopyError  # old AVI: display order is known only to the decoder
            packet.pts -= origin
            if packet.dts is not None:
                packet.dts -= origin
            yield packet


def sample_entries(
    source: av.container.InputContainer, stream: av.video.stream.VideoStream, format: str
) -> list[str | None]:
    """Returns what an output container may call an image's codec, best first.

    None is FFmpeg's choice.

    Args:
      source, stream: the video.
      format: of the output, see `writing.FORMATS`.
    """
    context = stream.codec_context
    if context is None or format not in ("mp4", "mov"):
        return [None]
    own = context.codec_tag if source.format.name.startswith("mov") else "\0" * 4
    if context.name == "hevc" and own == "\0" * 4:
        own = "hev1"
    if context.extradata:
        own = WITH_SETS_IN_FRONT.get(own, own)
    return [None] if own == "\0" * 4 else [own, None]


def shows_the_same(
    original: str | pathlib.Path, copy: str | pathlib.Path, shown_s: list[float]
) -> bool:
    """Whether a copy's frames are shown when the original's are, and its first one looks alike.

    Args:
      original, copy: the files.
      shown_s: `VideoCopy.shown_s`.
    """
    with containers.open_input(copy) as container:
        stream, origin_s = containers.video_stream(container), containers.origin_s(container)
        found_s = [
            float(packet.pts * packet.time_base) - origin_s
            for packet in containers.packets(container, stream)
            if packet.size and packet.pts is not None and not packet.is_discard
        ]
    if len(found_s) != len(shown_s):
        return False
    late_s = np.sort(found_s) - np.sort(shown_s)
    in_time = np.all(np.abs(late_s - late_s[0]) <= TIME_SLACK_S) and abs(late_s[0]) <= RUN_UP_S
    return bool(in_time) and _look(original) == _look(copy)


def _look(path: str | pathlib.Path) -> tuple | None:
    """Size and pixels of a file's first frame; None if there is none."""
    with containers.open_input(path) as container:
        first = frames_lib.first_frame(container, containers.video_stream(container))
        if first is None:
            return None
        return first.shown_size, first.transfer, first.fitted(LOOK).tobytes()
