"""Which frame of a video is taken for which time."""

from fractions import Fraction
import json
import math
from pathlib import Path

import pytest

from foley_jax.media import specs
from foley_jax.media import video as video_io

NUMBERS = json.loads(
    (Path(__file__).parents[1] / "goldens" / "mmaudio" / "numbers.json").read_text()
)
PICKED = NUMBERS["frames picked, 2.0 s"]


class Numbered:
    """A frame that is its number."""

    def __init__(self, number):
        self.number = number

    def fitted(self, spec):
        return self.number


def timed(rate, seconds, first_s=Fraction(0)):
    """(time, end, frame) of a video that begins at `first_s`."""
    count = math.ceil(seconds * rate)
    for i in range(count):
        yield (
            float(first_s + i / Fraction(rate)),
            float(first_s + (i + 1) / Fraction(rate)),
            Numbered(i),
        )


def official(rate, kind, seconds, first_s):
    spec = specs.VideoSpec({"clip": 8, "sync": 25}[kind], pick="first_after")
    return list(video_io._first_after(timed(rate, seconds, first_s), spec, 0.0, 2.0))


@pytest.mark.parametrize("kind", ["clip", "sync"])
@pytest.mark.parametrize("case", sorted(PICKED))
def test_the_official_reader_is_reproduced(case, kind):
    rate = Fraction(case.split("/s")[0])
    # no rule that meets the others leaves out frame 60, at 2.0 s: that clip must end before it
    seconds = {"15/s, 1.3 s long": 1.3, "30/s": 2}.get(case, 4)
    first_s = Fraction(2, 25) if "0.08" in case else Fraction(0)
    assert official(rate, kind, seconds, first_s) == PICKED[case][kind]


def nearest(rate, fps, seconds):
    spec = specs.VideoSpec(fps, pick="nearest")
    return list(video_io._sample(timed(rate, seconds), spec, 0.0, None))


@pytest.mark.parametrize("rate", [25, 24, 30, Fraction(30000, 1001), 60, 10])
def test_the_nearest_frame_is_at_most_half_a_frame_off(rate):
    found = nearest(rate, 25, 2)
    assert len(found) in (50, 51)  # 60 of 30000/1001 last a little longer than 2 s
    off = [abs(float(number / rate) - k / 25) for k, number in enumerate(found)]
    # the last one has no neighbour that could be nearer
    assert max(off[:-1]) <= 0.5 / float(rate) + 1e-3


def test_equal_rates_take_every_frame_once():
    assert nearest(25, 25, 2) == list(range(50))
