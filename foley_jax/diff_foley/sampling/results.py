"""Results of sampling with Diff-Foley: a mel, then audio with scores; and which is best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.sampling import packed_windows


class Result(NamedTuple):
    """Generated audio: float32 [samples], the log-mel [F, T] it was made from, scores.

    `sample` is its number among those of its seed; `fault` says why it is no audio, or is empty.
    Of long videos both arrays are `np.memmap`s of files without a name; see `spool.Spool`.
    """

    audio: np.ndarray
    mel_FT: np.ndarray
    scores: dict[str, float]
    sample: int = 0
    fault: str = ""


class GeneratedMel(NamedTuple):
    """A generated mel that is no audio yet.

    Attributes:
      source: the video it is for.
      draw: what its noise came from.
      mel_FT: joined log-mel.
      alignment: the classifier's probability of a match, or None.
      fault: why the mel is not finite; empty if it is.
    """

    source: sources_lib.Viewed
    draw: packed_windows.NoiseSeed
    mel_FT: np.ndarray
    alignment: float | None
    fault: str = ""


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first: by the mean of the ranks under every score that all results have.

    Ties go to the score named last (the classifier's, where there is one). Results that could
    not be scored (nan: too short a video) keep their order, and those that are no audio come last.
    """
    lost = [result for result in results if result.fault]
    if lost and len(lost) < len(results):
        return [*ranked([result for result in results if not result.fault]), *lost]
    names = [n for n in results[0].scores if not any(np.isnan(r.scores[n]) for r in results)]
    values = {n: np.array([r.scores[n] for r in results]) for n in names}
    ranks = sum(np.argsort(np.argsort(-v, kind="stable")) for v in values.values())
    last = -values[names[-1]] if names else np.zeros(len(results))
    order = np.lexsort((last, np.broadcast_to(ranks, len(results))))
    return [results[i] for i in order]
