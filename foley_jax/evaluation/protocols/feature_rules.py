"""Protocols on features of networks: what they share.

Features come from the networks of `networks.registry` through the feature store. Where a weight
file is missing, the metrics that need it are skipped by name; where none is there, the protocol
says what it looked for. D features, N items.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from pathlib import Path
from typing import Any

from flax import nnx
import numpy as np

from foley_jax.evaluation import feature_store, run_card
from foley_jax.evaluation.networks import registry
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.statistics import bootstrap
from foley_jax.media import audio as audio_io
from foley_jax.media import container

Read = Callable[[Path], np.ndarray]
HALVES_SEED = 0
MAX_BATCH = 8


class Networks:
    """The networks that a folder of weights allows, loaded when something must be computed."""

    def __init__(
        self,
        weights: Path,
        load_torch: Callable[..., nnx.Module],
        store: feature_store.FeatureStore,
        *,
        preset: registry.Preset = "default",
    ):
        """Args:
        weights: folder with files under their published names.
        load_torch: `foley_jax.convert.load_torch`.
        store: where features are kept.
        preset: "official" takes a network's official behaviour where it has one.
        """
        self.weights, self.store, self.preset = weights, store, preset
        self._load_torch = load_torch
        self._found = registry.find(weights)

    def missing(self, protocol_name: str, networks: Sequence[str]) -> dict[str, str]:
        """Metric of a protocol -> why it cannot be computed, of those networks.

        Raises:
          ValueError: none of the networks can be used.
        """
        lacking = {n: self._found.missing[n] for n in networks if n in self._found.missing}
        if len(lacking) == len(networks):
            reasons = "; ".join(f"{name}: {why}" for name, why in lacking.items())
            raise ValueError(f"protocol {protocol_name} has no network to compare with: {reasons}")
        metrics = {
            metric.split("/")[1]: f"skipped: {why}"
            for name, why in lacking.items()
            for metric in registry.NETWORKS[name].metrics
            if metric.split("/")[0] == protocol_name
        }
        return metrics

    def has(self, network: str) -> bool:
        return network in self._found.files

    def preset_of(self, network: str) -> registry.Preset:
        """The preset a network is used with: the wanted one, if it has it."""
        return self.preset if self.preset in registry.NETWORKS[network].presets else "default"

    def identity(self, network: str) -> dict[str, Any]:
        """For the run card: which files, by content, and which preset."""
        hashes = {path.name: run_card.content_hash(path) for path in self._found.files[network]}
        return {"weights_sha256": hashes, "preset": self.preset_of(network)}

    def extraction(
        self, network: str, read: Read, reading: Mapping[str, Any], **options: Any
    ) -> feature_store.Extraction:
        """How a network's features come out of a file.

        Args:
          read: file -> what the network takes, without batch axis.
          reading: everything that `read` does, JSON-able, for the key of the store.
          options: `batch_size`, `by_batch`, `is_sound` of `feature_store.Extraction`.
        """

        @functools.cache
        def load() -> registry.Extractor:
            preset = self.preset_of(network)
            return registry.load(network, self.weights, self._load_torch, preset=preset)

        identity = self.identity(network)
        key = feature_store.key_of(network=network, **identity, reading=dict(reading))
        return feature_store.Extraction(
            network, key, read, lambda batch: load()(batch), **{"batch_size": MAX_BATCH, **options}
        )


def read_sound(rate_hz: int, seconds: float) -> Read:
    """Reads the first `seconds` of a sound, silence where it ends: float32 [L]."""

    def read(path: Path) -> np.ndarray:
        audio_L = audio_io.load(path, rate_hz, duration_s=seconds)
        if not audio_L.size:
            raise container.MediaError("empty", f"{path}: has no samples")
        return audio_L

    return read


class FeatureRules(protocol.Rules):
    """A protocol whose items are features: network -> feature -> array.

    Attributes:
      networks: what there is.
      extractions: network -> how its features come out of a file.
    """

    def __init__(self, networks: Networks, extractions: Mapping[str, feature_store.Extraction]):
        self.networks, self.extractions = networks, dict(extractions)
        self._skipped = networks.missing(self.name, self.needs())

    def needs(self) -> Sequence[str]:
        """The networks of all its metrics."""
        return tuple(
            name
            for name, entry in registry.NETWORKS.items()
            if any(metric.startswith(f"{self.name}/") for metric in entry.metrics)
        )

    def settings(self) -> dict[str, Any]:
        return {
            "networks": {name: self.networks.identity(name) for name in self.extractions},
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def skipped(self) -> dict[str, str]:
        return dict(self._skipped)

    def perceive(self, paths: Mapping[str, Path], what: str) -> protocol.Perceived:
        """Features of every network; an item that one of them cannot read is not scored."""
        found = {
            name: self.networks.store.extract(paths, extraction, what)
            for name, extraction in self.extractions.items()
        }
        unreadable = {k: why for part in found.values() for k, why in part.unreadable.items()}
        silent = {name for part in found.values() for name in part.silent}
        items = {
            name: {network: part.items[name] for network, part in found.items()}
            for name in paths
            if name not in unreadable
        }
        return protocol.Perceived(items, unreadable, tuple(n for n in items if n in silent))

    def row(self, heard: Any, reference: Any) -> dict[str, float]:
        return {}

    def floor(self, heard: Mapping[str, Any]) -> dict[str, float]:
        """Distances between two random halves of the reference: what a perfect system of half
        the size would get."""
        names = list(heard)
        if len(names) < 4:
            return {}
        order = np.random.default_rng(HALVES_SEED).permutation(len(names))
        one, other = (
            {names[i]: heard[names[i]] for i in part} for part in np.array_split(order, 2)
        )
        return {"clips": len(one), **self.distances(one, other)}

    def distances(self, heard: Mapping[Any, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        """Those figures that compare whole sets."""
        raise NotImplementedError


def stacked(items: Mapping[Any, Any], network: str, feature: str) -> np.ndarray:
    """A feature of all items, float64 [N, D]; items of several windows are laid end to end."""
    rows = [np.atleast_2d(item[network][feature]) for item in items.values()]
    return np.concatenate(rows).astype(np.float64)


def name_of(key: Any) -> str:
    """The item's name in a mapping that may hold several runs of it."""
    return key[0] if isinstance(key, tuple) else key


def mean_with_interval(key: str, values_N: np.ndarray) -> dict[str, float]:
    """A mean over items and its 95 % bootstrap interval: KEY, KEY_low, KEY_high."""
    found = bootstrap.mean_interval(values_N)
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
