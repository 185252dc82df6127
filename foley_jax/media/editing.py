"""Audio that is there already: kept to the sample but for a span, or varied as a whole."""

from typing import NamedTuple

import numpy as np

from foley_jax.media import fades, level

SHORTER_S = 0.1  # that audio to vary may be than its video; silence fills the rest
FADE_S = 0.02  # from the kept audio to the new one, within the span


class Kept(NamedTuple):
    """Audio that is known, but for a span.

    Attributes:
      audio_L: float32 [samples] at the model's rate; of any length.
      start_s, stop_s: what is made anew.
    """

    audio_L: np.ndarray
    start_s: float
    stop_s: float


def checked(span: tuple[float, float], duration_s: float) -> tuple[float, float]:
    """Returns a span within a video.

    Raises:
      ValueError: it is none, or begins after the video's end.
    """
    start_s, stop_s = (float(edge) for edge in span)
    if not 0 <= start_s < stop_s or start_s >= duration_s:
        raise ValueError(
            f"the span to regenerate is {start_s:g} to {stop_s:g} s, expected a beginning of at "
            f"least 0, before its end and before that of the video ({duration_s:g} s)"
        )
    return start_s, min(stop_s, duration_s)


def whole(audio_L: np.ndarray, rate_hz: int, duration_s: float) -> Kept:
    """Returns audio to be varied, all of which is known.

    Args:
      audio_L: float32 [samples].
      rate_hz: of it.
      duration_s: of the video.
    Raises:
      ValueError: it is shorter.
    """
    length_s = len(audio_L) / rate_hz
    if length_s < duration_s - SHORTER_S:
        raise ValueError(
            f"the audio to vary lasts {length_s:.2f} s, the video {duration_s:.2f} s; extend it "
            f"first, with regenerate=({length_s:.2f}, {duration_s:.2f})"
        )
    return Kept(audio_L, 0.0, 0.0)


def check_given(varied: Kept | None, vary: float) -> None:
    """Whether there is audio to begin with, if and only if that is wanted.

    Raises:
      ValueError: it is not so.
    """
    if (vary < 1) != (varied is not None):
        wanted = "some" if vary < 1 else "none"
        raise ValueError(f"vary is {vary:g}; expected {wanted} audio to begin with (Source.varied)")


def known_columns(kept: Kept, count: int, column_s: float, rate_hz: int) -> np.ndarray:
    """Returns which of so many latent columns lie in the known audio and outside the span, bool."""
    begins_s = np.arange(count) * column_s
    ends_s = begins_s + column_s
    heard = ends_s <= len(kept.audio_L) / rate_hz
    return heard & ((ends_s <= kept.start_s) | (begins_s >= kept.stop_s))


def spliced(kept: Kept | None, made_L: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """The known audio with the span from `made_L`, to which it fades within the span.

    Where nothing is kept, `made_L`. The known audio is followed by silence; at the ends of the
    clip nothing fades. A span beyond full scale is made quieter by itself: else writing the file
    would make the known audio quieter, too.
    """
    if kept is None:
        return made_L
    length = len(made_L)
    known_L = np.zeros(length, np.float32)
    part_L = kept.audio_L[:length]
    known_L[: len(part_L)] = part_L
    start, stop = (round(s * sample_rate_hz) for s in (kept.start_s, kept.stop_s))
    stop = min(stop, length)
    fade = max(1, min(round(FADE_S * sample_rate_hz), (stop - start) // 2))
    own_L = np.zeros(length, np.float32)
    own_L[start:stop] = _within_full_scale(np.asarray(made_L[start:stop]))
    new_L = np.zeros(length, np.float32)  # share of the made audio
    new_L[start:stop] = 1.0
    ramp = fades.ramp(fade)
    if start > 0:
        new_L[start : start + fade] = ramp
    if stop < length:
        new_L[stop - fade : stop] = ramp[::-1]
    return np.where(new_L > 0, known_L * (1 - new_L) + own_L * new_L, known_L)


def _within_full_scale(span_L: np.ndarray) -> np.ndarray:
    """A span within full scale; one that is not finite stays, and is told as the clip's fault."""
    return level.within_full_scale(span_L)[0] if np.isfinite(span_L).all() else span_L
