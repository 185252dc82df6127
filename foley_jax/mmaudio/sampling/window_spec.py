"""Where the windows of a clip lie: segments of Synchformer, latents, and frames that CLIP sees.

All are placed by absolute time, so nothing drifts. A segment begins every 0.32 s, a latent is 32 ms
(16 kHz) or 23.2 ms (44.1 kHz), a frame of CLIP 125 ms: a window begins where all three begin
together, nearly enough.
"""

import dataclasses
import math

import numpy as np

from foley_jax.diffusion import windows
from foley_jax.mmaudio import rates as rates_lib

OVERLAP_S = 2.0
MAX_SKEW_S = 0.02


@dataclasses.dataclass(frozen=True)
class WindowSpec(windows.WindowSpec):
    """The lengths of one window; a feature is a segment's stride.

    Attributes:
      lengths: latents, frames of CLIP and features of Synchformer of a window.
    """

    lengths: rates_lib.Lengths = rates_lib.Lengths(0, 0, 0, 0)

    def clip_of(self, segment: int) -> int:
        """The frame of CLIP that is nearest to the beginning of a segment."""
        return round(segment * self.feature_s * rates_lib.CLIP_FPS)

    def skew_s(self, segment: int) -> float:
        """How far a segment, its latent and its frame of CLIP lie apart."""
        clip_s = abs(segment * self.feature_s - self.clip_of(segment) / rates_lib.CLIP_FPS)
        return max(super().skew_s(segment), clip_s)


def window_spec(
    rates: rates_lib.Rates, window_s: float = rates_lib.WINDOW_S, overlap_s: float = OVERLAP_S
) -> WindowSpec:
    """Returns the window of a duration, as the official code rounds its lengths."""
    lengths = rates.lengths(window_s)
    return WindowSpec(
        num_features=round(window_s / rates_lib.SEGMENT_S),
        num_columns=lengths.latents,
        feature_s=rates_lib.SEGMENT_S,
        column_s=rates.latent_s,
        overlap_s=overlap_s,
        max_skew_s=MAX_SKEW_S,
        lengths=lengths,
    )


def plan(duration_s: float, spec: WindowSpec) -> list[windows.Window]:
    """Returns windows that cover a duration, neighbours overlapping; see `windows.plan`."""
    # a length that rounding leaves a little above a whole number of segments
    return windows.plan(max(1, math.ceil(duration_s / spec.feature_s - 1e-6)), spec)


def clip_features(clip_TD: np.ndarray, plan: list[windows.Window], spec: WindowSpec) -> np.ndarray:
    """CLIP's features of every window, float32 [N, V, D]; past the end the last one repeats."""
    first = np.array([spec.clip_of(window.feature) for window in plan])
    index = np.minimum(first[:, None] + np.arange(spec.lengths.clip), len(clip_TD) - 1)
    return np.asarray(clip_TD, np.float32)[index]


def sync_features(sync_TD: np.ndarray, plan: list[windows.Window], spec: WindowSpec) -> np.ndarray:
    """Synchformer's features of every window, float32 [N, S, D]; past the end the last segment's.

    Args:
      sync_TD: 8 for every segment.
    """
    segments = np.asarray(sync_TD, np.float32).reshape(
        -1, rates_lib.SEGMENT_FEATURES, sync_TD.shape[-1]
    )
    first = np.array([window.feature for window in plan])
    index = np.minimum(first[:, None] + np.arange(spec.lengths.segments), len(segments) - 1)
    # [N, S/8, 8, D] -> [N, S, D]
    return segments[index].reshape(len(plan), spec.lengths.sync, -1)
