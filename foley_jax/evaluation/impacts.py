"""Visible impacts: a small network that tells from an image alone when something was hit.

For every frame it sees the frame, the one before and the one after, and says whether this is the
first to show a new blow, and how long ago that blow fell. `impact_training` fits it on scenes
whose events are known.

Axis letters: B batch, T frames, H W image, C channels.
"""

from collections.abc import Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import fitting, pixels, specs
from foley_jax.runtime import network as network_lib

LONGEST_DELAY_S = 0.15  # one frame at 10 fps, and half as much for sources of 20 fps and more


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the detector; every value goes into the key of its cached weights.

    Attributes:
      fps: frames per second that it looks at.
      size: sides of its images, pixels.
      width: channels of its first layer.
      min_gap_s: two impacts are never closer than this.
      steps, batch, learning_rate, seed: of its training.
      blow_share: of a training batch, frames that are the first to show a blow.
      holdout_every: one in so many training clips only chooses the threshold.
      window_frames: length of the clips it will be used on, for the choice of the threshold.
    """

    fps: float = 10.0
    size: int = 32
    width: int = 16
    min_gap_s: float = 0.15
    steps: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    seed: int = 0
    blow_share: float = 0.25
    holdout_every: int = 10
    window_frames: int = 16

    @property
    def video(self) -> specs.VideoSpec:
        return specs.VideoSpec(fps=self.fps, height=self.size, width=self.size)


class ImpactNet(nnx.Module):
    """Three convolutions, a maximum over the image, a dense layer."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        pad = ((1, 1), (1, 1))
        self.conv1 = nnx.Conv(9, width, (3, 3), strides=2, padding=pad, rngs=rngs)
        self.conv2 = nnx.Conv(width, 2 * width, (3, 3), strides=2, padding=pad, rngs=rngs)
        self.conv3 = nnx.Conv(2 * width, 2 * width, (3, 3), padding=pad, rngs=rngs)
        self.dense = nnx.Linear(2 * width, 2, rngs=rngs)

    def __call__(self, triple_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Looks at frames with their neighbours.

        Args:
          triple_BHWC: float in about [-1, 1], [B, H, W, 9]: the frame before, the frame, the next.
        Returns:
          Logits float [B] that the middle frame is the first to show a blow, and how long ago
          it fell, in units of `LONGEST_DELAY_S`, float [B].
        """
        before, now, after = jnp.split(triple_BHWC, 3, axis=-1)
        # differences are small beside the image; 3 makes them as large
        x = jnp.concatenate([now, 3 * (now - before), 3 * (after - now)], axis=-1)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = nnx.relu(conv(x))
        out = self.dense(x.max(axis=(1, 2)))  # [B, H, W, C] -> [B, C] -> [B, 2]
        return out[:, 0], out[:, 1]


def network(width: int) -> tuple[nnx.GraphDef, dict]:
    """Static definition of the network, and the shapes of its weights as a nested dict."""
    abstract = network_lib.shapes(lambda rngs: ImpactNet(width, rngs=rngs))
    graphdef, state = nnx.split(abstract)
    return graphdef, nnx.to_pure_dict(state)


def triples(frames_THWC: np.ndarray, size: int) -> np.ndarray:
    """Every frame with its neighbours, at the network's size; ends are repeated.

    Args:
      frames_THWC: uint8 [T, H, W, 3], at any size.
    Returns:
      uint8 [T, size, size, 9].
    Raises:
      ValueError: not a clip of uint8 images.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames_THWC.dtype}{list(frames_THWC.shape)}, wanted uint8 [T, H, W, 3]"
        )
    spec = specs.VideoSpec(height=size, width=size)
    small = np.stack([fitting.fit(frame, spec) for frame in frames_THWC])
    padded = np.concatenate([small[:1], small, small[-1:]])
    return np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=-1)


def pick(
    score_T: np.ndarray, delay_T: np.ndarray, threshold: float, fps: float, min_gap_s: float
) -> np.ndarray:
    """Times of impacts from the network's answers, one per frame.

    The strongest frame over the threshold wins against those closer than `min_gap_s`; the first
    frame has none before it and shows nothing new.

    Args:
      score_T: probability of a blow, float [T].
      delay_T: seconds from the blow to the time of its frame, float [T].
    Returns:
      Seconds, ascending, float64 [num_impacts].
    """
    kept: list[int] = []
    for frame in np.argsort(-score_T, kind="stable"):
        far = all(abs(frame - other) / fps >= min_gap_s - 1e-9 for other in kept)
        if frame > 0 and score_T[frame] > threshold and far:
            kept.append(int(frame))
    at = np.array(sorted(kept), np.int64)
    return at / fps - np.clip(delay_T[at], 0.0, LONGEST_DELAY_S).astype(np.float64)


class Detector:
    """A trained network and its threshold: frames in, times of impacts out."""

    def __init__(self, settings: Settings, params: dict, threshold: float):
        self.settings, self.params, self.threshold = settings, params, threshold
        graphdef, _ = network(settings.width)
        self._forward = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))

    def answers(self, triple_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of a blow and its delay in seconds, float [T] each.

        Args:
          triple_THWC: [T, size, size, 9], uint8 or float in [-1, 1].
        """
        if triple_THWC.dtype == np.uint8:
            triple_THWC = pixels.from_uint8(triple_THWC)
        logit_T, delay_T = jax.device_get(self._forward(self.params, triple_THWC))
        return 1 / (1 + np.exp(-logit_T.astype(np.float64))), delay_T * LONGEST_DELAY_S

    def times(self, answers: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Times of impacts in seconds from `answers`."""
        return pick(*answers, self.threshold, self.settings.fps, self.settings.min_gap_s)

    def __call__(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Times of visible impacts in seconds, ascending, float64 [num_impacts].

        Args:
          frames_THWC: uint8 [T, H, W, 3] at `settings.fps`, any size; frame i shows i / fps.
        Raises:
          ValueError: not a clip of uint8 images.
        """
        return self.times(self.answers(triples(frames_THWC, self.settings.size)))


def windows(num_frames: int, length: int) -> Sequence[slice]:
    """Whole, not overlapping stretches of `length` frames."""
    return [slice(at, at + length) for at in range(0, num_frames - length + 1, length)]
