"""Dense optical flow by polynomial expansion, as OpenCV's `calcOpticalFlowFarneback` computes it.

Needs no OpenCV, and equals it to rounding (5e-5 pixels; OpenCV 5.0). Every neighbourhood of a
image is fitted by a quadratic; how the linear part of the fit changes, beside its curvature,
tells how far the image has moved (Farneback 2003). Coarse to fine.

Axis letters: T frames, H W image, K the five coefficients (y, x, yy, xx, xy) of a fit.
"""

import dataclasses

import numpy as np
from scipy import ndimage

MIN_SIDE = 32  # no pyramid level is smaller
BORDER = np.array([0.14, 0.14, 0.4472, 0.4472, 0.4472], np.float32)  # trust near the edges


@dataclasses.dataclass(frozen=True)
class Farneback:
    """Settings; the defaults are those of the AV-Align script.

    Attributes:
      pyramid_scale: size of a level relative to the next finer one.
      num_levels: levels beside the full image; fewer for small images (`MIN_SIDE`).
      window: side of the square over which the motion is averaged, pixels, odd.
      num_iterations: per level.
      radius: of the neighbourhood of a fit, pixels; OpenCV's `poly_n`, which its manual calls
        the size.
      sigma: of the Gaussian weight of a fit, pixels.
    """

    pyramid_scale: float = 0.5
    num_levels: int = 3
    window: int = 15
    num_iterations: int = 3
    radius: int = 5
    sigma: float = 1.2

    def __call__(self, before_HW: np.ndarray, after_HW: np.ndarray) -> np.ndarray:
        """Motion from one image to the next.

        Args:
          before_HW, after_HW: grey images in [0, 255], uint8 or float [H, W].
        Returns:
          float32 [H, W, 2]: pixels to the right and down, of every pixel of `before_HW`.
        Raises:
          ValueError: unequal shapes, or not two axes.
        """
        if np.ndim(before_HW) != 2 or np.shape(before_HW) != np.shape(after_HW):
            raise ValueError(
                f"images of shapes {np.shape(before_HW)} and {np.shape(after_HW)}, expected "
                "equal [H, W]"
            )
        return self.between(self.fits(before_HW), self.fits(after_HW))

    def fits(self, image_HW: np.ndarray) -> list[np.ndarray]:
        """Returns what is known of one image: its quadratics at every level, coarsest first."""
        image = np.asarray(image_HW, np.float32)
        height, width = image.shape
        scales = [self.pyramid_scale**n for n in range(self._depth(height, width), -1, -1)]
        sizes = [(round(height * scale), round(width * scale)) for scale in scales]
        return [
            self._fit(_resize(_smooth(image, scale), size)) for scale, size in zip(scales, sizes)
        ]

    def between(self, before: list[np.ndarray], after: list[np.ndarray]) -> np.ndarray:
        """`__call__` for two images of equal size given by their `fits`."""
        flow = np.zeros((*before[0].shape[:2], 2), np.float32)
        for level, (one, other) in enumerate(zip(before, after)):
            if level:
                flow = _resize(flow, one.shape[:2]) * np.float32(1.0 / self.pyramid_scale)
            for _ in range(self.num_iterations):
                flow = self._update(one, other, flow)
        return flow

    def _depth(self, height: int, width: int) -> int:
        """The coarsest level of which no side is below `MIN_SIDE`."""
        depth = 0
        while (
            depth < self.num_levels
            and min(height, width) * self.pyramid_scale ** (depth + 1) >= MIN_SIDE
        ):
            depth += 1
        return depth

    def _fit(self, image_HW: np.ndarray) -> np.ndarray:
        """Quadratic of every neighbourhood by weighted least squares, float32 [H, W, K]."""
        n = np.arange(-self.radius, self.radius + 1, dtype=np.float64)
        g = np.exp(-(n**2) / (2 * self.sigma**2)).astype(np.float32)
        g = (g / g.sum(dtype=np.float64)).astype(np.float32)
        kernels = [g, (n * g).astype(np.float32), (n**2 * g).astype(np.float32)]

        columns = [ndimage.correlate1d(image_HW, k, axis=0, mode="nearest") for k in kernels]

        def moment(y: int, x: int) -> np.ndarray:
            return ndimage.correlate1d(columns[y], kernels[x], axis=1, mode="nearest")

        # normal equations of (1, x, y, xx, yy, xy) under the weight g(x) g(y)
        m2, m4 = (float((g * n**p).sum()) for p in (2, 4))
        gram = np.array([[1.0, m2, m2], [m2, m4, m2**2], [m2, m2**2, m4]])
        inverse = np.linalg.inv(gram)
        one = moment(0, 0)
        return np.stack(
            [
                moment(1, 0) / m2,
                moment(0, 1) / m2,
                one * inverse[0, 1] + moment(2, 0) * inverse[1, 1],
                one * inverse[0, 1] + moment(0, 2) * inverse[1, 1],
                moment(1, 1) / m2**2,
            ],
            axis=-1,
        ).astype(np.float32)

    def _update(
        self, before_HWK: np.ndarray, after_HWK: np.ndarray, flow_HW2: np.ndarray
    ) -> np.ndarray:
        """One step towards the motion that explains the second fit by the first."""
        equations = _normal_equations(before_HWK, after_HWK, flow_HW2)
        for axis in (0, 1):
            equations = ndimage.uniform_filter1d(equations, self.window, axis, mode="nearest")
        g11, g12, g22, h1, h2 = np.moveaxis(equations.astype(np.float64), -1, 0)
        scale = 1.0 / (g11 * g22 - g12 * g12 + 1e-3)
        flow = np.stack([(g11 * h2 - g12 * h1) * scale, (g22 * h1 - g12 * h2) * scale], axis=-1)
        return flow.astype(np.float32)


