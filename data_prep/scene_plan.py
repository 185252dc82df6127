"""Draws at random what happens in one embedded scene: who is there, when blows fall, the truth.

`simple`: one object in the same place before an even background, struck by the same mallet, for
networks that must learn to draw it in minutes. `plain`: one object at a time. `hard`: several
objects of different materials, silent movers, a moving camera, bars passing in front, and often a
rotor underneath.
"""

import dataclasses

import numpy as np

from data_prep import scene_actors as actors
from data_prep import scene_audio as audio_clips
from data_prep import scene_drawing as drawing

SIZE = 128  # pixels, both sides
MARGIN = 12  # pixels of world around the video, for the moving camera of hard scenes
LEVELS = ("plain", "hard", "simple")
FPS = (20, 21, 22, 23, 24)
RATES_HZ = (16000, 44100)
MIN_GAP_S = 0.3
CLEAR_S = 0.2  # between blows of different objects
CLUTTER = {"plain": (1, 4), "hard": (5, 12)}  # still shapes in the background, fewest and most
RIPPLE_CONTRAST = {"plain": (0.75, 1.0), "hard": (0.55, 1.0), "simple": (1.0, 1.0)}
SIMPLE_RIPPLE_WIDTH = 8.0  # two pixels of a 32x32 image
SIMPLE_COLOR = (0.6, 0.3, 0.18)  # background of simple scenes: hue, saturation, value
ROTOR_SHARE = 0.1  # of plain scenes
ROTOR_SPEED_HZ = (0.2, 1.6)  # turns a second; under 2 a marked blade can be followed at 4 fps
ROTOR_PITCH_HZ = (75.0, 300.0)


@dataclasses.dataclass
class Scene:
    """Everything needed to draw and to sound one scene.

    Attributes:
      background: [H, W, 3] float32; larger than the video if the camera moves.
      actors: drawn in this order.
      audio clips: (start in seconds, [L] float32) pairs.
      camera: amplitude in pixels, rates in Hz and phases of the drift, shake in pixels.
      truth: what the JSON beside the video says.
    """

    level: str
    duration_s: float
    fps: int
    sample_rate_hz: int
    background: np.ndarray
    actors: list[actors.Actor]
    audio_clips: list[tuple[float, np.ndarray]]
    camera: dict[str, tuple[float, float] | float] | None
    truth: dict


