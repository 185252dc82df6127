"""Actors that move in the embedded scenes; each draws itself at a time.

All motion is a closed form of time, so a frame needs no history. Times are seconds, lengths
pixels, angles radians.
"""

import dataclasses
from typing import Protocol

import numpy as np

from data_prep import scene_drawing as drawing

RIPPLE_SPEED = 72.0  # pixels a second: its radius tells the time since the blow
RIPPLE_LIFE_S = 0.45
RIPPLE_WIDTH = 4.0  # two pixels of a 64x64 image
FALL_S = 0.22  # longest final swing of a mallet
GRAVITY = 400.0  # pixels / s^2: a bounce of 1.2 s rises 72 pixels
LONGEST_BOUNCE_S = 1.2


class Actor(Protocol):
    """Something that can draw itself on a canvas at a time."""

    def draw(self, canvas: np.ndarray, time_s: float) -> None: ...


@dataclasses.dataclass(frozen=True)
class Blow:
    """One hit: when, and how fast (0 to 1)."""

    time_s: float
    strength: float


def last_blow(blows: tuple[Blow, ...], time_s: float) -> tuple[Blow | None, Blow | None]:
    """The latest blow at or before a time, and the next one after it."""
    before, after = None, None
    for blow in blows:
        if blow.time_s <= time_s + 1e-9:
            before = blow
        else:
            after = blow
            break
    return before, after


@dataclasses.dataclass(frozen=True)
class StruckBody:
    """An object that jumps and lights up a little when hit."""

    sprite: np.ndarray
    x: float
    y: float
    blows: tuple[Blow, ...]

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        before, _ = last_blow(self.blows, time_s)
        jolt = glow = 0.0
        if before is not None:
            since = time_s - before.time_s
            jolt = 2.5 * before.strength * np.exp(-since / 0.08)
            glow = 0.4 * before.strength * np.exp(-since / 0.1)
        drawing.paste(canvas, self.sprite, self.x, self.y + jolt, glow)


@dataclasses.dataclass(frozen=True)
class Ripple:
    """Rings that run out from the point of each blow, radius linear in time, fading."""

    x: float
    y: float
    blows: tuple[Blow, ...]
    color: np.ndarray
    contrast: float  # 0 to 1
    width: float = RIPPLE_WIDTH

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        for blow in self.blows:
            since = time_s - blow.time_s
            if 0 <= since < RIPPLE_LIFE_S:
                fade = (1 - since / (RIPPLE_LIFE_S + 0.1)) ** 0.7
                alpha = self.contrast * fade * (0.65 + 0.35 * blow.strength)
                radius = 3 + RIPPLE_SPEED * since
                drawing.ring(canvas, self.x, self.y, radius, self.width, self.color, alpha)


@dataclasses.dataclass(frozen=True)
class Mallet:
    """A stick that is raised slowly and falls faster and faster onto the point (x, y)."""

    x: float
    y: float
    side: int  # +1: held from the right
    length: float
    head: float
    color: np.ndarray
    blows: tuple[Blow, ...]
    reach: float = 0.9  # angle of the highest lift

    def lift(self, time_s: float) -> float:
        """Angle above the struck surface."""
        before, after = last_blow(self.blows, time_s)
        if after is None:
            since = time_s - before.time_s if before is not None else 0.0
            return self.reach * 0.6 * _ease(since / 0.35)
        gap = after.time_s - before.time_s if before is not None else np.inf
        fall_s = min(FALL_S, 0.45 * gap)
        top = self.reach * after.strength * fall_s / FALL_S  # final speed ~ strength
        left = after.time_s - time_s
        if left <= fall_s:
            return top * (1 - ((fall_s - left) / fall_s) ** 2)
        if before is None:
            return top
        return top * _ease((time_s - before.time_s) / min(gap - fall_s, 0.35))

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        angle = self.lift(time_s) * self.side
        x, y = -self.side * self.length, 0.25 * self.length  # hand to head at the moment of impact
        hand = (self.x - x, self.y - self.head - y)
        head = (
            hand[0] + x * np.cos(angle) - y * np.sin(angle),
            hand[1] + x * np.sin(angle) + y * np.cos(angle),
        )
        drawing.capsule(canvas, hand, head, 3.0, 0.55 * self.color)
        drawing.disc(canvas, *head, self.head, self.color)


