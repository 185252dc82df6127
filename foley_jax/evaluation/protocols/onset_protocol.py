"""Protocol `onsets`: are a system's onsets where those of the true audio are? Needs no weights.

For any folder of audio clips (or videos with audio): item NAME is judged against NAME of the
reference. One fixed detector (`onsets.Detector`) hears both at 16 kHz; only onsets within the
reference's length count. Items that are missing or cannot be read are listed and not scored; silent
ones are listed and scored. The reference against itself, and the same audio clips paired with other
items, stand beside every result.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from foley_jax.evaluation import embedded, onsets
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, onset_scores, pairs, scores

DETECTOR = onsets.Detector()
# the whole curve of precision over recall needs weak peaks too
SENSITIVE = dataclasses.replace(DETECTOR, threshold=0.005)


@dataclasses.dataclass(frozen=True)
class Heard:
    """Onsets of one audio clip: those of the detector, and all peaks with their confidence."""

    onsets_s: np.ndarray
    peaks: onset_scores.Detections
    length_s: float

    def until(self, end_s: float) -> "Heard":
        """Without what comes later than `end_s`."""
        kept = self.peaks.times_s <= end_s
        peaks = onset_scores.Detections(self.peaks.times_s[kept], self.peaks.confidence[kept])
        return Heard(self.onsets_s[self.onsets_s <= end_s], peaks, min(self.length_s, end_s))


@dataclasses.dataclass(frozen=True)
class Onsets(rules_lib.ListeningRules):
    """The protocol."""

    name = "onsets"
    judges = "when things sound (temporal sync), not what they are"
    key = "f1@100ms"
    sample_rate_hz = embedded.AUDIO.sample_rate_hz
    columns = {
        "F1 @100 ms": "f1@100ms",
        "95 % interval": None,
        "shuffled": "shuffled_f1@100ms",
        "F1 @150 ms": "f1@150ms",
        "F1 @50-500 ms": "f1@50-500ms",
        "shuffled ": "shuffled_f1@50-500ms",
        "precision": "precision",
        "recall": "recall",
        "onset AP": "onset_ap",
        "count acc": "count_accuracy",
    }
    more_columns = {"seeds": "seeds", "F1 spread": "f1@100ms_std"}
    contrasts = (*scores.CONTRASTS, *onset_scores.CONTRASTS)

    def settings(self) -> dict[str, Any]:
        return {
            "detector": dataclasses.asdict(DETECTOR),
            "ap_threshold": SENSITIVE.threshold,
            "tolerances_s": scores.TOLERANCES_S,
            "span_s": scores.SPAN_S,
            "sample_rate_hz": self.sample_rate_hz,
            "num_pairings": pairs.NUM_PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def listen(self, audio_L: np.ndarray) -> Heard:
        """Onsets of an audio clip; none if it is shorter than a window."""
        length_s = len(audio_L) / self.sample_rate_hz
        if len(audio_L) < embedded.AUDIO.n_fft:
            return Heard(np.zeros(0), onset_scores.Detections(np.zeros(0), np.zeros(0)), length_s)
        heard = embedded.hear(audio_L, DETECTOR)
        peaks = onset_scores.Detections(*SENSITIVE.peaks(heard.mel_FT, embedded.AUDIO.frame_s))
        return Heard(heard.onsets_s, peaks, length_s)

    def figures(
        self, heard: Mapping[str, Heard], reference: Mapping[str, Heard]
    ) -> dict[str, float]:
        """Those of `scores.figures` and of `onset_scores.figures`."""
        ends_s = [reference[name].length_s for name in heard]
        cut = [audio.until(end_s) for audio, end_s in zip(heard.values(), ends_s)]
        # an onset can be found half a window behind the end
        true_s = [reference[name].until(end_s).onsets_s for name, end_s in zip(heard, ends_s)]
        heard_s = [audio.onsets_s for audio in cut]
        more = onset_scores.figures([audio.peaks for audio in cut], heard_s, true_s)
        return scores.figures(heard_s, true_s) | more

    def row(self, heard: Heard, reference: Heard) -> dict[str, float]:
        both = (audio.until(reference.length_s).onsets_s for audio in (heard, reference))
        return scores.row(*both)
