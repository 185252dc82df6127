"""Where clicks are in a stretch of audio, and how far an image is from its click.

L audio samples.
"""

from collections.abc import Iterable

import numpy as np

from tests.media import sync_media

FIRST_CLICK = 5  # source frame
CLICK_EVERY = 20  # source frames


def clicks(count: int) -> tuple[int, ...]:
    """Frames of a video of `count` frames with which a click begins."""
    return tuple(range(FIRST_CLICK, count - 2, CLICK_EVERY))


def heard(audio_L: np.ndarray, rate_hz: int) -> list[float]:
    """When clicks begin in int16 audio, in seconds."""
    template = sync_media.click(np.arange(round(sync_media.CLICK_S * rate_hz)) / rate_hz)
    waveform_L = audio_L.astype(np.float64) / 32768
    match = np.correlate(np.pad(waveform_L, (1, len(template))), template, "valid")
    match /= template @ template
    out = []
    while (peak := int(np.argmax(match[1:-1])) + 1) and match[peak] > 0.6:
        before, at, after = match[peak - 1 : peak + 2]
        offset = 0.5 * (before - after) / (before - 2 * at + after)
        out.append((peak - 1 + offset) / rate_hz)
        match[max(0, peak - 800) : peak + 800] = 0
    return out


def distance(
    number: int, time_s: float, clicks_s: Iterable[float], fps: float, period_s: float = np.inf
) -> float | None:
    """Source frames from the middle of a shown frame to the time where it stands, by its audio.

    A click says which frame it belongs to up to a multiple of `CLICK_EVERY`. None without one
    within half a second in the same repetition of a short record, and for the first frame, which
    also stands in for what is before it.

    Args:
      number: of the source frame that is shown.
      time_s: where it stands.
      clicks_s: when clicks are heard.
      fps: of the source.
      period_s: after which the record is repeated.
    """
    near = [
        click_s
        for click_s in clicks_s
        if abs(click_s - time_s) < 0.5
        and (click_s + 1e-4) // period_s == (time_s + 1e-4) // period_s
    ]
    if number == 0 or not near:
        return None
    ahead = (time_s - near[0]) * fps  # source frames since that click's frame began
    off = number - FIRST_CLICK + 0.5 - ahead
    return float((off + CLICK_EVERY / 2) % CLICK_EVERY - CLICK_EVERY / 2)