@dataclasses.dataclass(frozen=True)
class Ball:
    """A ball in free flight between its bounces on the point (x, y)."""

    x: float
    y: float
    radius: float
    color: np.ndarray
    blows: tuple[Blow, ...]

    def height(self, time_s: float) -> float:
        """Height above the struck surface."""
        before, after = last_blow(self.blows, time_s)
        if before is None:  # let go in time for the first blow
            fallen_s = max(0.0, LONGEST_BOUNCE_S / 2 - (after.time_s - time_s))
            return GRAVITY / 2 * ((LONGEST_BOUNCE_S / 2) ** 2 - fallen_s**2)
        since = time_s - before.time_s
        flight_s = after.time_s - before.time_s if after is not None else 2 * LONGEST_BOUNCE_S
        return GRAVITY / 2 * since * (flight_s - since)

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        y = self.y - self.radius - self.height(time_s)
        drawing.disc(canvas, self.x, y, self.radius, self.color)
        shine = self.color + 0.6 * (1 - self.color)
        drawing.disc(
            canvas, self.x - 0.3 * self.radius, y - 0.3 * self.radius, 0.3 * self.radius, shine
        )


@dataclasses.dataclass(frozen=True)
class Rotor:
    """A fan of three blades, one of them marked; its turning speed follows a smooth curve."""

    x: float
    y: float
    radius: float
    color: np.ndarray
    mark: np.ndarray
    times_s: np.ndarray  # [N]
    speed_hz: np.ndarray  # [N] turns per second
    turns: np.ndarray  # [N] turns so far

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        angle = 2 * np.pi * np.interp(time_s, self.times_s, self.turns)
        smear = np.interp(time_s, self.times_s, self.speed_hz) * 2 * np.pi / 48  # 180 deg shutter
        drawing.disc(canvas, self.x, self.y, self.radius + 3, 0.25 * self.color)
        for blade in range(3):
            color = self.mark if blade == 0 else self.color
            for step in (-0.5, 0.0, 0.5):
                at = angle + blade * 2 * np.pi / 3 + step * smear
                tip = (self.x + self.radius * np.cos(at), self.y + self.radius * np.sin(at))
                alpha = (0.5, 0.67, 1.0)[round(2 * step + 1)]
                drawing.capsule(canvas, (self.x, self.y), tip, 0.28 * self.radius, color, alpha)
        drawing.disc(canvas, self.x, self.y, 0.2 * self.radius, 0.4 * self.color)


@dataclasses.dataclass(frozen=True)
class SilentMover:
    """A shape that wanders about without an audio clip."""

    x: float
    y: float
    swing: tuple[float, float]
    rate_hz: tuple[float, float]
    phase: float
    size: float
    square: bool
    color: np.ndarray

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        x = self.x + self.swing[0] * np.sin(2 * np.pi * self.rate_hz[0] * time_s + self.phase)
        y = self.y + self.swing[1] * np.sin(2 * np.pi * self.rate_hz[1] * time_s)
        if self.square:
            drawing.box(canvas, x, y, self.size, self.size, self.color)
        else:
            drawing.disc(canvas, x, y, self.size, self.color)


@dataclasses.dataclass(frozen=True)
class Occluder:
    """An upright bar that passes in front of everything once."""

    start_s: float
    cross_s: float
    half_width: float
    color: np.ndarray
    leftward: bool

    def draw(self, canvas: np.ndarray, time_s: float) -> None:
        share = (time_s - self.start_s) / self.cross_s
        if 0 <= share <= 1:
            height, width = canvas.shape[:2]
            if self.leftward:
                share = 1 - share
            x = -self.half_width + share * (width + 2 * self.half_width)
            drawing.box(canvas, x, height / 2, self.half_width, height, self.color)


def _ease(share: float) -> float:
    """0 -> 1 with level ends."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)
