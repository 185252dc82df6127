"""Protocol `av-benchmark`: the metrics of hkchengrex/av-benchmark (MMAudio) under its keys.

FD-VGG, FD-PANN, KL-PANNS-softmax and ISC-PANNS come from VGGish and PANNs Cnn14 (16 kHz), which are
here. PaSST, ImageBind and CLAP are not: FD-PASST, KL-PASST-softmax, ISC-PASST, IB-Score and the
CLAP scores are computed from that tool's caches where they lie, and skipped by name where they do
not. DeSync is always skipped: it needs Synchformer's last layers, which no cache holds.

Caches are looked for in CACHE/NAME (NAME is the system, or "reference"; its second folder is
NAME.1, and so on) and in `cache` beside the audio clips, where av-benchmark puts them. A cache of
that tool that has all audio clips is used in place of an extraction, as that tool would; what is
extracted is written into CACHE/NAME. The run card says what came from where.

What is heard of a file, and where the presets differ, stands in `av_benchmark_audio`; what is done
with the features in `av_benchmark_figures`.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

from foley_jax.evaluation import feature_store, run_card
from foley_jax.evaluation.networks import registry
from foley_jax.evaluation.protocols import (
    av_benchmark_audio,
    av_benchmark_cache,
    av_benchmark_figures,
    feature_rules,
    protocol,
)
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, pairs, remarks

SECONDS = 8.0
_NO_DESYNC = "skipped: Synchformer is not part of this package, and no cache holds its judgement"
_FILES = tuple(dict.fromkeys(f for m in av_benchmark_figures.METRICS for f in (m.own, m.true) if f))


class AvBenchmark(feature_rules.FeatureRules):
    """The protocol. An item is cache file -> part -> array."""

    name = "av-benchmark"
    judges = "what sounds (semantic sync), and by DeSync alone when (temporal sync)"
    key = "KL-PANNS-softmax"
    ascending = False
    columns = {
        "FD-VGG": "FD-VGG",
        "FD-PANN": "FD-PANN",
        "KL-PANNS": "KL-PANNS-softmax",
        "KL low": "KL-PANNS-softmax_low",
        "KL high": "KL-PANNS-softmax_high",
        "shuffled": "shuffled_KL-PANNS-softmax",
        "ISC-PANNS": "ISC-PANNS-mean",
    }
    more_columns = {
        "FD-PASST": "FD-PASST",
        "KL-PASST": "KL-PASST-softmax",
        "shuffled ": "shuffled_KL-PASST-softmax",
        "ISC-PASST": "ISC-PASST-mean",
        "IB": "IB-Score",
        "shuffled  ": "shuffled_IB-Score",
        "LAION-CLAP": "LAION-CLAP-Score",
        "MS-CLAP": "MS-CLAP-Score",
        "seeds": "seeds",
        "KL spread": "KL-PANNS-softmax_std",
    }

    contrasts = av_benchmark_figures.CONTRASTS

    def __init__(
        self,
        networks: feature_rules.Networks | None,
        *,
        cache: Path | None = None,
        seconds: float = SECONDS,
        preset: av_benchmark_figures.Preset = "default",
    ):
        """Args:
        networks: where PANNs and VGGish are looked for; None takes caches alone.
        cache: folder of caches, one subfolder a system; None writes none.
        seconds: of every audio clip that count (`--audio_length` of av-benchmark); at least 0.975.
        preset: see `av_benchmark_audio` and `av_benchmark_figures`.
        """
        if preset not in av_benchmark_figures.PRESETS:
            raise ValueError(f"preset is {preset!r}, expected 'default' or 'official'")
        shortest = max(heard.min_s for heard in av_benchmark_audio.HEARD.values())
        if seconds < shortest:
            raise ValueError(f"seconds is {seconds}, VGGish needs at least {shortest}")
        # caches may stand in for every network: without any, `extract_features` complains
        self.networks, self.cache, self.seconds, self.preset = networks, cache, seconds, preset
        self.extractions = {
            file: self._extraction(heard)
            for file, heard in av_benchmark_audio.HEARD.items()
            if networks is not None and networks.has(heard.network)
        }
        self._runs: dict[str, list[tuple[Path, ...]]] = {}
        self._sources: dict[str, dict[str, Any]] = {}
        self._lacking: dict[str, dict[str, str]] = {}
        self._skipped = {av_benchmark_figures.DESYNC: _NO_DESYNC}

    def _extraction(self, heard: av_benchmark_audio.Heard) -> feature_store.Extraction:
        as_torchaudio = self.preset == "official"
        reading = {"like": self.name, "seconds": self.seconds, "as_torchaudio": as_torchaudio}
        read = functools.partial(
            av_benchmark_audio.read,
            seconds=self.seconds,
            min_s=heard.min_s,
            as_torchaudio=as_torchaudio,
        )
        # lengths may differ
        return self.networks.extraction(heard.network, read, reading, batch_size=1)

    def settings(self) -> dict[str, Any]:
        networks = [av_benchmark_audio.HEARD[file].network for file in self.extractions]
        return {
            "networks": {name: self.networks.identity(name) for name in networks},
            "features": self._sources,
            "seconds": self.seconds,
            "preset": self.preset,
            "num_splits": av_benchmark_figures.ISC_SPLITS,
            "num_pairings": pairs.NUM_PAIRINGS,
            "num_bootstrap": bootstrap.NUM_RESAMPLES,
        }

    def skipped(self) -> dict[str, str]:
        """Key of av-benchmark -> why; the dict goes on growing with every system heard."""
        return self._skipped

    def extract_features(self, paths: Mapping[str, Path], what: str) -> rules_lib.Extracted:
        """Features of all audio clips, from caches and networks.

        An audio clip that cannot be read, or that is too short for a network here, is not scored.

        Raises:
          ValueError: neither a cache nor a network gives anything.
        """
        label = self._label(paths, what)
        caches = self._caches(paths, label)
        extracted = [file for file in self.extractions if caches[file].lacks(paths)]
        heard = self._hear(paths, label, extracted)
        names = [n for n in paths if all(n in part.items for part in heard.values())]
        features: dict[str, Mapping[str, Any]] = {}
        for file, cached in caches.items():
            if file in extracted:
                features[file] = self._keep(file, label, paths, heard[file].items)
            elif why := cached.lacks(names):
                self._lacking.setdefault(label, {})[file] = why
            else:
                features[file] = cached.items
                self._sources.setdefault(label, {})[file] = dict(cached.identity)
        self._explain()
        if not features:
            raise ValueError(f"{what}: no metric of {self.name} can be computed: {self._skipped}")
        unreadable = {n: why for part in heard.values() for n, why in part.unreadable.items()}
        silent = {n for part in heard.values() for n in part.silent}
        items = {n: {file: part[n] for file, part in features.items()} for n in names}
        return rules_lib.Extracted(items, unreadable, tuple(n for n in names if n in silent))

    def figures(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """Those of `av_benchmark_figures.figures`."""
        found, too_few = av_benchmark_figures.figures(heard, reference, self.preset)
        # another system may have enough: this is a gap of its row, not a skipped metric
        gaps = {key: remarks.absent(why.removeprefix("skipped: ")) for key, why in too_few.items()}
        return {"clips": len(heard), **found, **gaps}

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FD-VGG, FD-PANN and FD-PASST."""
        return av_benchmark_figures.distances_of(heard, reference)

    def row(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        return av_benchmark_figures.row(heard, reference)

    def _label(self, paths: Mapping[str, Path], what: str) -> str:
        """NAME of a system's first folder, NAME.1 of its second, and so on."""
        folders = tuple(dict.fromkeys(path.parent for path in paths.values()))
        runs = self._runs.setdefault(what, [])
        if folders not in runs:
            runs.append(folders)
        place = runs.index(folders)
        return what.replace("/", "_") + (f".{place}" if place else "")

    def _caches(self, paths: Mapping[str, Path], label: str) -> "dict[str, _Cached]":
        """Returns what lies in the caches of one folder of audio clips.

        A broken file has a reason only.
        """
        folders = [] if self.cache is None else [self.cache / label]
        folders += [path.parent / "cache" for path in paths.values()]
        folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        made_of = self._made_of(paths) if folders else {}
        found = {}
        for file in _FILES:
            # an own file may be of other weights: with weights it is made again, from the store
            known = None if file in self.extractions else made_of
            places = av_benchmark_cache.find(folders, file, known)
            found[file] = _read(places, file, self._no_network(file))
        return found

    def _made_of(self, paths: Mapping[str, Path]) -> dict[str, Any]:
        audio_clips = run_card.hash_of_files(paths)
        return {"sounds_sha256": audio_clips, "seconds": self.seconds, "preset": self.preset}

    def _no_network(self, file: str) -> str:
        """Why a file cannot be extracted."""
        if file not in av_benchmark_audio.HEARD:
            return "its network is not part of this package"
        network = av_benchmark_audio.HEARD[file].network
        if self.networks is None:
            return f"no weights of {network}"
        return registry.find(self.networks.weights).missing.get(network, "")

    def _hear(
        self, paths: Mapping[str, Path], label: str, files: Sequence[str]
    ) -> dict[str, rules_lib.Extracted]:
        """Extracts what no cache has; without any, it is at least heard which audio are silent."""
        if not files:
            rate_hz = av_benchmark_audio.RATE_HZ
            return {"": rules_lib.listen_each(paths, label, rate_hz, lambda audio_L: None)}
        store = self.networks.store
        return {f: store.extract(paths, self.extractions[f], label) for f in files}

    def _keep(
        self, file: str, label: str, paths: Mapping[str, Path], answers: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """A network's answers as av-benchmark keeps them, written into the cache."""
        parts = av_benchmark_audio.HEARD[file].parts
        items = {name: parts(answer) for name, answer in answers.items()}
        self._sources.setdefault(label, {})[file] = "extracted"
        if self.cache is not None and items:
            path = av_benchmark_cache.path_of(self.cache / label, file)
            if path.exists() and av_benchmark_cache.note_of(path) is None:
                self._sources[label][file] = f"extracted; {path.name} there lacks audio clips"
            else:
                av_benchmark_cache.write(path.parent, file, items, self._made_of(paths))
        return items

    def _explain(self) -> None:
        """Enters why metrics are skipped, and for which systems."""
        for metric in av_benchmark_figures.METRICS:
            reasons: dict[str, list[str]] = {}
            for label, lacking in self._lacking.items():
                needed = {metric.own, *([metric.true] if label == protocol.REFERENCE else [])}
                for file in sorted(needed & set(lacking)):
                    reasons.setdefault(lacking[file], []).append(label)
            told = "; ".join(f"{', '.join(labels)}: {why}" for why, labels in reasons.items())
            if told:
                self._skipped |= dict.fromkeys(metric.keys, f"skipped: {told}")


@dataclasses.dataclass(frozen=True)
class _Cached:
    """Contents of the caches for one file.

    Attributes:
      file: its name.
      items: name -> part -> array.
      identity: for the run card, which files by content.
      why: why there is nothing, or nothing more.
    """

    file: str
    items: Mapping[str, Mapping[str, Any]]
    identity: Mapping[str, str]
    why: str

    def lacks(self, names: Iterable[str]) -> str:
        """Why it cannot be used for these audio clips; "" if it can."""
        lacking = [name for name in names if name not in self.items]
        if self.items and lacking:
            some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            return f"{self.file}.pth lacks {len(lacking)} audio clips ({some}); {self.why}"
        return "" if self.items else self.why


def _read(folders: Sequence[Path], file: str, no_network: str) -> _Cached:
    """One file of several folders; of one audio clip the first counts."""
    items: dict[str, Mapping[str, Any]] = {}
    identity = {}
    try:
        for folder in reversed(folders):
            items |= av_benchmark_cache.read(folder, file)
            path = av_benchmark_cache.path_of(folder, file)
            identity[f"{folder.parent.name}/{folder.name}"] = run_card.content_hash(path)
    except ValueError as error:
        return _Cached(file, {}, {}, f"{error}; {no_network}")
    why = no_network if items else f"no {file}.pth in its caches; {no_network}"
    return _Cached(file, items, identity, why)
