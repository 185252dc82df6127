"""Protocol `specvqgan-melception`: FID, IS, MKL and KID of the Diff-Foley paper.

Melception's features of 10 s at 22.05 kHz (80 mels). Several samples of a video (folders of one
name: 10 in the paper) are one pool, as in SpecVQGAN's evaluation: every sample is compared with
its video, and all with all references. Audio clips are read at 22.05 kHz whatever their rate is
(the official script takes a .wav's samples for 22.05 kHz), cut to `seconds` and filled up with
silence to 10 s: where a system gives 8 s, cut the reference alike.
Source: SpecVQGAN evaluate.py, evaluation/configs/eval_melception_vggsound.yaml.
"""

from collections.abc import Mapping
from typing import Any

from foley_jax.evaluation.networks import melception
from foley_jax.evaluation.protocols import class_figures, feature_rules
from foley_jax.evaluation.statistics import class_scores, distances, pairs

NETWORK = "melception"


class SpecVqganMelception(feature_rules.FeatureRules):
    """The protocol."""

    name = "specvqgan-melception"
    judges = "what sounds (semantic sync), not when"
    key = "MKL"
    ascending = False
    pools_runs = True
    columns = {
        "FID": "FID",
        "IS": "IS",
        "MKL": "MKL",
        "MKL low": "MKL_low",
        "MKL high": "MKL_high",
        "shuffled": "shuffled_MKL",
        "KID": "KID",
    }
    more_columns = {"samples a video": "seeds"}
    contrasts = (pairs.Contrast("MKL", ascending=False),)

    def __init__(self, networks: feature_rules.Networks, *, seconds: float = melception.SECONDS):
        """Args:
        networks: where Melception is looked for.
        seconds: of every audio clip that count; the rest of 10 s is silence.
        """
        self.seconds = seconds
        rate_hz = melception.FRONT_END.sample_rate_hz
        read = feature_rules.read_audio(rate_hz, seconds)
        reading = {"rate_hz": rate_hz, "seconds": seconds}
        has = networks.has(NETWORK)
        extractions = {NETWORK: networks.extraction(NETWORK, read, reading)} if has else {}
        super().__init__(networks, extractions)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "seconds": self.seconds, "splits": class_figures.NUM_SPLITS}

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FID, IS, MKL, KID; MKL's interval over samples and its value for wrong pairs."""
        found = {"clips": len(heard), **self.distances(heard, reference)}
        found |= class_figures.inception(heard, NETWORK, "logits_unbiased")
        (contrast,), kl = self.contrasts, class_scores.mkl_of_pairs
        return found | class_figures.kl_figures(contrast, kl, heard, reference, NETWORK)

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FID and KID (100 subsets of at most 1000)."""
        mine, true = (feature_rules.stacked(x, NETWORK, "2048") for x in (heard, reference))
        kid = feature_rules.kernel_distance(
            lambda mine, true: distances.kernel_distance(mine, true).mean, mine, true
        )
        return {"FID": feature_rules.frechet(mine, true), "KID": kid}

    def row(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        kl = class_scores.mkl_of_pairs
        return {"MKL": class_figures.kl_row(kl, heard, reference, NETWORK)}
