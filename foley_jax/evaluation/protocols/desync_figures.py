"""DeSync of clips from Synchformer's features: its figure, its interval, its wrong pairs.

N clips, S segments.
Source: av-benchmark av_bench/evaluate.py.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from foley_jax.evaluation.statistics import desync, pairs

NUM_SEGMENTS = 14  # that the network judges at a time
BATCH = 16
MOST_PAIRINGS = 4  # wrong ones: each goes through a network
Offsets = Callable[[tuple[np.ndarray, np.ndarray]], Mapping[str, np.ndarray]]
Pair = tuple[np.ndarray, np.ndarray]


class Judge:
    """Absolute offsets of pairs of features; of a pair that was judged before nothing is computed.

    Args:
      load: gives the network `synchformer_joint` of `networks.registry`, when it is first asked.
    """

    def __init__(self, load: Callable[[], Offsets]):
        self._load, self._network, self._known = load, None, {}

    def __call__(self, features: Sequence[Pair]) -> np.ndarray:
        """Seconds, float64 [N]: the mean of the first and the last 4.8 s that both have.

        Args:
          features: (video [S, 8, 768], audio [S, 6, 768]) of every clip; S >= 14.
        Raises:
          ValueError: fewer segments.
        """
        keys = [tuple(hash(x.tobytes()) for x in pair) for pair in features]
        new = dict(zip(keys, features, strict=True))
        new = {key: pair for key, pair in new.items() if key not in self._known}
        if new:
            self._known |= dict(zip(new, self._judge(list(new.values())), strict=True))
        return np.array([self._known[key] for key in keys])

    def _judge(self, features: Sequence[Pair]) -> np.ndarray:
        self._network = self._network or self._load()
        windows = [_windows(*pair) for pair in features]
        logits = []
        for place in (0, 1):
            video, audio = (np.stack([w[place][k] for w in windows]) for k in (0, 1))
            logits.append(self._logits(video, audio))
        return desync.desync_from_logits(*logits)

    def _logits(self, video: np.ndarray, audio: np.ndarray) -> np.ndarray:
        """In batches of one size, the last one filled up with its last item."""
        found = []
        for first in range(0, len(video), BATCH):
            part = [x[first : first + BATCH] for x in (video, audio)]
            count = len(part[0])
            full = [np.concatenate([x, np.repeat(x[-1:], BATCH - count, 0)]) for x in part]
            found.append(np.asarray(self._network(tuple(full))["logits"])[:count])
        return np.concatenate(found)


def _windows(video: np.ndarray, audio: np.ndarray) -> tuple[Pair, Pair]:
    """The first and the last 14 segments of what both have."""
    count = min(len(video), len(audio))
    if count < NUM_SEGMENTS:
        raise ValueError(f"{count} segments, DeSync needs {NUM_SEGMENTS} (4.8 s)")
    first, last = slice(NUM_SEGMENTS), slice(count - NUM_SEGMENTS, count)
    return (video[first], audio[first]), (video[last], audio[last])


def figures(
    contrast: pairs.Contrast, judge: Judge, video: Sequence[np.ndarray], audio: Sequence[np.ndarray]
) -> dict[str, float]:
    """Mean over clips, its interval, and the mean with other clips' videos.

    Args:
      video, audio: features of every clip and of its partner.
    """
    right = judge(list(zip(video, audio, strict=True)))
    shifts = pairs.rotations(len(video))
    shifts = shifts[:: -(-len(shifts) // MOST_PAIRINGS) or 1]
    wrong = [
        judge(list(zip((*video[shift:], *video[:shift]), audio, strict=True))).mean()
        for shift in shifts
    ]
    return pairs.of_means(contrast, right, wrong)
