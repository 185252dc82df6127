"""What is made anew of audio that is there already: for models that keep some of it."""

import os
from typing import TypeVar

from foley_jax.diff_foley import sources as foley_sources
from foley_jax.media import audio as audio_io
from foley_jax.media import editing
from foley_jax.mmaudio import sources as text_sources

SourceOf = TypeVar("SourceOf", foley_sources.Source, text_sources.Source)


def check(span: tuple[float, float] | None, vary: float) -> None:
    """Raises ValueError where both a span and a share of the whole are asked for."""
    if span is not None and vary < 1:
        raise ValueError(
            f"regenerate makes a span wholly anew, vary={vary:g} the whole audio in part; give one "
            "of them"
        )


def edited(
    source: SourceOf,
    rate_hz: int,
    *,
    regenerate: tuple[float, float] | None = None,
    vary: float = 1.0,
    audio: str | os.PathLike | None = None,
) -> SourceOf:
    """Returns a source with its audio, of which a span or a share is made anew.

    Args:
      source: a video as the model reads it.
      rate_hz: of the model's audio.
      regenerate: (start, stop) in seconds; all else is kept.
      vary: below 1, all of it is varied.
      audio: file with the audio; by default the video's own.
    Raises:
      foley_jax.media.video.MediaError: no readable audio.
      ValueError: a span outside the video, or audio to vary that is shorter than it.
    """
    if regenerate is not None:
        start_s, stop_s = editing.checked(regenerate, source.duration_s)
        audio_L = audio_io.load(audio or source.path, rate_hz)
        return source._replace(kept=editing.Kept(audio_L, start_s, stop_s))
    if vary < 1:
        audio_L = audio_io.load(audio or source.path, rate_hz)
        return source._replace(varied=editing.whole(audio_L, rate_hz, source.duration_s))
    return source
