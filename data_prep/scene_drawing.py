"""Soft-edged shapes, bodies and backgrounds for the embedded scenes.

A canvas is a float32 array [H, W, 3] in [0, 1]; every shape touches only its own rectangle.
Coordinates are pixels, x to the right and y down. A sprite is [h, w, 4]: colour and alpha.
"""

import colorsys

import numpy as np

Color = np.ndarray  # [3] float32 in [0, 1]


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Colour from hue (any real, wraps at 1), saturation and value in [0, 1]."""
    clipped = np.clip([saturation, value], 0, 1)
    return np.array(colorsys.hsv_to_rgb(hue % 1, *clipped), np.float32)


def _window(
    canvas: np.ndarray, left: float, top: float, right: float, bottom: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The canvas part inside a rectangle with its x [1, w] and y [h, 1]; None if outside."""
    x0, y0 = max(0, int(left)), max(0, int(top))
    x1, y1 = min(canvas.shape[1], int(right) + 2), min(canvas.shape[0], int(bottom) + 2)
    if x0 >= x1 or y0 >= y1:
        return None
    xs = np.arange(x0, x1, dtype=np.float32)[None, :]
    ys = np.arange(y0, y1, dtype=np.float32)[:, None]
    return canvas[y0:y1, x0:x1], xs, ys


def _blend(part: np.ndarray, alpha_HW: np.ndarray, color: Color) -> None:
    part += alpha_HW[..., None] * (color - part)


def disc(
    canvas: np.ndarray, x: float, y: float, radius: float, color: Color, alpha: float = 1.0
) -> None:
    """Draws a filled circle."""
    window = _window(canvas, x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1)
    if window is not None:
        part, xs, ys = window
        distance = np.sqrt((xs - x) ** 2 + (ys - y) ** 2)
        _blend(part, alpha * np.clip(radius + 0.5 - distance, 0, 1), color)


def ring(
    canvas: np.ndarray,
    x: float,
    y: float,
    radius: float,
    width: float,
    color: Color,
    alpha: float,
) -> None:
    """Draws a circle's outline of a given line width."""
    reach = radius + width + 1
    window = _window(canvas, x - reach, y - reach, x + reach, y + reach)
    if window is not None:
        part, xs, ys = window
        distance = np.sqrt((xs - x) ** 2 + (ys - y) ** 2)
        line = np.clip(0.5 + 0.5 * width - np.abs(distance - radius), 0, 1)
        _blend(part, alpha * line, color)


