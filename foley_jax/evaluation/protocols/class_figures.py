"""Figures of class logits, for protocols on features: KL of pairs beside wrong pairs, IS.

N items, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from foley_jax.evaluation.protocols import feature_rules
from foley_jax.evaluation.statistics import class_scores, pairs, remarks

OfPairs = Callable[[np.ndarray, np.ndarray], np.ndarray]
NUM_SPLITS = 10


def kl_figures(
    contrast: pairs.Contrast,
    of_pairs: OfPairs,
    heard: Mapping[Any, Mapping],
    reference: Mapping[str, Mapping],
    network: str,
) -> dict[str, float]:
    """Mean KL over samples, its interval, and the mean with other items' references.

    Args:
      contrast: the figure, smaller is better.
      of_pairs: logits of samples and of their references, [N, K] each -> [N].
      heard: name, or (name, run) -> features.
    """
    logits_NK = feature_rules.stacked(heard, network, "logits")
    names = [feature_rules.name_of(item) for item in heard]
    own = of_pairs(logits_NK, _of(reference, names, network))
    videos = list(dict.fromkeys(names))
    wrong = []
    for shift in pairs.rotations(len(videos)):
        other = dict(zip(videos, videos[shift:] + videos[:shift], strict=True))
        turned = _of(reference, [other[name] for name in names], network)
        wrong.append(of_pairs(logits_NK, turned).mean())
    return pairs.of_means(contrast, own, wrong, len(videos))


def kl_row(of_pairs: OfPairs, heard: Mapping, reference: Mapping, network: str) -> float:
    """KL of one sample and its reference."""
    logits = [np.atleast_2d(item[network]["logits"]) for item in (heard, reference)]
    return float(of_pairs(*logits)[0])


def inception(
    heard: Mapping[Any, Mapping], network: str, feature: str, *, key: str = "IS"
) -> dict[str, float]:
    """Inception Score over ten splits of the items by name: KEY and KEY_splits_std.

    Of less than ten items both are absent: ten splits need as many.
    """
    ordered = dict(sorted(heard.items(), key=lambda item: str(item[0])))
    logits_NK = feature_rules.stacked(ordered, network, feature)
    if len(logits_NK) < NUM_SPLITS:
        need = f"{NUM_SPLITS} splits need as many"
        few = remarks.too_few(len(logits_NK), "audio clip", need)
        return {key: few, f"{key}_splits_std": few}
    found = class_scores.inception_score(logits_NK, num_splits=NUM_SPLITS)
    return {key: found.mean, f"{key}_splits_std": found.std}


def _of(reference: Mapping[str, Mapping], names: Sequence[str], network: str) -> np.ndarray:
    rows = {name: np.asarray(reference[name][network]["logits"], np.float64) for name in set(names)}
    return np.stack([rows[name] for name in names])
