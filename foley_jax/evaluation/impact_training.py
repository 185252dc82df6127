"""Fits the detector of visible impacts on scenes whose events are known.

Never sees a generated clip: weights come from training clips, the threshold from others of the
same split. Images are degraded in training (colours, blur, noise), because generated ones are.

Axis letters: N all frames, B batch, T frames, H W image, C channels.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
from pathlib import Path

from flax import nnx, traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from foley_jax.evaluation import impacts, onsets
from foley_jax.media import pixels

REVISION = 1  # of this file: a change here must not find weights of before
THRESHOLDS = np.arange(0.05, 0.96, 0.05)
TOLERANCE_S = 0.1
DELAY_WEIGHT = 3.0
MISSING_NEXT = 0.1  # share of examples without a next frame, as at the end of a clip


@dataclasses.dataclass(frozen=True)
class Example:
    """A video with known blows.

    Attributes:
      name: of the clip.
      frames_THWC: uint8 at the detector's rate and size.
      times_s: of its blows, float [num_blows].
      source_fps: rate of the file the frames came from.
    """

    name: str
    frames_THWC: np.ndarray
    times_s: np.ndarray
    source_fps: float


def labels(example: Example, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are the first to show a blow, and how long after it they stand.

    Frame i shows the last source frame at or before i / fps, so a blow between that one and
    i / fps is seen only in frame i + 1. Blows of the first frame and after the last are left out.

    Returns:
      float32 [T], 1 for such frames, and seconds, float32 [T], 0 for others.
    """
    count = len(example.frames_THWC)
    frame_s = np.arange(count) / fps
    shown_s = np.floor(frame_s * example.source_fps + 1e-3) / example.source_fps
    is_first, delay_s = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for time_s in example.times_s:
        frame = int(np.searchsorted(shown_s, time_s - 1e-4))
        if 0 < frame < count:
            is_first[frame], delay_s[frame] = 1.0, frame_s[frame] - time_s
    return is_first, delay_s


