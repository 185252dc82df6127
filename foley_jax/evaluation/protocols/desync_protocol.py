"""Protocol `desync`: by how many seconds audio is late or early, as Synchformer hears it.

The mean over clips of |offset|, that of its first and that of its last 4.8 s, in seconds from 0 to
2: av-benchmark's DeSync, without the rest of that tool. What is heard and seen of a file, and where
the presets differ, stands in `av_benchmark_audio` and `av_benchmark_video`; the reference must be
videos. Wrong pairs show what chance gives: about 0.9 s where all 21 offsets are as likely.
"""

from collections.abc import Mapping
import functools
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.protocols import (
    av_benchmark_audio,
    av_benchmark_video,
    desync_figures,
    feature_rules,
    protocol,
)
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, pairs

SECONDS = 8.0
KEY = "DeSync"
_AUDIO, _VIDEO, _JOINT = "synchformer_audio", "synchformer_video", "synchformer_joint"
PRESETS = ("default", "official")


class DeSync(feature_rules.FeatureRules):
    """The protocol. An item is network -> "embedding" -> features; the reference's has both."""

    name = "desync"
    judges = "when things sound (temporal sync), not what they are"
    key = KEY
    ascending = False
    columns = {
        "DeSync (s)": KEY,
        "low": f"{KEY}_low",
        "high": f"{KEY}_high",
        "shuffled": f"shuffled_{KEY}",
    }
    more_columns = {"seeds": "seeds", "spread": f"{KEY}_std"}
    contrasts = (pairs.Contrast(KEY, ascending=False),)

    def __init__(
        self, networks: feature_rules.Networks, *, seconds: float = SECONDS, preset: str = "default"
    ):
        """Args:
        networks: where Synchformer is looked for.
        seconds: of every clip that count; at least 4.8.
        preset: "official" refuses what is shorter than `seconds`, and resamples as torchaudio.
        Raises:
          ValueError: no weights, too few seconds, or an unknown preset.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}, expected 'default' or 'official'")
        if seconds < av_benchmark_audio.SYNCHFORMER_MIN_S:
            raise ValueError(
                f"seconds is {seconds}, Synchformer needs {av_benchmark_audio.SYNCHFORMER_MIN_S}"
            )
        networks.missing(self.name, self.needs())
        self.networks, self.seconds, self.preset, self._skipped = networks, seconds, preset, {}
        self.extractions = {_AUDIO: self._heard(), _VIDEO: self._seen()}
        self._judge = desync_figures.Judge(functools.partial(networks.load, _JOINT))

    def _heard(self) -> feature_store.Extraction:
        heard, official = av_benchmark_audio.HEARD[_AUDIO], self.preset == "official"
        read = functools.partial(
            heard.read, seconds=self.seconds, min_s=heard.min_s, as_torchaudio=official
        )
        reading = {"like": "av-benchmark", "seconds": self.seconds, "as_torchaudio": official}
        return self.networks.extraction(_AUDIO, read, reading, batch_size=1)

    def _seen(self) -> feature_store.Extraction:
        official = self.preset == "official"
        read = av_benchmark_video.SEEN[_VIDEO].reader(self.seconds, official)
        reading = {"like": "av-benchmark", "seconds": self.seconds, "exact": official}
        return self.networks.extraction(_VIDEO, read, reading, batch_size=1, is_audio=False)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": {name: self.networks.identity(name) for name in (_AUDIO, _VIDEO, _JOINT)},
            "seconds": self.seconds,
            "preset": self.preset,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def extract_features(self, paths: Mapping[str, Path], what: str) -> rules_lib.Extracted:
        """Features of the audio, and of the reference's videos."""
        names = (_AUDIO, _VIDEO) if what == protocol.REFERENCE else (_AUDIO,)
        store = self.networks.store
        found = {name: store.extract(paths, self.extractions[name], what) for name in names}
        unreadable = {n: why for part in found.values() for n, why in part.unreadable.items()}
        items = {
            n: {name: part.items[n] for name, part in found.items()}
            for n in paths
            if n not in unreadable
        }
        silent = tuple(n for n in found[_AUDIO].silent if n in items)
        return rules_lib.Extracted(items, unreadable, silent)

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """DeSync with its interval, and with wrong pairs."""
        pairs_of = [_pair(heard[name], reference[name]) for name in heard]
        video, audio = ([pair[k] for pair in pairs_of] for k in (0, 1))
        found = desync_figures.figures(self.contrasts[0], self._judge, video, audio)
        return {"clips": len(heard), **found}

    def row(self, heard: Mapping, reference: Mapping | None) -> dict[str, float]:
        return {KEY: float(self._judge([_pair(heard, reference)])[0])}

    def floor(self, heard: Mapping) -> dict[str, float]:
        return {}


def _pair(heard: Mapping, reference: Mapping) -> tuple[np.ndarray, np.ndarray]:
    return reference[_VIDEO]["embedding"], heard[_AUDIO]["embedding"]
