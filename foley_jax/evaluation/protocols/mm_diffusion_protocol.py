"""Protocol `mm-diffusion`: FVD, KVD and FAD x 10^4 of clips with video and audio.

Nothing is paired: all clips of a folder against all of the reference, both read from .mp4 (so both
have been through lossy coding, as officially). A clip is 1.6 s: 16 frames at 10 fps, letterboxed
to 64x64, and 44.1 kHz audio. Longer videos give all their whole clips, one after the other; of
more than 2048 a fixed random choice counts, of fewer all, and the number stands beside the figures:
distances of unlike numbers cannot be compared. State the split of the reference: the official
figures are against the *training* set (see `foley_jax.evaluation.memorisation`).

Presets: "default" puts AudioCLIP in evaluation mode and feeds it at its range; "official"
reproduces the published script: batch statistics over 8 clips (in the order of their names; the
script shuffles), audio clips in [-1, 1] where 16-bit range is expected, images resized without
antialias. There only the first clip of a video counts. Distances are in float64 (officially
float32: a set against itself gave -0.003).
Source: MM-Diffusion evaluator.py, evaluations/.
"""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation.networks import audioclip
from foley_jax.evaluation.protocols import feature_rules
from foley_jax.evaluation.statistics import distances
from foley_jax.media import audio as audio_io
from foley_jax.media import container, files, specs
from foley_jax.media import video as video_io

FPS, FRAMES, SIDE = 10.0, 16, 64
SECONDS = FRAMES / FPS
NUM_CLIPS = 2048
FAD_SCALE = 1e4
OFFICIAL_BATCH = 8
CHOICE_SEED = 0


def read_videos(path: Path, *, antialias: bool) -> np.ndarray:
    """All whole clips of a video, uint8 [K, 16, 64, 64, 3].

    Raises:
      MediaError: as `video.read_frames`; "empty" of a video that is too short.
    """
    spec = specs.VideoSpec(FPS, SIDE, SIDE, "letterbox", antialias)
    frames = video_io.read_frames(path, spec)
    count = len(frames) // FRAMES
    if not count:
        raise container.MediaError(
            "empty", f"{path}: {len(frames)} frames at {FPS:g} fps, expected {FRAMES}"
        )
    return frames[: count * FRAMES].reshape(count, FRAMES, SIDE, SIDE, 3)


def read_audio(path: Path, count: int) -> np.ndarray:
    """The audio of so many clips, float32 [K, 70560], silence where it ends early.

    Raises:
      MediaError: as `audio.load`.
    """
    audio_L = audio_io.load(path, audioclip.SAMPLE_RATE_HZ, duration_s=count * SECONDS)
    return audio_L.reshape(count, -1)


def in_parts(compute: Callable[[np.ndarray], Mapping[str, np.ndarray]]) -> Callable:
    """`compute` over the clips of one file, [1, K, ...] -> [1, K, ...], in parts of 8, 4, 2, 1.

    No clip is computed in vain, and few shapes are compiled.
    """

    def computed(batch: np.ndarray) -> dict[str, np.ndarray]:
        clips, parts = batch[0], []
        while len(clips):
            size = min(feature_rules.MAX_BATCH, 1 << (len(clips).bit_length() - 1))
            parts.append(compute(clips[:size]))
            clips = clips[size:]
        return {key: np.concatenate([part[key] for part in parts])[None] for key in parts[0]}

    return computed


class MmDiffusion(feature_rules.FeatureRules):
    """The protocol."""

    name = "mm-diffusion"
    key = "FVD"
    ascending = False
    is_paired = False
    suffixes = files.VIDEO_SUFFIXES
    columns = {"FVD": "FVD", "KVD": "KVD", "FAD x 10^4": "FAD"}
    more_columns = {
        "seeds": "seeds",
        "FVD spread": "FVD_std",
        "KVD spread": "KVD_std",
        "FAD spread": "FAD_std",
    }

    def __init__(self, networks: feature_rules.Networks, *, split: str):
        """Args:
        networks: where I3D and AudioCLIP are looked for; its preset is the protocol's.
        split: of the data the reference is from, in words: it is printed with the figures.
        """
        self.split, self.official = split, networks.preset == "official"
        self._clips_of: dict[Path, int] = {}  # how many whole clips a video has
        extractions = {}
        if networks.has("i3d"):
            extractions["i3d"] = self._images(networks)
        if networks.has("audioclip"):
            extractions["audioclip"] = self._audio(networks)
        super().__init__(networks, extractions)

    def _images(self, networks: feature_rules.Networks) -> Any:
        reading = {"fps": FPS, "frames": FRAMES, "side": SIDE, "antialias": not self.official}
        made = networks.extraction("i3d", self._read_videos, reading, batch_size=1, is_audio=False)
        return dataclasses.replace(made, compute=in_parts(made.compute))

    def _audio(self, networks: feature_rules.Networks) -> Any:
        reading = {"seconds": SECONDS, "first": self.official}
        if self.official:
            return networks.extraction(
                "audioclip",
                lambda path: self._read_audio(path)[0],
                reading,
                batch_size=OFFICIAL_BATCH,
                by_batch=True,
            )
        made = networks.extraction("audioclip", self._read_audio, reading, batch_size=1)
        return dataclasses.replace(made, compute=in_parts(made.compute))

    def _read_videos(self, path: Path) -> np.ndarray:
        clips = read_videos(path, antialias=not self.official)
        self._clips_of[path] = len(clips)
        return clips

    def _read_audio(self, path: Path) -> np.ndarray:
        if path not in self._clips_of:  # of an image whose features were kept already
            self._read_videos(path)
        return read_audio(path, self._clips_of[path])

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "reference_split": self.split,
            "preset": self.networks.preset,
            "most_clips": NUM_CLIPS,
        }

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FVD, KVD and FAD, and the number of clips that they are of."""
        return {"clips": self._count(heard), **self.distances(heard, reference)}

    def floor(self, heard: Mapping[str, Any]) -> dict[str, float]:
        """As all protocols', with the number of clips, not of videos."""
        found = super().floor(heard)
        return {**found, "clips": self._count(heard) // 2} if found else {}

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        found = {}
        if "i3d" in self.extractions:
            mine, true = (self._chosen(x, "i3d", "logits") for x in (heard, reference))
            found["FVD"] = feature_rules.frechet(mine, true)
            found["KVD"] = feature_rules.kernel_distance(distances.polynomial_mmd, mine, true)
        if "audioclip" in self.extractions:
            mine, true = (self._chosen(x, "audioclip", "embedding") for x in (heard, reference))
            found["FAD"] = feature_rules.frechet(mine, true, scale=FAD_SCALE)
        return found

    def _chosen(self, items: Mapping, network: str, feature: str) -> np.ndarray:
        """Features of at most `NUM_CLIPS` clips; officially of the first clip of each video."""
        if self.official:
            items = {name: {network: _first(item[network])} for name, item in items.items()}
        rows = feature_rules.stacked(items, network, feature)
        if len(rows) <= NUM_CLIPS:
            return rows
        return rows[np.random.default_rng(CHOICE_SEED).permutation(len(rows))[:NUM_CLIPS]]

    def _count(self, items: Mapping) -> int:
        network = next(iter(self.extractions))
        feature = "logits" if network == "i3d" else "embedding"
        return len(self._chosen(items, network, feature))


def _first(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: np.atleast_2d(value)[:1] for key, value in features.items()}
