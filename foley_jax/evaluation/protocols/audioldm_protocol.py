"""Protocols `audioldm-eval` and `audioldm-eval-32k`: FD, FAD, KL and IS as AudioLDM reports them.

FD, both KLs and IS from PANNs Cnn14 at 16 or 32 kHz; FAD from all VGGish windows (16 kHz, without
the last ReLU) of a set laid end to end. Every audio clip counts in its whole length, less its mean,
at least 2 s (silence behind; 1 s at 32 kHz, as coded). Channels are averaged, where the tool takes
the first one; resampling is soxr's, where it is torchaudio's: figures of files that are mono and at
the right rate are the tool's own.
Source: haoheliu/audioldm_eval eval.py, datasets/load_mel.py `WaveDataset`, metrics/.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation.networks import vggish
from foley_jax.evaluation.protocols import class_figures, feature_rules
from foley_jax.evaluation.statistics import class_scores, pairs
from foley_jax.media import audio as audio_io
from foley_jax.media import container

MIN_SAMPLES = 32000


def reader(rate_hz: int, seconds: float | None) -> feature_rules.Read:
    """Reads an audio clip as the tool does; `seconds` None is its whole length."""

    def read(path: Path) -> np.ndarray:
        audio_L = audio_io.load(path, rate_hz)
        if not audio_L.size:
            raise container.MediaError("empty", f"{path}: has no samples")
        if seconds is not None:
            audio_L = audio_L[: round(seconds * rate_hz)]
        audio_L = audio_L - audio_L.mean()
        return np.pad(audio_L, (0, max(0, MIN_SAMPLES - len(audio_L)))).astype(np.float32)

    return read


class AudioLdmEval(feature_rules.FeatureRules):
    """The protocol at 16 kHz."""

    name = "audioldm-eval"
    judges = "what sounds (semantic sync), not when"
    key = "KL"
    ascending = False
    panns, rate_hz = "panns_16k", 16000
    columns = {
        "FD": "FD",
        "FAD": "FAD",
        "KL": "KL",
        "KL low": "KL_low",
        "KL high": "KL_high",
        "shuffled": "shuffled_KL",
        "KL sigmoid": "KL_sigmoid",
        "IS": "IS",
    }
    more_columns = {"seeds": "seeds", "KL spread": "KL_std"}
    contrasts = tuple(pairs.Contrast(key, ascending=False) for key in ("KL", "KL_sigmoid"))

    def __init__(self, networks: feature_rules.Networks, *, seconds: float | None = None):
        """Args:
        networks: where PANNs and VGGish are looked for.
        seconds: cut every audio clip to these; None, as the tool: no cut.
        """
        self.seconds = seconds
        rates = {self.panns: self.rate_hz, "vggish": vggish.SAMPLE_RATE_HZ}
        extractions = {
            name: networks.extraction(
                name,
                reader(rate_hz, seconds),
                {"rate_hz": rate_hz, "seconds": seconds, "like": "audioldm-eval"},
                batch_size=1,  # lengths may differ
            )
            for name, rate_hz in rates.items()
            if networks.has(name)
        }
        super().__init__(networks, extractions)

    def needs(self) -> tuple[str, ...]:
        return (self.panns, "vggish")

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "seconds": self.seconds, "splits": class_figures.NUM_SPLITS}

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FD, FAD, IS, KL (softmax) with its interval and for wrong pairs, KL_sigmoid."""
        found = {"clips": len(heard), **self.distances(heard, reference)}
        if self.panns not in self.extractions:
            return found
        found |= class_figures.inception(heard, self.panns, "logits")
        kinds = (class_scores.mkl_of_pairs, class_scores.sigmoid_kl_of_pairs)
        for contrast, kl in zip(self.contrasts, kinds, strict=True):
            found |= class_figures.kl_figures(contrast, kl, heard, reference, self.panns)
        return found

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FD over audio clips, FAD over windows of 0.96 s."""
        found = {}
        for key, name in (("FD", self.panns), ("FAD", "vggish")):
            if name in self.extractions:
                mine, true = (
                    feature_rules.stacked(x, name, "embedding") for x in (heard, reference)
                )
                found[key] = feature_rules.frechet(mine, true)
        return found

    def row(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        if self.panns not in self.extractions:
            return {}
        kl = class_scores.mkl_of_pairs
        return {"KL": class_figures.kl_row(kl, heard, reference, self.panns)}


class AudioLdmEval32k(AudioLdmEval):
    """The protocol at 32 kHz."""

    name = "audioldm-eval-32k"
    panns, rate_hz = "panns_32k", 32000