def draw_degradation(count: int, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random colours, blur, noise and mirroring of `count` triples of size x size pixels.

    Drawn by numpy: on a CPU jax's generator would cost more than the network.
    """
    one = (count, 1, 1, 1)
    tint = rng.normal(1.0, 0.15, (count, 1, 1, 3))
    return {
        "gain": (rng.uniform(0.6, 1.3, one) * np.tile(tint, 3)).astype(np.float32),
        "brightness": rng.normal(0.0, 0.2, one).astype(np.float32),
        "mirror": rng.random(one) < 0.5,
        "blur": (rng.random(one) * (rng.random(one) < 0.5)).astype(np.float32),
        "noise": rng.integers(0, 256, (count, size, size, 9), np.uint8),
        "loudness": rng.uniform(0.0, 0.1, one).astype(np.float32),
    }


def degrade(x_BHWC: jax.Array, drawn: dict[str, jax.Array]) -> jax.Array:
    """Triples of frames with other colours, mirrored, blurred and noisy, each in its own measure.

    Args:
      x_BHWC: float [B, H, W, 9] in [-1, 1].
      drawn: what `draw_degradation` gives.
    Returns:
      float [B, H, W, 9]; values may leave [-1, 1].
    """
    x = x_BHWC * drawn["gain"] + drawn["brightness"]
    x = jnp.where(drawn["mirror"], x[:, :, ::-1], x)
    x = x + drawn["blur"] * (_blur(x) - x)
    noise = (drawn["noise"].astype(jnp.float32) - 127.5) / 73.9  # uniform, of unit variance
    return x + drawn["loudness"] * noise


def _blur(x_BHWC: jax.Array) -> jax.Array:
    """Binomial blur over 3x3 pixels."""
    padded = jnp.pad(x_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4


_degrade = jax.jit(degrade)


class _Frames:
    """All frames of the training clips, and batches of triples with their labels."""

    def __init__(self, examples: Sequence[Example], settings: impacts.Settings):
        self.frames_NHWC = np.concatenate([e.frames_THWC for e in examples])
        found = [labels(e, settings.fps) for e in examples]
        self.is_first_N, self.delay_N = (np.concatenate(part) for part in zip(*found))
        self.blows = np.flatnonzero(self.is_first_N)
        self.others = np.flatnonzero(self.is_first_N == 0)
        if not len(self.blows) or not len(self.others):
            raise ValueError(
                f"{len(examples)} training clips show {len(self.blows)} blows in "
                f"{len(self.frames_NHWC)} frames; the detector needs frames with and without"
            )
        index = [np.arange(len(e.frames_THWC)) for e in examples]
        starts = np.cumsum([0, *(len(i) for i in index[:-1])])
        self.before_N = np.concatenate([s + np.maximum(i - 1, 0) for s, i in zip(starts, index)])
        self.after_N = np.concatenate(
            [s + np.minimum(i + 1, len(i) - 1) for s, i in zip(starts, index)]
        )

    def batch(self, size: int, blow_share: float, rng: np.random.Generator):
        """(triples uint8 [B, H, W, 9], is_first float [B], delay in seconds float [B])."""
        num_blows = round(size * blow_share)
        at = np.concatenate(
            [rng.choice(self.blows, num_blows), rng.choice(self.others, size - num_blows)]
        )
        after = np.where(rng.random(size) < MISSING_NEXT, at, self.after_N[at])
        triple = np.concatenate([self.frames_NHWC[i] for i in (self.before_N[at], at, after)], -1)
        return triple, self.is_first_N[at], self.delay_N[at]


def _loss(net: impacts.ImpactNet, triple_BHWC, is_first_B, delay_B) -> jax.Array:
    logit_B, guess_B = net(triple_BHWC)
    hit = optax.sigmoid_binary_cross_entropy(logit_B, is_first_B).mean()
    late = is_first_B * (guess_B - delay_B / impacts.LONGEST_DELAY_S) ** 2
    return hit + DELAY_WEIGHT * late.mean()


def _draw_weights(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Normal weights of variance 1 / fan-in for kernels, and zeros for biases."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    fan_in = np.prod(shape[:-1])
    return rng.normal(0.0, fan_in**-0.5, shape).astype(np.float32)


def train(examples: Sequence[Example], settings: impacts.Settings) -> dict:
    """Weights of the detector: a nested dict of arrays.

    Raises:
      ValueError: no example shows a blow, or every frame does.
    """
    data = _Frames(examples, settings)
    graphdef, shapes = impacts.network(settings.width)
    rng = np.random.default_rng(settings.seed)
    params = jax.tree.map(lambda leaf: _draw_weights(leaf.shape, rng), shapes)
    optimizer = optax.adam(optax.cosine_onecycle_schedule(settings.steps, settings.learning_rate))
    moments = optimizer.init(params)

    def step(params, moments, drawn, triple_BHWC, is_first_B, delay_B):
        x_BHWC = degrade(triple_BHWC.astype(jnp.float32) / 127.5 - 1.0, drawn)
        gradient = jax.grad(lambda p: _loss(nnx.merge(graphdef, p), x_BHWC, is_first_B, delay_B))
        updates, moments = optimizer.update(gradient(params), moments)
        return optax.apply_updates(params, updates), moments

    compiled = jax.jit(step, donate_argnums=(0, 1))
    for _ in tqdm.trange(settings.steps, desc="impact detector", unit="step", leave=False):
        batch = data.batch(settings.batch, settings.blow_share, rng)
        drawn = draw_degradation(settings.batch, settings.size, rng)
        params, moments = compiled(params, moments, drawn, *batch)
    return params


def degraded(triple_THWC: np.ndarray, *, seed: int) -> np.ndarray:
    """Triples uint8 [T, H, W, 9] as training shows them, float32."""
    count, size = triple_THWC.shape[:2]
    drawn = draw_degradation(count, size, np.random.default_rng(seed))
    return np.asarray(_degrade(pixels.from_uint8(triple_THWC), drawn))


def choose_threshold(detector: impacts.Detector, examples: Sequence[Example]) -> float:
    """The threshold of the best F1 at 100 ms on clips cut as they will be, clean and degraded.

    Of several equally good ones it is the middle one.
    """
    settings = detector.settings
    totals = [onsets.Counts()] * len(THRESHOLDS)
    for number, example in enumerate(examples):
        for window in impacts.windows(len(example.frames_THWC), settings.window_frames):
            triple = impacts.triples(example.frames_THWC[window], settings.size)
            true_s = seen_times(example.times_s, window, settings.fps)
            for x in (triple, degraded(triple, seed=number)):
                answers = detector.answers(x)
                for i, threshold in enumerate(THRESHOLDS):
                    times_s = impacts.pick(*answers, threshold, settings.fps, settings.min_gap_s)
                    totals[i] += onsets.count(times_s, true_s, TOLERANCE_S)
    f1 = np.nan_to_num([total.f1 for total in totals])
    best = np.flatnonzero(f1 == f1.max())
    return float(THRESHOLDS[best[len(best) // 2]])


def seen_times(times_s: np.ndarray, window: slice, fps: float) -> np.ndarray:
    """Events that a stretch of frames shows, on its own clock: (0, time of the last frame]."""
    own_s = np.asarray(times_s, np.float64) - window.start / fps
    return own_s[(own_s > 0) & (own_s <= (window.stop - window.start - 1) / fps)]


def fit(examples: Sequence[Example], settings: impacts.Settings) -> impacts.Detector:
    """Trains on most examples and chooses the threshold on the others.

    Raises:
      ValueError: too few examples to keep any back, or they show no blows.
    """
    examples = sorted(examples, key=lambda e: e.name)
    kept_back = examples[:: settings.holdout_every]
    used = [e for i, e in enumerate(examples) if i % settings.holdout_every]
    if not used:
        raise ValueError(
            f"{len(examples)} training clips are too few: one in {settings.holdout_every} is kept "
            "back for the threshold"
        )
    detector = impacts.Detector(settings, train(used, settings), 0.5)
    return impacts.Detector(settings, detector.params, choose_threshold(detector, kept_back))


def key_of(settings: impacts.Settings, truth: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Names a detector by what it is made from: settings, names and events of training clips."""
    facts = {
        "revision": REVISION,
        "settings": dataclasses.asdict(settings),
        "truth": sorted((name, [round(float(t), 4) for t in times]) for name, times in truth),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def save(path: Path, detector: impacts.Detector) -> None:
    """Writes weights and threshold; the file appears only when complete."""
    arrays = traverse_util.flatten_dict(jax.device_get(detector.params), sep="/")
    part = path.with_name(f".{path.name}.part.npz")
    np.savez(part, threshold=detector.threshold, **{f"params/{k}": v for k, v in arrays.items()})
    os.replace(part, path)


def load(path: Path, settings: impacts.Settings) -> impacts.Detector:
    """Reads what `save` wrote for the same settings."""
    with np.load(path) as arrays:
        flat = {k.removeprefix("params/"): arrays[k] for k in arrays if k.startswith("params/")}
        threshold = float(arrays["threshold"])
    return impacts.Detector(settings, traverse_util.unflatten_dict(flat, sep="/"), threshold)
