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
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, distances, remarks
from foley_jax.media import audio as audio_io
from foley_jax.media import container
from foley_jax.runtime import reasons

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
        # two networks may be the halves of one file
        self._load_torch = load_torch and functools.cache(load_torch)
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
        return skipped_metrics(protocol_name, lacking)

    def has(self, network: str) -> bool:
        return network in self._found.files

    def preset_of(self, network: str) -> registry.Preset:
        """The preset a network is used with: the wanted one, if it has it."""
        return self.preset if self.preset in registry.NETWORKS[network].presets else "default"

    def identity(self, network: str) -> dict[str, Any]:
        """For the run card: which files, by content, and which preset."""
        hashes = {path.name: run_card.content_hash(path) for path in self._found.files[network]}
        return {"weights_sha256": hashes, "preset": self.preset_of(network)}

    def load(self, network: str) -> registry.Extractor:
        """A network with its weights, as `registry.load`."""
        preset = self.preset_of(network)
        return registry.load(network, self.weights, self._load_torch, preset=preset)

    def extraction(
        self, network: str, read: Read, reading: Mapping[str, Any], **options: Any
    ) -> feature_store.Extraction:
        """How a network's features come out of a file.

        Args:
          read: file -> what the network takes, without batch axis.
          reading: everything that `read` does, JSON-able, for the key of the store.
          options: `batch_size`, `by_batch`, `is_audio` of `feature_store.Extraction`.
        """

        load = functools.cache(lambda: self.load(network))
        identity = self.identity(network)
        key = feature_store.key_of(network=network, **identity, reading=dict(reading))
        return feature_store.Extraction(
            network, key, read, lambda batch: load()(batch), **{"batch_size": MAX_BATCH, **options}
        )


def skipped_metrics(protocol_name: str, lacking: Mapping[str, str]) -> dict[str, str]:
    """Metric of a protocol -> why it is skipped, from why each network cannot be used."""
    return {
        metric.split("/")[1]: f"skipped: {why}"
        for name, why in lacking.items()
        for metric in registry.NETWORKS[name].metrics
        if metric.split("/")[0] == protocol_name
    }


def read_audio(rate_hz: int, seconds: float) -> Read:
    """Reads the first `seconds` of an audio clip, silence where it ends: float32 [L]."""

    def read(path: Path) -> np.ndarray:
        audio_L = audio_io.load(path, rate_hz, duration_s=seconds)
        if not audio_L.size:
            raise container.MediaError("empty", f"{path}: has no samples")
        return audio_L

    return read


class FeatureRules(rules_lib.Rules):
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
        return self._skipped  # goes on growing with every system heard

    def extract_features(self, paths: Mapping[str, Path], what: str) -> rules_lib.Extracted:
        """Features of every network; an item that one of them cannot read is not scored.

        The metrics of a network that fails altogether (a damaged file of weights) are skipped.

        Raises:
          ValueError: all do.
        """
        found, lacking = {}, {}
        for name, extraction in self.extractions.items():
            try:
                found[name] = self.networks.store.extract(paths, extraction, what)
            except Exception as error:  # the other networks go on
                lacking[name] = reasons.of(error)
        if not found:
            raise ValueError("; ".join(f"{name}: {why}" for name, why in lacking.items()))
        self._skipped |= skipped_metrics(self.name, lacking)
        self.extractions = {name: self.extractions[name] for name in found}
        unreadable = {k: why for part in found.values() for k, why in part.unreadable.items()}
        silent = {name for part in found.values() for name in part.silent}
        items = {
            name: {network: part.items[name] for network, part in found.items()}
            for name in paths
            if name not in unreadable
        }
        return rules_lib.Extracted(items, unreadable, tuple(n for n in items if n in silent))

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


def frechet(mine_ND: np.ndarray, true_MD: np.ndarray, *, scale: float = 1.0) -> float:
    """`distances.frechet_distance` of two sets of features, times `scale`; of too few, why not.

    Where a set has no more rows than a row has dimensions its covariance is singular, and the
    distance mostly tells how many rows there are: that is said with it.
    """
    few, least, width = _too_few(mine_ND, true_MD), min(len(mine_ND), len(true_MD)), len(true_MD.T)
    if few is not None:
        return few
    found = scale * distances.frechet_distance(mine_ND, true_MD)
    if least > width:
        return found
    detail = f"{least} in {width} dimensions; compare only sets of as many"
    return remarks.Remarked(found, f"is of few items: {detail}")


def kernel_distance(
    distance: Callable[[np.ndarray, np.ndarray], float], mine_ND: np.ndarray, true_MD: np.ndarray
) -> float:
    """An unbiased distance of two sets of features; of too few, why there is none.

    It is 0 on average for sets that are drawn alike, hence may be negative: that is said with it.
    """
    few = _too_few(mine_ND, true_MD)
    if few is not None:
        return few
    found = distance(mine_ND, true_MD)
    if found >= 0:
        return found
    return remarks.Remarked(found, "is below 0: an unbiased estimate that finds no distance")


def _too_few(mine_ND: np.ndarray, true_MD: np.ndarray) -> remarks.Remarked | None:
    """Why there is no distance: less than `distances.LEAST_ITEMS` rows in a set; None if enough."""
    least = min(len(mine_ND), len(true_MD))
    if least >= distances.LEAST_ITEMS:
        return None
    return remarks.too_few(least, "item", f"a distance needs {distances.LEAST_ITEMS} of each set")