def make(level: str, duration_s: float, rng: np.random.Generator) -> Scene:
    """One random scene.

    Args:
      level: one of `LEVELS`.
      duration_s: length in seconds.
      rng: the only source of chance.
    Raises:
      ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}, wanted one of {LEVELS}")
    side = SIZE + 2 * MARGIN if level == "hard" else SIZE
    scene = Scene(
        level=level,
        duration_s=duration_s,
        fps=int(rng.choice(FPS)),
        sample_rate_hz=int(rng.choice(RATES_HZ)),
        background=_background(level, side, rng),
        actors=[],
        audio_clips=[],
        camera=None,
        truth={"level": level, "duration_s": duration_s, "events": [], "continuous": []},
    )
    if level == "hard":
        _fill_hard(scene, rng)
    elif level == "simple":
        scene.truth["scene"] = "strike"
        material = str(rng.choice(list(audio_clips.MATERIALS)))
        blows = _blows("strike", duration_s, [], rng)
        _add_struck(scene, "strike", material, SIZE / 2, 88, 18, blows, rng)
    elif rng.uniform() < ROTOR_SHARE:
        scene.truth["scene"] = "rotor"
        _add_rotor(scene, rng.uniform(40, 88), rng.uniform(40, 88), rng.uniform(20, 32), 1.0, rng)
    else:
        style = str(rng.choice(["strike", "bounce"]))
        scene.truth["scene"] = style
        material = str(rng.choice(list(audio_clips.MATERIALS)))
        size = rng.uniform(14, 23)
        x = rng.uniform(36, SIZE - 36)
        y = rng.uniform(86, 106) if style == "bounce" else rng.uniform(64, 100)
        blows = _blows(style, duration_s, [], rng)
        _add_struck(scene, style, material, x, y, size, blows, rng)
    scene.truth["events"].sort(key=lambda event: event["time_s"])
    kinds = {event["material"] for event in scene.truth["events"]}
    kinds |= {source["kind"] for source in scene.truth["continuous"]}
    scene.truth["labels"] = sorted(kinds)
    return scene


def _background(level: str, side: int, rng: np.random.Generator) -> np.ndarray:
    if level == "simple":
        return np.full((side, side, 3), drawing.hsv(*SIMPLE_COLOR), np.float32)
    return drawing.background(side, side, rng, clutter=CLUTTER[level])


def _fill_hard(scene: Scene, rng: np.random.Generator) -> None:
    scene.truth["scene"] = "several"
    count = int(rng.choice([2, 3], p=[0.65, 0.35]))
    columns = MARGIN + SIZE * (np.arange(count) + 0.5) / count
    materials = rng.permutation(list(audio_clips.MATERIALS))[:count]
    if rng.uniform() < 0.5:
        _add_rotor(scene, rng.uniform(30, 122), rng.uniform(28, 50), rng.uniform(12, 18), 0.25, rng)
    for _ in range(rng.integers(1, 4)):
        scene.actors.append(_mover(rng))
    taken: list[float] = []
    # at most one ball, first: its blows cannot be moved, those of mallets keep clear of it
    styles = ["bounce" if rng.uniform() < 0.5 else "strike"] + ["strike"] * (count - 1)
    for style, material, column in zip(styles, materials, rng.permutation(columns)):
        size = rng.uniform(12, 17)
        x, y = column + rng.uniform(-4, 4), MARGIN + rng.uniform(80, 106)
        blows = _blows(style, scene.duration_s, taken, rng, sparse=count)
        taken += [blow.time_s for blow in blows]
        _add_struck(scene, style, str(material), x, y, size, blows, rng)
    for _ in range(rng.integers(0, 3)):
        color = drawing.hsv(rng.uniform(), rng.uniform(0, 0.5), rng.uniform(0.1, 0.7))
        start_s = rng.uniform(0, scene.duration_s - 2)
        half_width = rng.uniform(6, 14)
        leftward = bool(rng.integers(2))
        bar = actors.Occluder(start_s, rng.uniform(1, 2), half_width, color, leftward)
        scene.actors.append(bar)
    scene.camera = {
        "amplitude": tuple(rng.uniform(0, MARGIN - 3, 2)),
        "rate_hz": tuple(rng.uniform(0.05, 0.3, 2)),
        "phase": tuple(rng.uniform(0, 2 * np.pi, 2)),
        "shake": float(rng.choice([0.0, 0.7, 1.2])),
    }


def _blows(
    style: str,
    duration_s: float,
    taken: list[float],
    rng: np.random.Generator,
    sparse: int = 1,
) -> tuple[actors.Blow, ...]:
    """Random blow times with gaps of at least 0.3 s, 12 to 14 in 10 s for one object.

    A bounce's strength is the speed its flight gives it; a strike's is drawn freely. Strikes
    nearer than 0.2 s to a blow of another object (`taken`) are left out.
    """
    longest = 0.95 * actors.LONGEST_BOUNCE_S if style == "bounce" else 1.8 * sparse
    scale = 0.23 if style == "bounce" else 0.23 * (1.8 * sparse - 0.8)
    out: list[actors.Blow] = []
    time_s, gap_s = rng.uniform(0.15, 0.7), actors.LONGEST_BOUNCE_S
    while time_s < duration_s - 0.25:
        clear = all(abs(time_s - other) >= CLEAR_S for other in taken)
        if style == "bounce":
            out.append(actors.Blow(time_s, gap_s / actors.LONGEST_BOUNCE_S))
        elif clear:
            out.append(actors.Blow(time_s, rng.uniform(0.35, 1.0)))
        gap_s = float(np.clip(MIN_GAP_S + rng.gamma(1.9, scale), MIN_GAP_S, longest))
        time_s += gap_s
    return tuple(out)


def _add_struck(
    scene: Scene,
    style: str,
    material: str,
    x: float,
    y: float,
    size: float,
    blows: tuple[actors.Blow, ...],
    rng: np.random.Generator,
) -> None:
    """Adds an object, what hits it, the ripple, the audio clips and the true events."""
    top = y - drawing.top_of(material, size)
    sprite = drawing.body_sprite(material, size, rng)
    scene.actors.append(actors.StruckBody(sprite, x, y, blows))
    bright = scene.background.mean() < rng.uniform(0.4, 0.6)
    color = drawing.hsv(rng.uniform(), rng.uniform(0, 0.4), 1.0 if bright else 0.05)
    contrast = rng.uniform(*RIPPLE_CONTRAST[scene.level])
    tool = drawing.hsv(rng.uniform(), rng.uniform(0.1, 0.9), rng.uniform(0.3, 1.0))
    if scene.level == "simple":
        white, yellow = drawing.hsv(0.0, 0.0, 1.0), drawing.hsv(0.15, 0.6, 0.9)
        scene.actors.append(actors.Ripple(x, top, blows, white, contrast, SIMPLE_RIPPLE_WIDTH))
        scene.actors.append(actors.Mallet(x, top, 1, 40.0, 5.5, yellow, blows))
    elif style == "bounce":
        scene.actors.append(actors.Ripple(x, top, blows, color, contrast))
        scene.actors.append(actors.Ball(x, top, rng.uniform(4.5, 7), tool, blows))
    else:
        scene.actors.append(actors.Ripple(x, top, blows, color, contrast))
        side = 1 if rng.uniform() < 0.5 else -1
        head = rng.uniform(3.5, 5.5)
        scene.actors.append(actors.Mallet(x, top, side, rng.uniform(34, 46), head, tool, blows))
    body = audio_clips.Body(material, size, scene.sample_rate_hz, rng)
    for blow in blows:
        scene.audio_clips.append((blow.time_s, body.blow(blow.strength)))
        scene.truth["events"].append(
            {
                "time_s": round(blow.time_s, 4),
                "material": material,
                "strength": round(blow.strength, 3),
            }
        )


def _add_rotor(
    scene: Scene, x: float, y: float, radius: float, level: float, rng: np.random.Generator
) -> None:
    """Adds a fan whose pitch is an exponential function of its visible speed."""
    step_s = 0.05
    times_s = np.arange(0, scene.duration_s + step_s, step_s)
    knots_s = np.arange(0, scene.duration_s + 3, rng.uniform(1.2, 2.5))
    # 1 - cos between random knots: smooth spinning up and down
    at = np.interp(times_s, knots_s, np.arange(len(knots_s)))
    knots = rng.uniform(0, 1, len(knots_s) + 1)
    share = 0.5 - 0.5 * np.cos(np.pi * (at % 1))
    speed = knots[at.astype(int)] * (1 - share) + knots[at.astype(int) + 1] * share
    slow, fast = ROTOR_SPEED_HZ
    speed_hz = slow + (fast - slow) * speed
    turns = np.cumsum(speed_hz) * step_s - speed_hz[0] * step_s
    low, high = ROTOR_PITCH_HZ
    pitch_hz = low * (high / low) ** speed
    color = drawing.hsv(rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(0.6, 1.0))
    mark = drawing.hsv(rng.uniform(), 0.9, 0.95)
    scene.actors.append(actors.Rotor(x, y, radius, color, mark, times_s, speed_hz, turns))
    sample_s = np.arange(round(scene.duration_s * scene.sample_rate_hz)) / scene.sample_rate_hz
    audio = audio_clips.rotor(
        np.interp(sample_s, times_s, pitch_hz),
        level * np.interp(sample_s, times_s, 0.35 + 0.65 * speed),
        scene.sample_rate_hz,
        rng,
    )
    scene.audio_clips.append((0.0, audio))
    scene.truth["continuous"].append(
        {
            "kind": "rotor",
            "step_s": step_s,
            "speed_hz": [round(float(v), 3) for v in speed_hz],
            "pitch_hz": [round(float(v), 1) for v in pitch_hz],
        }
    )


def _mover(rng: np.random.Generator) -> actors.SilentMover:
    side = SIZE + 2 * MARGIN
    return actors.SilentMover(
        x=rng.uniform(20, side - 20),
        y=rng.uniform(20, side - 20),
        swing=tuple(rng.uniform(8, 45, 2)),
        rate_hz=tuple(rng.uniform(0.1, 0.7, 2)),
        phase=rng.uniform(0, 2 * np.pi),
        size=rng.uniform(3, 8),
        square=bool(rng.integers(2)),
        color=drawing.hsv(rng.uniform(), rng.uniform(0.1, 0.9), rng.uniform(0.2, 1.0)),
    )
