"""All protocols by name, and what each needs beside the folders."""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.protocols import (
    align_acc_protocol,
    audioldm_protocol,
    av_align_protocol,
    av_benchmark_figures,
    av_benchmark_protocol,
    desync_protocol,
    embedded_protocol,
    feature_rules,
    mm_diffusion_protocol,
    onset_protocol,
    specvqgan_protocol,
    yamnet_protocol,
)
from foley_jax.evaluation.protocols import rules as rules_lib


@dataclasses.dataclass(frozen=True)
class Means:
    """Means that protocols may be made of; each takes what it needs.

    Attributes:
      networks: those of a folder of weights; None without one.
      store: where features are kept.
      judge: gives the networks of Align Acc.
      train: training scenes of the embedded set.
      seconds: of every audio clip that count; None is the protocol's own.
      split: of the data the reference is from, in words.
      cache: where av-benchmark's caches lie, or are written.
      preset: of av-benchmark; networks have their own.
      captions: CSV file of av-benchmark's captions.
    """

    networks: feature_rules.Networks | None
    store: feature_store.FeatureStore
    judge: Callable[[], align_acc_protocol.Judge] | None = None
    train: Path | None = None
    seconds: float | None = None
    split: str | None = None
    cache: Path | None = None
    preset: av_benchmark_figures.Preset = "default"
    captions: Path | None = None


def _needs_weights(name: str, means: Means) -> feature_rules.Networks:
    if means.networks is None:
        raise ValueError(
            f"protocol {name} needs --weights=DIR, a folder of its networks' files; or "
            "`python -m foley_jax.evaluation.weights`, which lists and fetches them"
        )
    return means.networks


def _align_acc(means: Means) -> rules_lib.Rules:
    if means.judge is None:
        raise ValueError("protocol align-acc needs --classifier=PATH and --cavp=PATH")
    return align_acc_protocol.AlignAcc(means.judge(), means.store)


def _seconds(means: Means) -> dict[str, float]:
    return {} if means.seconds is None else {"seconds": means.seconds}


def _specvqgan(means: Means) -> rules_lib.Rules:
    kind = specvqgan_protocol.SpecVqganMelception
    return kind(_needs_weights(kind.name, means), **_seconds(means))


def _yamnet(means: Means) -> rules_lib.Rules:
    kind = yamnet_protocol.YamnetProtocol
    return kind(_needs_weights(kind.name, means), **_seconds(means))


def _audioldm(kind: type[audioldm_protocol.AudioLdmEval]) -> Callable[[Means], rules_lib.Rules]:
    return lambda means: kind(_needs_weights(kind.name, means), **_seconds(means))


def _av_benchmark(means: Means) -> rules_lib.Rules:
    return av_benchmark_protocol.AvBenchmark(
        means.networks,
        cache=means.cache,
        preset=means.preset,
        captions=means.captions,
        **_seconds(means),
    )


def _desync(means: Means) -> rules_lib.Rules:
    kind = desync_protocol.DeSync
    return kind(_needs_weights(kind.name, means), preset=means.preset, **_seconds(means))


def _mm_diffusion(means: Means) -> rules_lib.Rules:
    kind = mm_diffusion_protocol.MmDiffusion
    if not means.split:
        raise ValueError(
            f'protocol {kind.name} needs --split="...": which part of the data the reference is '
            "(the official figures are against the training set)"
        )
    return kind(_needs_weights(kind.name, means), split=means.split)


PROTOCOLS: Mapping[str, Callable[[Means], rules_lib.Rules]] = {
    "onsets": lambda means: onset_protocol.Onsets(),
    "av-align": lambda means: av_align_protocol.AvAlign(),
    "embedded": lambda means: embedded_protocol.Embedded(means.train),
    "align-acc": _align_acc,
    "yamnet": _yamnet,
    "specvqgan-melception": _specvqgan,
    "audioldm-eval": _audioldm(audioldm_protocol.AudioLdmEval),
    "audioldm-eval-32k": _audioldm(audioldm_protocol.AudioLdmEval32k),
    "av-benchmark": _av_benchmark,
    "desync": _desync,
    "mm-diffusion": _mm_diffusion,
}


def parse(text: str) -> list[str]:
    """Names of protocols with commas between, each once.

    Raises:
      ValueError: an unknown one.
    """
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        _check(name)
    return names


def _check(name: str) -> None:
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")


def make(name: str, means: Means) -> rules_lib.Rules:
    """A protocol by name.

    Raises:
      ValueError: what it needs is not there; the message names the option to give.
    """
    _check(name)
    return PROTOCOLS[name](means)