def _normal_equations(
    before_HWK: np.ndarray, after_HWK: np.ndarray, flow_HW2: np.ndarray
) -> np.ndarray:
    """Per pixel the equations of its motion: g11, g12, g22, h1, h2 along the last axis."""
    height, width = before_HWK.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = flow_HW2[..., 0], flow_HW2[..., 1]
    moved, inside = _sample(after_HWK, y + dy, x + dx)
    b = before_HWK
    ay, ax, ayy, axx, axy = np.moveaxis(moved, -1, 0)
    r4 = np.where(inside, (b[..., 2] + ayy) * 0.5, b[..., 2])
    r5 = np.where(inside, (b[..., 3] + axx) * 0.5, b[..., 3])
    r6 = np.where(inside, (b[..., 4] + axy) * 0.25, b[..., 4] * 0.5)
    r2 = (b[..., 0] - np.where(inside, ay, 0.0)) * 0.5 + r4 * dy + r6 * dx
    r3 = (b[..., 1] - np.where(inside, ax, 0.0)) * 0.5 + r6 * dy + r5 * dx
    trust = _trust(height)[:, None] * _trust(width)[None, :]
    r2, r3, r4, r5, r6 = (r * trust for r in (r2, r3, r4, r5, r6))
    return np.stack(
        [
            r4 * r4 + r6 * r6,
            (r4 + r5) * r6,
            r5 * r5 + r6 * r6,
            r4 * r2 + r6 * r3,
            r6 * r2 + r5 * r3,
        ],
        axis=-1,
    ).astype(np.float32)


def _trust(size: int) -> np.ndarray:
    """Weight of every row or column: less near both ends, float32 [size]."""
    weight = np.ones(size, np.float32)
    near = min(len(BORDER), size)
    weight[:near] *= BORDER[:near]
    weight[size - near :] *= BORDER[:near][::-1]
    return weight


def _sample(fit_HWK: np.ndarray, y_HW: np.ndarray, x_HW: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bilinear samples [H, W, K], and where they lie wholly inside, bool [H, W]."""
    height, width, num = fit_HWK.shape
    y0, x0 = np.floor(y_HW).astype(int), np.floor(x_HW).astype(int)
    inside = (y0 >= 0) & (y0 < height - 1) & (x0 >= 0) & (x0 < width - 1)
    fy, fx = ((p - p0).astype(np.float32)[..., None] for p, p0 in ((y_HW, y0), (x_HW, x0)))
    flat = fit_HWK.reshape(-1, num)  # [H, W, K] -> [H*W, K]
    # outside any place will do: nothing of it is used
    at = np.where(inside, y0 * width + x0, 0)
    right, below = (1, width) if min(height, width) > 1 else (0, 0)
    top = (1 - fx) * flat[at] + fx * flat[at + right]
    bottom = (1 - fx) * flat[at + below] + fx * flat[at + below + right]
    return (1 - fy) * top + fy * bottom, inside


def _smooth(image_HW: np.ndarray, scale: float) -> np.ndarray:
    """Gaussian blur before shrinking by `scale`; a light one at full size too, as in OpenCV."""
    sigma = (1.0 / scale - 1.0) * 0.5
    size = max(round(sigma * 5) | 1, 3)
    n = np.arange(size) - size // 2
    # OpenCV takes a fixed kernel of three where sigma is 0
    kernel = np.exp(-(n**2) / (2 * sigma**2)) if sigma > 0 else np.array([0.25, 0.5, 0.25])
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        image_HW = ndimage.correlate1d(image_HW, kernel, axis=axis, mode="mirror")
    return image_HW


def _resize(x_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with aligned pixel edges and no low-pass, float32 [*size, ...]."""
    for axis, new in enumerate(size):
        old = x_HW.shape[axis]
        if new == old:
            continue
        place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        weight = (place - low).astype(np.float32).reshape(-1, *(1,) * (x_HW.ndim - axis - 1))
        upper = np.minimum(low + 1, old - 1)
        x_HW = np.take(x_HW, low, axis) * (1 - weight) + np.take(x_HW, upper, axis) * weight
    return x_HW


def grey(frames_THWC: np.ndarray) -> np.ndarray:
    """Luma of RGB images as OpenCV rounds it, uint8 [T, H, W, 3] -> uint8 [T, H, W].

    Raises:
      ValueError: another type or shape.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise ValueError(
            f"frames {frames_THWC.dtype} {frames_THWC.shape}, expected uint8 [T, H, W, 3]"
        )
    weights = np.array([9798, 19235, 3735], np.uint32)  # 0.299, 0.587, 0.114 in 15 bits
    return ((frames_THWC.astype(np.uint32) @ weights + (1 << 14)) >> 15).astype(np.uint8)


def mean_motion(frames_THWC: np.ndarray, settings: Farneback = Farneback()) -> np.ndarray:
    """Mean length of the flow vectors into every frame.

    Args:
      frames_THWC: uint8 [T, H, W, 3], T >= 2.
    Returns:
      float64 [T], pixels per frame; entry t is the motion from frame t - 1 to t, and entry 0
      repeats entry 1.
    Raises:
      ValueError: less than two frames, or as `grey`.
    """
    images = grey(frames_THWC)
    if len(images) < 2:
        raise ValueError(f"{len(images)} frames, expected at least 2")
    motion, before = [], settings.fits(images[0])
    for image in images[1:]:
        after = settings.fits(image)
        flow = settings.between(before, after)
        motion.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
        before = after
    return np.array([motion[0], *motion])
