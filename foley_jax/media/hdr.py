"""Images of high dynamic range (PQ, HLG) as BT.709, which networks and screens expect.

Code values become light, the brightest is rolled off, and what is left is coded for a BT.709
screen. Reference white (203 cd/m2) comes a little below SDR's white, everything under about 88
cd/m2 keeps its light: a grey card looks as it does in SDR. One curve for all files: it does not
depend on what a file says of its mastering, and so not on which frames were read.

Axis letters: H W C image, C = 3.
Source: ITU-R BT.2100-2 (PQ, HLG), BT.2390-10 5.4.1 (roll-off), BT.2408-4 (levels), BT.1886.
"""

import functools
import math

import numpy as np

# as ISO/IEC 23091-2 and FFmpeg number them
PQ, HLG = 16, 18
NAMES = {PQ: "PQ", HLG: "HLG"}
BT709, BT2020, P3_DCI, P3_D65 = 1, 9, 11, 12

WHITE_NITS = 203.0  # reference white, shown as the white of SDR at most
PEAK_NITS = 1000.0  # what HLG is made for, and nearly all PQ; brighter light is cut
SCREEN_GAMMA = 2.4  # BT.1886, black at 0

# SMPTE ST 2084
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# ARIB STD-B67
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * math.log(4 * _A)
_SYSTEM_GAMMA = 1.2  # at PEAK_NITS

# x, y of red, green, blue; white is D65 throughout
_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_CHROMATICITIES[P3_DCI] = _CHROMATICITIES[P3_D65]


def to_bt709(code_HWC: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """An image of high dynamic range as it looks on a BT.709 screen.

    The three channels are dimmed together, by what the brightest needs, so that hues stay; colours
    outside BT.709 are cut off.

    Args:
      code_HWC: R'G'B', float in [0, 1] of full range; what lies outside is cut off.
      transfer: `PQ` or `HLG`.
      primaries: `BT2020`, `P3_D65`, ...; unknown ones are taken for BT.2020.
    Returns:
      uint8, same shape.
    """
    code_HWC = np.clip(code_HWC, 0.0, 1.0).astype(np.float32)
    known = primaries if primaries in _CHROMATICITIES else BT2020
    nits_HWC = pq_nits(code_HWC) if transfer == PQ else hlg_nits(code_HWC, known)
    brightest = np.maximum(nits_HWC.max(axis=-1, keepdims=True), 1e-6)
    shown_HWC = nits_HWC * (rolled_off(brightest) / (brightest * WHITE_NITS))
    light_HWC = np.clip(shown_HWC @ _to_bt709(known).T, 0.0, 1.0)
    return np.rint(255.0 * light_HWC ** np.float32(1 / SCREEN_GAMMA)).astype(np.uint8)


def pq_nits(code: np.ndarray) -> np.ndarray:
    """PQ code values in [0, 1] -> cd/m2 in [0, 10000]."""
    power = code ** (1 / _M2)
    return 10000.0 * (np.maximum(power - _C1, 0.0) / (_C2 - _C3 * power)) ** (1 / _M1)


def pq_code(nits: np.ndarray) -> np.ndarray:
    """cd/m2 -> PQ code values."""
    power = (nits / 10000.0) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_nits(code_HWC: np.ndarray, primaries: int = BT2020) -> np.ndarray:
    """HLG code values of an image in [0, 1] -> cd/m2 on a screen of `PEAK_NITS`."""
    low, high = code_HWC**2 / 3, (np.exp((code_HWC - _C) / _A) + _B) / 12
    scene_HWC = np.where(code_HWC <= 0.5, low, high)
    luminance = scene_HWC @ _to_xyz(primaries)[1].astype(scene_HWC.dtype)
    return PEAK_NITS * scene_HWC * luminance[..., None] ** (_SYSTEM_GAMMA - 1)


def rolled_off(nits: np.ndarray) -> np.ndarray:
    """Light up to `PEAK_NITS` brought to `WHITE_NITS`: a Hermite spline in PQ code values."""
    peak = float(pq_code(PEAK_NITS))
    white = float(pq_code(WHITE_NITS)) / peak
    knee = 1.5 * white - 0.5
    code = np.minimum(pq_code(nits) / peak, 1.0)
    t = np.maximum(code - knee, 0.0) / (1 - knee)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * white
    )
    return np.where(code < knee, nits, pq_nits(curve * peak))


@functools.cache
def _to_bt709(primaries: int) -> np.ndarray:
    """Linear RGB of some primaries -> of BT.709, float32 [3, 3]."""
    return (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)).astype(np.float32)


@functools.cache
def _to_xyz(primaries: int) -> np.ndarray:
    """Linear RGB -> XYZ, float64 [3, 3]; white has Y = 1."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, [x / y, 1.0, (1 - x - y) / y])
