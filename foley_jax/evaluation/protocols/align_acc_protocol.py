"""Protocol `align-acc`: the share of audio clips that the evaluation classifier finds in time.

Every audio clip, cut to its first 8.192 s, is judged beside the CAVP features of the first 8 s of
the reference video of its name. The official script reads the generated spectrograms, before any
vocoder; here the finished audio is analysed again, so that folders of any system can be judged. The
same audio clips beside other videos, and the videos' own audio, stand beside every result: the
classifier's own mistakes.
Source: Diff-Foley evaluation/align_acc.py, dataset.py.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx
import numpy as np

from foley_jax.evaluation import alignment, feature_store
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, pairs
from foley_jax.media import container, specs
from foley_jax.media import mel as mel_lib
from foley_jax.media import video as video_io

PAIRINGS = 4  # wrong pairings, each a whole judgement


@dataclasses.dataclass(frozen=True)
class Judge:
    """The networks of the protocol.

    Attributes:
      classifier: `diff_foley.alignment.AlignmentModel` trained on clean latents.
      features: uint8 frames [B, T, H, W, 3] -> unit CAVP features float32 [B, T, D].
      audio, video: what both read.
      num_frames, num_features: mel frames and features that are judged.
      identity: which weights, by content, for the run card and the store.
    """

    classifier: nnx.Module
    features: Callable[[np.ndarray], np.ndarray]
    audio: specs.AudioSpec
    video: specs.VideoSpec
    identity: Mapping[str, str]
    num_frames: int = alignment.NUM_FRAMES
    num_features: int = alignment.NUM_FEATURES


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A reference: its video's features [L, D]."""

    features_LD: np.ndarray


class AlignAcc(rules_lib.ListeningRules):
    """The protocol."""

    name = "align-acc"
    judges = "both at once: a pair is wrong if its audio is another video's, or comes late"
    key = "Align Acc"
    columns = {
        "Align Acc": "Align Acc",
        "low": "Align Acc_low",
        "high": "Align Acc_high",
        "shuffled": "shuffled Align Acc",
        "mean probability": "probability",
    }
    more_columns = {"seeds": "seeds", "spread": "Align Acc_std"}
    contrasts = (
        pairs.Contrast("Align Acc", shuffled="shuffled Align Acc"),
        pairs.Contrast("probability"),
    )

    def __init__(self, judge: Judge, store: feature_store.FeatureStore, *, seed: int = 0):
        """Args:
        judge: the networks.
        store: where the features of videos are kept.
        seed: of the posterior's noise.
        """
        self.judge, self.store, self.seed = judge, store, seed
        self.sample_rate_hz = judge.audio.sample_rate_hz
        video = dataclasses.asdict(judge.video)
        key = feature_store.key_of(network="cavp", video=video, **judge.identity)
        self._features = feature_store.Extraction(
            "cavp",
            key,
            self._frames,
            lambda frames_BTHWC: {"rows": np.asarray(judge.features(frames_BTHWC))},
            batch_size=1,
            is_audio=False,
        )
        self._judged: dict[tuple[int, int], tuple[float, Any, Any]] = {}

    def settings(self) -> dict[str, Any]:
        return {
            "weights": dict(self.judge.identity),
            "mel_frames": self.judge.num_frames,
            "rows": self.judge.num_features,
            "seed": self.seed,
            "num_pairings": PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def listen(self, audio_L: np.ndarray) -> np.ndarray:
        """The mel of its beginning, float32 [F, `num_frames`]."""
        audio, frames = self.judge.audio, self.judge.num_frames
        need = frames * audio.hop
        if len(audio_L) + audio.hop < need:
            has_s, need_s = (n / audio.sample_rate_hz for n in (len(audio_L), need))
            raise container.MediaError("empty", f"{has_s:.2f} s of audio, not {need_s:.2f} s")
        audio_L = np.pad(audio_L[:need], (0, max(0, need - len(audio_L))))
        return np.asarray(mel_lib.log_mel(audio_L[None], audio))[0, :, :frames]

    def refer(self, path: Path, heard: np.ndarray) -> Seen:
        """The features of the reference's image.

        Raises:
          MediaError: no video, or a shorter one.
        """
        found = self.store.extract({"x": path}, self._features, "rows")
        if found.unreadable:
            raise container.MediaError("no_video", found.unreadable["x"])
        return Seen(found.items["x"]["rows"])

    def figures(self, heard: Mapping, reference: Mapping[str, Seen]) -> dict[str, float]:
        """Align Acc and the mean probability, each with its interval and for wrong pairs."""
        names = list(heard)
        audio_clips = [heard[n] for n in names]
        prob_N = self._probabilities(audio_clips, [reference[n] for n in names])
        shifts = pairs.rotations(len(names))
        shifts = shifts[:: max(1, len(shifts) // PAIRINGS)][:PAIRINGS]
        wrong = [
            self._probabilities(audio_clips, [reference[n] for n in names[shift:] + names[:shift]])
            for shift in shifts
        ]
        accuracy, probability = self.contrasts
        hits_N = (np.round(prob_N) == 1).astype(np.float64)
        return {
            "clips": len(names),
            **pairs.of_means(accuracy, hits_N, [alignment.accuracy(prob) for prob in wrong]),
            **pairs.of_means(probability, prob_N, [float(prob.mean()) for prob in wrong]),
        }

    def row(self, heard: np.ndarray, reference: Seen) -> dict[str, float]:
        prob = float(self._probabilities([heard], [reference])[0])
        return {"Align Acc": float(np.round(prob) == 1), "probability": prob}

    def _probabilities(self, mels: Sequence[np.ndarray], seen: Sequence[Seen]) -> np.ndarray:
        """Returns the probability of every pair; what was judged once is remembered."""
        keys = [(id(mel), id(s)) for mel, s in zip(mels, seen, strict=True)]
        new = [place for place, key in enumerate(keys) if key not in self._judged]
        if new:
            found = alignment.align_acc(
                self.judge.classifier,
                [mels[place] for place in new],
                [seen[place].features_LD for place in new],
                seed=self.seed,
                num_frames=self.judge.num_frames,
                num_features=self.judge.num_features,
            )
            for place, prob in zip(new, found.prob_N, strict=True):
                # the objects are held, so that their ids stay theirs
                self._judged[keys[place]] = (float(prob), mels[place], seen[place])
        return np.array([self._judged[key][0] for key in keys])

    def _frames(self, path: Path) -> np.ndarray:
        """The frames of the features, uint8 [T, H, W, 3]."""
        count = self.judge.num_features
        frames = video_io.read_frames(path, self.judge.video)[:count]
        if len(frames) < count:
            raise container.MediaError(
                "empty", f"{path}: {len(frames)} frames of {count} that are judged"
            )
        return frames
