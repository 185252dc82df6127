"""Every network that a metric needs: its weight file, what it reads, what it gives.

    found = registry.find("weights/")            # which networks can be used, which not and why
    registry.skipped("weights/")["mm-diffusion/FVD"]
    i3d = registry.load("i3d", "weights/", convert.load_torch)
    i3d(videos_BTHWC)["logits"]

Weights come from the user. Where a file is missing every metric that needs it is skipped by name,
with the reason; there is no figure in its place. A metric is named PROTOCOL/METRIC.
B batch, L audio samples, T frames, H W C image, N windows.
"""

from collections.abc import Callable, Mapping
import dataclasses
import os
from pathlib import Path
from typing import Literal

from flax import nnx
import jax
import numpy as np

from foley_jax.evaluation.networks import (
    audioclip,
    captions,
    extractors,
    keras_weights,
    kinetics_weights,
    laion_clap,
    melception,
    ms_clap,
    passt,
    synchformer,
    vggish,
    weights_folder,
    yamnet,
)
from foley_jax.runtime import network

Preset = extractors.Preset


@dataclasses.dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
      kind: name of its checkpoint for `foley_jax.convert`.
      files: names under which its weights are published; one of them is needed.
      reads: "audio", float [B, L] in [-1, 1] at `rate_hz`; "video", uint8 [B, T, H, W, 3];
        "mels and rows", which `evaluation.alignment.align_acc` takes; "tokens", int [B, 2, T] of
        `captions`; "mels" and "crops" of `imagebind_inputs`, float [B, 3, 128, 204] and uint8 [B,
        K, 2, 224, 224, 3]; "features", those of Synchformer's encoders, video and audio.
      rate_hz: samples a second of audio clips; 0 where the protocol sets the frames a second.
      metrics: what cannot be computed without it.
      features: (module, batch, arrays of `beside`, preset) -> arrays by name, traceable; None
        where a metric calls the module itself.
      model: fields of the converted module that differ from the kind's.
      beside: (file name, reader) of further files that the features need.
      needs: further files that whoever makes the batches reads.
      presets: settings by which the features differ.
    """

    kind: str
    files: tuple[str, ...]
    reads: Literal["audio", "video", "mels and rows", "tokens", "mels", "crops", "features"]
    rate_hz: int
    metrics: tuple[str, ...]
    features: Callable[[nnx.Module, jax.Array, tuple, Preset], extractors.Features] | None
    model: Mapping[str, object] = dataclasses.field(default_factory=dict)
    beside: tuple[tuple[str, Callable[[Path], np.ndarray]], ...] = ()
    presets: tuple[Preset, ...] = ("default",)
    needs: tuple[str, ...] = ()


def _clap(kind: str, file: str, rate_hz: int, metric: str) -> dict[str, Entry]:
    """The two towers of one file: a score needs both."""
    both = {"kind": kind, "files": (file,), "metrics": (metric,)}
    folder = captions.TOKENISERS[f"{kind}_text"][1]
    needs = tuple(f"{folder}/{name}" for name in captions.FILES)
    return {
        kind: Entry(**both, reads="audio", rate_hz=rate_hz, features=extractors.clap_audio),
        f"{kind}_text": Entry(
            **both, reads="tokens", rate_hz=0, features=extractors.clap_text, needs=needs
        ),
    }


_SYNCHFORMER_FILES = ("synchformer_state_dict.pth", "24-01-04T16-39-21.pt")
_DESYNC = ("av-benchmark/DeSync", "desync/DeSync")

# of one file: its encoders and what compares them
_SYNCHFORMER: Mapping[str, Entry] = {
    "synchformer_audio": Entry(
        kind="synchformer/audio",
        files=_SYNCHFORMER_FILES,
        reads="audio",
        rate_hz=synchformer.RATE_HZ,
        metrics=_DESYNC,
        features=extractors.synchformer_audio,
    ),
    "synchformer_video": Entry(
        kind="synchformer/visual",
        files=_SYNCHFORMER_FILES,
        reads="video",
        rate_hz=0,
        metrics=_DESYNC,
        features=extractors.synchformer_video,
    ),
    "synchformer_joint": Entry(
        kind="synchformer/joint",
        files=_SYNCHFORMER_FILES,
        reads="features",
        rate_hz=0,
        metrics=_DESYNC,
        features=extractors.offsets,
    ),
}
# the two towers of one file
_IMAGEBIND: Mapping[str, Entry] = {
    f"imagebind_{tower}": Entry(
        kind=f"imagebind/{kind}",
        files=("imagebind_huge.pth",),
        reads=reads,
        rate_hz=0,
        metrics=("av-benchmark/IB-Score",),
        features=extractors.embedded,
    )
    for tower, kind, reads in (("audio", "audio", "mels"), ("video", "vision", "crops"))
}

NETWORKS: Mapping[str, Entry] = {
    # both protocols leave out the last ReLU of torchvggish
    "vggish": Entry(
        kind="vggish",
        files=("vggish-10086976.pth",),
        reads="audio",
        rate_hz=vggish.SAMPLE_RATE_HZ,
        metrics=("av-benchmark/FD-VGG", "audioldm-eval/FAD", "audioldm-eval-32k/FAD"),
        features=extractors.windows,
        model={"last_relu": False},
    ),
    "panns_16k": Entry(
        kind="panns/cnn14_16k",
        files=("Cnn14_16k_mAP=0.438.pth",),
        reads="audio",
        rate_hz=16000,
        metrics=(
            "av-benchmark/FD-PANN",
            "av-benchmark/KL-PANNS-softmax",
            "av-benchmark/ISC-PANNS-mean",
            "av-benchmark/ISC-PANNS-std",
            "audioldm-eval/FD",
            "audioldm-eval/KL",
            "audioldm-eval/KL_sigmoid",
            "audioldm-eval/IS",
        ),
        features=extractors.tags,
    ),
    "panns_32k": Entry(
        kind="panns/cnn14_32k",
        files=("Cnn14_mAP=0.431.pth",),
        reads="audio",
        rate_hz=32000,
        metrics=(
            "audioldm-eval-32k/FD",
            "audioldm-eval-32k/KL",
            "audioldm-eval-32k/KL_sigmoid",
            "audioldm-eval-32k/IS",
        ),
        features=extractors.tags,
    ),
    "melception": Entry(
        kind="melception",
        files=("melception-21-05-10T09-28-40.pt",),
        reads="audio",
        rate_hz=melception.FRONT_END.sample_rate_hz,
        metrics=(
            "specvqgan-melception/FID",
            "specvqgan-melception/IS",
            "specvqgan-melception/MKL",
            "specvqgan-melception/KID",
        ),
        features=extractors.mels,
        beside=((melception.STATISTICS_FILE, melception.load_statistics),),
    ),
    "i3d": Entry(
        kind="fvd/i3d",
        files=kinetics_weights.I3D_FILES,
        reads="video",
        rate_hz=0,
        metrics=("mm-diffusion/FVD", "mm-diffusion/KVD"),
        features=extractors.video,
    ),
    "audioclip": Entry(
        kind="audioclip/audio",
        files=("AudioCLIP-Full-Training.pt",),
        reads="audio",
        rate_hz=audioclip.SAMPLE_RATE_HZ,
        metrics=("mm-diffusion/FAD",),
        features=extractors.audio,
        presets=tuple(audioclip.PRESETS),
    ),
    **_clap(
        "laion_clap",
        "music_speech_audioset_epoch_15_esc_89.98.pt",
        laion_clap.SAMPLE_RATE_HZ,
        "av-benchmark/LAION-CLAP-Score",
    ),
    **_clap(
        "ms_clap",
        "CLAP_weights_2023.pth",
        ms_clap.SAMPLE_RATE_HZ,
        "av-benchmark/MS-CLAP-Score",
    ),
    "yamnet": Entry(
        kind="yamnet",
        files=keras_weights.YAMNET_FILES,
        reads="audio",
        rate_hz=yamnet.SAMPLE_RATE_HZ,
        metrics=("yamnet/FAD", "yamnet/KL", "yamnet/cosine", "yamnet/IS"),
        features=extractors.scores,
        presets=("default", "official"),
    ),
    "passt": Entry(
        kind="passt",
        files=("passt-s-f128-p16-s10-ap.476-swa.pt",),
        reads="audio",
        rate_hz=passt.RATE_HZ,
        metrics=(
            "av-benchmark/FD-PASST",
            "av-benchmark/KL-PASST-softmax",
            "av-benchmark/ISC-PASST-mean",
            "av-benchmark/ISC-PASST-std",
        ),
        features=extractors.tags,
    ),
    **_SYNCHFORMER,
    **_IMAGEBIND,
    "alignment": Entry(
        kind="diff_foley/eval_classifier",
        files=("eval_classifier.ckpt",),
        reads="mels and rows",
        rate_hz=16000,
        metrics=("align-acc/Align Acc",),
        features=None,
    ),
}


def _entry(name: str) -> Entry:
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known networks: {', '.join(NETWORKS)}")
    return NETWORKS[name]


@dataclasses.dataclass(frozen=True)
class Found:
    """Everything that a folder of weights allows.

    Attributes:
      files: network -> (weights, further files...), of those that can be loaded.
      missing: network -> why it cannot be.
    """

    files: Mapping[str, tuple[Path, ...]]
    missing: Mapping[str, str]


def find(folder: str | os.PathLike) -> Found:
    """Looks for the files of every network in a folder, then in the usual one; none is read."""
    folder, files, missing = Path(folder), {}, {}
    for name, entry in NETWORKS.items():
        places = [weights_folder.place_of(file, folder) for file in entry.files]
        present = [place for place in places if place is not None][:1]
        absent = [] if present else [" or ".join(entry.files)]
        for file, _ in entry.beside:
            place = weights_folder.place_of(file, folder)
            (absent if place is None else present).append(place or folder / file)
        absent += [file for file in entry.needs if weights_folder.place_of(file, folder) is None]
        if absent:
            names = " and ".join(str(Path(file)).removeprefix(f"{folder}/") for file in absent)
            missing[name] = f"no {names} in {folder}"
        else:
            files[name] = tuple(present)
    return Found(files, missing)


def skipped(folder: str | os.PathLike) -> dict[str, str]:
    """Metric -> why it cannot be computed with the weights in a folder; for tables and cards."""
    missing = find(folder).missing
    return {
        metric: f"skipped: {reason}"
        for name, reason in missing.items()
        for metric in NETWORKS[name].metrics
    }


class Extractor:
    """A loaded network as a compiled function of batches."""

    def __init__(
        self, entry: Entry, module: nnx.Module, beside: tuple[np.ndarray, ...], preset: Preset
    ):
        """Args:
        entry: what it is.
        module: with its weights.
        beside: the arrays of `entry.beside`.
        preset: one of `entry.presets`.
        """
        if entry.features is None:
            raise ValueError(f"{entry.kind} gives no features; its metric calls it itself")
        if preset not in entry.presets:
            raise ValueError(
                f"{entry.kind} has no preset {preset!r}; it has {', '.join(entry.presets)}"
            )
        self.entry, features = entry, entry.features
        self._call = network.Network.of(module).jit(
            lambda module, batch, beside: features(module, batch, beside, preset)
        )
        self._beside = beside

    def __call__(self, batch: np.ndarray | jax.Array) -> dict[str, np.ndarray]:
        """Features of a batch, as `entry.reads` describes it; every new shape compiles anew."""
        return jax.device_get(self._call(batch, self._beside))


def load(
    name: str,
    folder: str | os.PathLike,
    load_torch: Callable[..., nnx.Module],
    *,
    preset: Preset = "default",
) -> Extractor:
    """A network with the weights in a folder.

    Args:
      name: of `NETWORKS`.
      folder: where the weight files lie under their published names.
      load_torch: `foley_jax.convert.load_torch`, which reads them; the caller gives it, for the
        converter stands on a higher floor.
      preset: "default", or "official" where the official code does something else.
    Raises:
      FileNotFoundError: a file is missing; the message names the metrics that need it.
      ValueError: unknown network or preset.
      fill.ConversionError: the file does not hold this network.
    """
    entry = _entry(name)
    found = find(folder)
    if name in found.missing:
        raise FileNotFoundError(
            f"{name}: {found.missing[name]}; needed for {', '.join(entry.metrics)}"
        )
    weights, *further = found.files[name]
    readers = (read for _, read in entry.beside)
    beside = tuple(read(path) for read, path in zip(readers, further, strict=True))
    return Extractor(entry, load_torch(entry.kind, weights, **entry.model), beside, preset)
