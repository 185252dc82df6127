"""One span of one video -> one clip."""

import dataclasses
import json
import pathlib

from data_prep import spans
from foley_jax.data import records
from foley_jax.media import audio as audio_io
from foley_jax.media import specs, video
from foley_jax.runtime import limits


@dataclasses.dataclass(frozen=True)
class Format:
    """How clips are stored.

    Raises:
      ValueError: a number is not finite or not above zero.
    """

    fps: float
    size: int
    sample_rate_hz: int
    clip_seconds: float
    fit: specs.Fit = "stretch"
    antialias: bool = True

    def __post_init__(self):
        limits.real("fps", self.fps, above=0)
        limits.whole("size", self.size, 1)
        limits.whole("sample_rate_hz", self.sample_rate_hz, 1)
        limits.real("clip_seconds", self.clip_seconds, above=0)

    @property
    def video(self) -> specs.VideoSpec:
        """Rate and size of the frames."""
        return specs.VideoSpec(self.fps, self.size, self.size, self.fit, self.antialias)


def plan_source(
    folder: pathlib.Path,
    source: str,
    split: str,
    format: Format,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> list[spans.Span]:
    """The spans of one source, or of a stretch of it.

    Args:
      folder: where the source lies.
      source, split: go into the spans.
      format: how long a clip is.
      start_s, end_s: the stretch, which ends where the source ends at the latest.
    Raises:
      video.MediaError: unreadable, without video or audio, or too short.
    """
    _check_name(source)
    info = video.probe(folder / source)
    if not info.has_video:
        raise video.MediaError("no_video", f"{source}: has no video stream")
    if not info.has_audio:
        raise video.MediaError("no_audio", f"{source}: has no audio track")
    end_s = info.duration_s if end_s is None else min(end_s, info.duration_s)
    found = spans.cut(source, split, end_s, format.clip_seconds, start_s=start_s)
    if not found:
        after = f" after {start_s:g} s" if start_s else ""
        raise video.MediaError(
            "too_short",
            f"{source}: lasts {max(0.0, end_s - start_s):.2f} s{after}, wanted at least "
            f"{spans.MIN_SECONDS} s",
        )
    return found


def _check_name(source: str) -> None:
    """Raises MediaError: records hold text, and this name is none."""
    try:
        source.encode()
    except UnicodeEncodeError:
        why = f"{source!a}: its name is no UTF-8; rename it"
        raise video.MediaError("bad_name", why) from None


def make_clip(folder: pathlib.Path, span: spans.Span, format: Format) -> records.Clip:
    """Reads one span.

    The clip ends where the video really ends, if the file is cut off before the span's end.

    Raises:
      video.MediaError: the span cannot be read.
    """
    _check_name(span.source)
    path = folder / span.source
    length_s = span.end_s - span.start_s
    frames_THWC = video.read_frames(path, format.video, start_s=span.start_s, duration_s=length_s)
    if len(frames_THWC) < format.video.num_frames(length_s):
        length_s = len(frames_THWC) / format.fps
        if length_s < spans.MIN_SECONDS:
            raise video.MediaError(
                "truncated", f"{span.source}: the video ends at {span.start_s + length_s:.2f} s"
            )
    audio_L = audio_io.load(path, format.sample_rate_hz, start_s=span.start_s, duration_s=length_s)
    end_s = span.start_s + length_s
    labels, events = read_truth(folder / truth_name(span.source), span.start_s, end_s)
    return records.Clip(
        id=span.clip_id,
        split=span.split,
        labels=labels if span.labels is None else list(span.labels),
        source=span.source,
        start_s=span.start_s,
        end_s=round(end_s, 6),
        fps=format.fps,
        frames=records.encode_frames(frames_THWC),
        audio=audio_io.to_pcm16(audio_L),
        sample_rate_hz=format.sample_rate_hz,
        events=events,
    )


def truth_name(source: str) -> str:
    """The file beside a source that tells its labels and true events: NAME.json."""
    return str(pathlib.PurePosixPath(source).with_suffix(".json"))


def read_truth(
    path: pathlib.Path, start_s: float, end_s: float
) -> tuple[list[str], list[dict] | None]:
    """Labels and events within a span, times counted from its start; ([], None) without a file.

    The file is what `data_prep.scenes` writes; any JSON object with `labels` (strings) and
    `events` (objects with `time_s`) will do.

    Raises:
      video.MediaError: "bad_truth" if the file does not hold that.
    """
    if not path.is_file():
        return [], None
    try:
        truth = json.loads(path.read_text())
        labels = [str(label) for label in truth.get("labels", [])]
        if "events" not in truth:
            return labels, None
        events = [
            {**event, "time_s": round(event["time_s"] - start_s, 6)}
            for event in truth["events"]
            if start_s <= event["time_s"] < end_s
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise video.MediaError(
            "bad_truth",
            f"{path.name}: wanted an object with `labels` and `events` (with `time_s`): {error!r}",
        ) from error
    return labels, events