def capsule(
    canvas: np.ndarray,
    start: tuple[float, float],
    end: tuple[float, float],
    width: float,
    color: Color,
    alpha: float = 1.0,
) -> None:
    """Draws a thick line with round ends."""
    (x0, y0), (x1, y1) = start, end
    half = 0.5 * width
    window = _window(
        canvas,
        min(x0, x1) - half - 1,
        min(y0, y1) - half - 1,
        max(x0, x1) + half + 1,
        max(y0, y1) + half + 1,
    )
    if window is not None:
        part, xs, ys = window
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(
            ((xs - x0) * dx + (ys - y0) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1
        ).astype(np.float32)
        distance = np.sqrt((xs - x0 - along * dx) ** 2 + (ys - y0 - along * dy) ** 2)
        _blend(part, alpha * np.clip(half + 0.5 - distance, 0, 1), color)


def box(
    canvas: np.ndarray,
    x: float,
    y: float,
    half_width: float,
    half_height: float,
    color: Color,
    alpha: float = 1.0,
) -> None:
    """Draws an upright filled rectangle around a centre."""
    window = _window(
        canvas, x - half_width - 1, y - half_height - 1, x + half_width + 1, y + half_height + 1
    )
    if window is not None:
        part, xs, ys = window
        cover_x = np.clip(half_width + 0.5 - np.abs(xs - x), 0, 1)
        cover_y = np.clip(half_height + 0.5 - np.abs(ys - y), 0, 1)
        _blend(part, alpha * cover_x * cover_y, color)


def paste(canvas: np.ndarray, sprite: np.ndarray, x: float, y: float, glow: float = 0.0) -> None:
    """Draws a sprite centred at whole pixels; `glow` lightens it towards white."""
    height, width = sprite.shape[:2]
    left, top = round(x) - width // 2, round(y) - height // 2
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(canvas.shape[1], left + width), min(canvas.shape[0], top + height)
    if x0 < x1 and y0 < y1:
        cut = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
        color = cut[..., :3] + glow * (1 - cut[..., :3]) if glow > 0.01 else cut[..., :3]
        part = canvas[y0:y1, x0:x1]
        part += cut[..., 3:] * (color - part)


def body_sprite(material: str, size: float, rng: np.random.Generator) -> np.ndarray:
    """A body of a material, about 2 * size wide: colour, shape and texture tell which.

    wood: a brown plank with grain; metal: a grey plate with a sheen; glass: a see-through
    tumbler with a highlight; skin: a red drum with a pale head.
    """
    half = int(size) + 3
    ys, xs = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    draw = {"wood": _wood, "metal": _metal, "glass": _glass, "skin": _skin}[material]
    color, alpha = draw(xs, ys, size, rng)
    return np.concatenate([np.clip(color, 0, 1), alpha[..., None]], axis=-1).astype(np.float32)


def top_of(material: str, size: float) -> float:
    """How far above a body's centre its struck surface lies."""
    return {"wood": 0.42, "metal": 0.6, "glass": 0.95, "skin": 0.5}[material] * size


def _wood(xs, ys, size, rng):
    alpha = np.clip(size + 0.5 - np.abs(xs), 0, 1) * np.clip(0.45 * size + 0.5 - np.abs(ys), 0, 1)
    waves = np.sin(ys * rng.uniform(1.3, 1.9) + 1.5 * np.sin(xs * 0.12 + rng.uniform(0, 6)))
    base = hsv(rng.uniform(0.06, 0.10), rng.uniform(0.65, 0.85), rng.uniform(0.5, 0.7))
    return base * (1 + 0.28 * waves[..., None]), alpha


def _metal(xs, ys, size, rng):
    distance = np.sqrt(xs**2 + (ys / 0.65) ** 2)
    alpha = np.clip(size + 0.5 - distance, 0, 1)
    angle = np.arctan2(ys / 0.65, xs)
    sheen = 0.6 + 0.35 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.12 * np.sin(distance * 1.6)
    base = hsv(rng.uniform(0.56, 0.66), rng.uniform(0.05, 0.2), rng.uniform(0.8, 0.95))
    return base * sheen[..., None], alpha


def _glass(xs, ys, size, rng):
    half_width = 0.55 * size + 0.12 * -ys  # wider at the top
    side = half_width - np.abs(xs)
    inside = np.clip(side + 0.5, 0, 1) * np.clip(size + 0.5 - np.abs(ys), 0, 1)
    edge = np.clip(2.5 - side, 0, 1) + np.clip(2.5 - (size - np.abs(ys)), 0, 1)
    shine = np.clip(2.0 - np.abs(xs + 0.3 * size), 0, 1) * (np.abs(ys) < 0.7 * size)
    base = hsv(rng.uniform(0.44, 0.52), rng.uniform(0.35, 0.6), rng.uniform(0.85, 1.0))
    color = base + np.clip(0.5 * edge + 0.9 * shine, 0, 1)[..., None] * (1 - base)
    return color, inside * np.clip(0.5 + 0.4 * edge + 0.5 * shine, 0, 1)


def _skin(xs, ys, size, rng):
    head = np.clip(
        size * (1 - np.sqrt((xs / size) ** 2 + ((ys + 0.5 * size) / (0.3 * size)) ** 2)), 0, 1
    )
    shell = np.clip(size + 0.5 - np.abs(xs), 0, 1) * (ys > -0.5 * size)
    shell = shell * np.clip(0.75 * size + 0.5 - ys, 0, 1)
    red = hsv(rng.uniform(0.96, 1.03), rng.uniform(0.75, 0.95), rng.uniform(0.6, 0.8))
    lacing = 1 + 0.25 * np.sign(np.sin(xs * 0.9 + 0.5 * ys))
    pale = hsv(rng.uniform(0.09, 0.14), rng.uniform(0.1, 0.25), rng.uniform(0.9, 1.0))
    color = red * lacing[..., None]
    return color + head[..., None] * (pale - color), np.maximum(head, shell)


def background(
    height: int, width: int, rng: np.random.Generator, *, clutter: tuple[int, int]
) -> np.ndarray:
    """A cluttered still scene: a gradient, `clutter` (from, to) muted random shapes, and grain."""
    hue = rng.uniform()
    corners = [
        hsv(hue + rng.normal(0, 0.06), rng.uniform(0.1, 0.45), rng.uniform(0.2, 0.8))
        for _ in range(2)
    ]
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32) - 0.5
    ramp = np.clip(0.5 + xs * np.cos(angle) + ys * np.sin(angle), 0, 1)[..., None]
    canvas = (corners[0] + ramp * (corners[1] - corners[0])).astype(np.float32)
    for _ in range(rng.integers(*clutter, endpoint=True)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        value = float(np.clip(canvas.mean() + rng.normal(0, 0.18), 0.1, 0.9))
        color = hsv(hue + rng.normal(0, 0.15), rng.uniform(0.1, 0.5), value)
        alpha = rng.uniform(0.25, 0.7)
        kind = rng.integers(4)
        if kind == 0:
            disc(canvas, x, y, rng.uniform(4, 24), color, alpha)
        elif kind == 1:
            box(canvas, x, y, rng.uniform(3, 26), rng.uniform(3, 26), color, alpha)
        elif kind == 2:
            end = (x + rng.normal(0, 40), y + rng.normal(0, 40))
            capsule(canvas, (x, y), end, rng.uniform(2, 9), color, alpha)
        else:  # still circles, so that a circle alone does not mean a blow
            ring(canvas, x, y, rng.uniform(6, 28), rng.uniform(1.5, 3), color, alpha)
    canvas += rng.normal(0, rng.uniform(0.003, 0.02), (height, width, 1)).astype(np.float32)
    return np.clip(canvas, 0, 1)
