"""DeSync: by how much a synchronisation network thinks that the audio is late or early.

N clips, G classes of offset.
"""

import numpy as np

# Synchformer's classes: offsets of the audio in seconds, 0.2 apart; float32 as in the source
GRID_S = np.linspace(-2.0, 2.0, 21).astype(np.float32)


def desync_from_logits(logits_first_NG: np.ndarray, logits_last_NG: np.ndarray) -> np.ndarray:
    """Absolute offset of every clip, the mean of its first and its last 4.8 seconds.

    av-benchmark averages all 2 N absolute offsets; the mean of what comes back is that number.

    Args:
      logits_first_NG: float [N, 21], Synchformer's answer to the first 14 segments of each clip.
      logits_last_NG: the same of its last 14 segments.
    Returns:
      float64 [N], seconds in [0, 2].
    Raises:
      ValueError: other shapes, or values that are not finite.
    Source: av-benchmark av_bench/evaluate.py (`DeSync`), synchformer.py `make_class_grid`.
    """
    pair = [np.asarray(logits) for logits in (logits_first_NG, logits_last_NG)]
    for logits in pair:
        if logits.ndim != 2 or logits.shape != (len(pair[0]), len(GRID_S)) or not logits.size:
            raise ValueError(
                f"logits of shapes {pair[0].shape} and {pair[1].shape}, expected equal "
                f"[N, {len(GRID_S)}]"
            )
        if not np.isfinite(logits).all():
            raise ValueError("logits hold values that are not finite")
    offsets = [np.abs(GRID_S[logits.argmax(axis=1)]).astype(np.float64) for logits in pair]
    return np.mean(offsets, axis=0)
