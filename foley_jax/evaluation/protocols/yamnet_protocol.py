"""Protocol `yamnet`: KL, cosine, IS and FAD by YAMNet's 521 AudioSet classes.

The one protocol of meaning whose weights are small and free (15 MB, Apache-2.0). It says whether an
audio clip sounds like the thing that is seen; it hears nothing of when (`onsets` does). No paper
reports it: its figures stand beside each other, not beside published ones.

KL(reference || generated) of the classes: mean scores of an audio clip's windows, at least 1e-6,
divided by their sum. The cosine is that of the mean embeddings. FAD takes all windows of a set, as
`audioldm-eval` takes VGGish's. Audio clips count in their whole length, windows of 0.96 s every
0.48 s, silence behind those that are shorter than one; a rest at the end is left out (preset
"official": filled up with silence, as YAMNet's code does now).
Source: tensorflow/models research/audioset/yamnet.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation.networks import yamnet
from foley_jax.evaluation.protocols import (
    av_benchmark_figures,
    class_figures,
    feature_rules,
)
from foley_jax.evaluation.statistics import class_scores, pairs
from foley_jax.media import audio as audio_io
from foley_jax.media import container

NETWORK = "yamnet"
KL = pairs.Contrast("KL", ascending=False)
COSINE = pairs.Contrast("cosine")


def reader(seconds: float | None, *, whole: bool) -> feature_rules.Read:
    """Reads an audio clip at 16 kHz: its first `seconds` (None: all), `whole` without the rest that
    no window reaches, so that few lengths are compiled."""

    def read(path: Path) -> np.ndarray:
        audio_L = audio_io.load(path, yamnet.SAMPLE_RATE_HZ)
        if seconds is not None:
            audio_L = audio_L[: round(seconds * yamnet.SAMPLE_RATE_HZ)]
        if not audio_L.size:
            raise container.MediaError("empty", f"{path}: has no samples")
        audio_L = audio_L[: yamnet.whole_samples(len(audio_L))] if whole else audio_L
        missing = max(0, yamnet.LEAST_SAMPLES - len(audio_L))
        return np.pad(audio_L, (0, missing)).astype(np.float32)

    return read


class YamnetProtocol(feature_rules.FeatureRules):
    """The protocol."""

    name = "yamnet"
    judges = "what sounds (semantic sync), not when"
    key = "KL"
    ascending = False
    columns = {
        "KL": "KL",
        "KL low": "KL_low",
        "KL high": "KL_high",
        "shuffled": "shuffled_KL",
        "cosine": "cosine",
        "cosine low": "cosine_low",
        "cosine high": "cosine_high",
        "shuffled ": "shuffled_cosine",
        "FAD": "FAD",
        "IS": "IS",
    }
    more_columns = {"seeds": "seeds", "KL spread": "KL_std"}
    contrasts = (KL, COSINE)

    def __init__(self, networks: feature_rules.Networks, *, seconds: float | None = None):
        """Args:
        networks: where YAMNet is looked for.
        seconds: cut every audio clip to these; None: no cut.
        """
        self.seconds, extractions = seconds, {}
        if networks.has(NETWORK):
            whole = networks.preset_of(NETWORK) == "default"
            reading = {"seconds": seconds, "whole": whole}
            # lengths may differ
            made = networks.extraction(NETWORK, reader(seconds, whole=whole), reading, batch_size=1)
            extractions = {NETWORK: made}
        super().__init__(networks, extractions)

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "seconds": self.seconds,
            "splits": class_figures.NUM_SPLITS,
            "least_score": yamnet.LEAST_SCORE,
        }

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """KL and cosine with their intervals and for wrong pairs, FAD, IS."""
        found = {"clips": len(heard), **self.distances(heard, reference)}
        found |= class_figures.inception(heard, NETWORK, "logits")
        of_pairs = class_scores.softmax_kl_of_pairs
        found |= class_figures.kl_figures(KL, of_pairs, heard, reference, NETWORK)
        own_ND = _means(heard)
        true_ND = _means({name: reference[name] for name in heard})
        wrong = [
            av_benchmark_figures.cosines(own_ND, np.roll(true_ND, -shift, axis=0)).mean()
            for shift in pairs.rotations(len(own_ND))
        ]
        own = av_benchmark_figures.cosines(own_ND, true_ND)
        return found | pairs.of_means(COSINE, own, wrong)

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FAD over windows of 0.96 s."""
        both = (feature_rules.stacked(x, NETWORK, "embedding") for x in (heard, reference))
        return {"FAD": feature_rules.frechet(*both)}

    def row(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        of_pairs = class_scores.softmax_kl_of_pairs
        mine, true = (_means({"": item}) for item in (heard, reference))
        return {
            "KL": class_figures.kl_row(of_pairs, heard, reference, NETWORK),
            "cosine": float(av_benchmark_figures.cosines(mine, true)[0]),
        }


def _means(items: Mapping[str, Mapping]) -> np.ndarray:
    """The mean embedding of every item, float64 [N, D]."""
    rows = [item[NETWORK]["embedding"].astype(np.float64).mean(axis=0) for item in items.values()]
    return np.stack(rows)
