"""Protocol `embedded`: does the audio follow the video, where the true events are known?

The reference is a folder (or several) of embedded scenes, NAME.mp4 beside NAME.json. Onsets are
found in the log-mel of an audio clip by one fixed detector and matched one-to-one with the true
events; levels of difficulty are scored apart. The true audio clips, and the same audio clips paired
with other videos, stand beside every result: a score means something only between these two. Clips
without struck events (continuous sources alone) count where the detector hears onsets in them: as
false alarms. Materials are told by a classifier fitted on the true audio clips of training scenes.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import embedded, onsets
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, pairs, scores
from foley_jax.media import container

DETECTOR = onsets.Detector()
MATERIAL = pairs.Contrast("material_accuracy")


class Embedded(rules_lib.ListeningRules):
    """The protocol."""

    name = "embedded"
    key = "f1@100ms"
    sample_rate_hz = embedded.AUDIO.sample_rate_hz
    columns = {
        "F1 @100 ms": "f1@100ms",
        "95 % interval": None,
        "shuffled": "shuffled_f1@100ms",
        "F1 @150 ms": "f1@150ms",
        "shuffled ": "shuffled_f1@150ms",
        "precision": "precision",
        "recall": "recall",
    }
    more_columns = {
        "material": "material_accuracy",
        "seeds": "seeds",
        "F1 spread": "f1@100ms_std",
        "align acc": "align_acc",
        "align spread": "align_acc_std",
        "CAVP similarity": "cavp_similarity",
    }

    contrasts = (*scores.CONTRASTS, MATERIAL)

    def __init__(self, train: Path | None = None):
        """Args:
        train: folder of training scenes, for the materials; None leaves these out.
        Raises:
          FileNotFoundError: it holds no scenes.
        """
        self.classify = None
        if train is not None:
            truth = embedded.read_truth(train)
            self.classify = embedded.MaterialClassifier.of_scenes(truth)

    def settings(self) -> dict[str, Any]:
        return {
            "detector": dataclasses.asdict(DETECTOR),
            "tolerances_s": scores.TOLERANCES_S,
            "span_s": scores.SPAN_S,
            "sample_rate_hz": self.sample_rate_hz,
            "num_pairings": pairs.NUM_PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def skipped(self) -> dict[str, str]:
        why = "skipped: no training scenes to learn materials from (--train=DIR)"
        return {"material": why} if self.classify is None else {}

    def listen(self, audio_L: np.ndarray) -> embedded.Heard:
        return embedded.hear(audio_L, DETECTOR)

    def refer(self, path: Path, heard: embedded.Heard) -> embedded.Truth:
        """The scene's true events, from the JSON file beside it.

        Raises:
          MediaError: there is none.
        """
        try:
            return embedded.read_scene(path.with_suffix(".json"))
        except (OSError, ValueError, KeyError) as error:
            raise container.MediaError(
                "no_truth",
                f"{path}: no true events beside it ({error}); make scenes with "
                "`python -m data_prep.scenes`, or use --protocol=onsets for other videos",
            ) from error

    def group(self, reference: embedded.Truth) -> str:
        return reference.level

    def figures(
        self, heard: Mapping[str, embedded.Heard], reference: Mapping[str, embedded.Truth]
    ) -> dict[str, float]:
        """Those of `scores.figures`, and the material accuracy over matched events."""
        clips = [reference[name] for name in heard]
        found = scores.figures([x.onsets_s for x in heard.values()], [c.times_s for c in clips])
        if self.classify is not None:
            audio_clips = list(heard.values())
            found |= embedded.material_figures(MATERIAL, clips, audio_clips, self.classify)
        return found

    def row(self, heard: embedded.Heard, reference: embedded.Truth) -> dict[str, float]:
        return scores.row(heard.onsets_s, reference.times_s)
