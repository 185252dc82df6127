"""Protocol `av-benchmark`: the metrics of hkchengrex/av-benchmark (MMAudio) under its keys.

FD, KL and ISC come from VGGish, PANNs Cnn14 (16 kHz) and PaSST; IB-Score compares audio with the
reference's images, DeSync with its motion, the CLAP scores with captions (`av_benchmark_text`). A
metric whose network or captions are not there is computed from that tool's caches where they lie,
and skipped by name where they do not. DeSync always needs Synchformer's file: no cache holds the
judgement of its last layers.

Caches are looked for in CACHE/NAME (NAME is the system, or "reference"; its second folder is
NAME.1, and so on) and in `cache` beside the audio clips, where av-benchmark puts them. A cache of
that tool that has all audio clips is used in place of an extraction, as that tool would; what is
extracted is written into CACHE/NAME. The run card says what came from where.

What is heard of a file, and where the presets differ, stands in `av_benchmark_audio`; what is done
with the features in `av_benchmark_figures`.
"""

from collections.abc import Mapping, Sequence
import functools
from pathlib import Path
from typing import Any

from foley_jax.evaluation import feature_store, run_card
from foley_jax.evaluation.networks import captions as captions_lib
from foley_jax.evaluation.networks import registry
from foley_jax.evaluation.protocols import (
    av_benchmark_audio,
    av_benchmark_cache,
    av_benchmark_figures,
    av_benchmark_text,
    av_benchmark_video,
    desync_figures,
    feature_rules,
    protocol,
)
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, pairs, remarks
from foley_jax.runtime import reasons

SECONDS = 8.0
_JOINT = "synchformer_joint"  # what DeSync needs beside the features of `av_benchmark_cache`
_METRICS = (*av_benchmark_figures.METRICS, av_benchmark_figures.DESYNC)
_FILES = tuple(dict.fromkeys(file for m in _METRICS for file in (m.own, m.true) if file))


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
        "DeSync": "DeSync",
        "shuffled   ": "shuffled_DeSync",
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
        captions: Path | None = None,
    ):
        """Args:
        networks: where PANNs and VGGish are looked for; None takes caches alone.
        cache: folder of caches, one subfolder a system; None writes none.
        seconds: of every audio clip that count (`--audio_length` of av-benchmark); at least 0.975.
        preset: see `av_benchmark_audio` and `av_benchmark_figures`.
        captions: CSV file of `av_benchmark_text`; None has none.
        Raises:
          ValueError: an unknown preset, too few seconds, or a file that holds no captions.
          FileNotFoundError: no file of captions.
        """
        if preset not in av_benchmark_figures.PRESETS:
            raise ValueError(f"preset is {preset!r}, expected 'default' or 'official'")
        shortest = av_benchmark_audio.HEARD["vggish_features"].min_s
        if seconds < shortest:
            raise ValueError(f"seconds is {seconds}, VGGish needs at least {shortest}")
        # caches may stand in for every network: without any, `extract_features` complains
        self.networks, self.cache, self.seconds, self.preset = networks, cache, seconds, preset
        self.extractions = {
            file: self._extraction(heard)
            for file, heard in av_benchmark_audio.HEARD.items()
            if self._has(heard.network) and seconds >= heard.min_s
        }
        self.seen = {
            file: self._seeing(seen)
            for file, seen in av_benchmark_video.SEEN.items()
            if self._has(seen.network)
        }
        self.captions = None if captions is None else av_benchmark_text.read_captions(captions)
        self.captioned = {
            file: self._captioned(network)
            for file, network in av_benchmark_text.CAPTIONED.items()
            if self.captions is not None and self._has(network)
        }
        self._captions_hash = None if captions is None else run_card.content_hash(captions)
        self._runs: dict[str, list[tuple[Path, ...]]] = {}
        self._sources: dict[str, dict[str, Any]] = {}
        self._lacking: dict[str, dict[str, str]] = {}
        self._skipped: dict[str, str] = {}
        self._judge = None
        if self._has(_JOINT):
            self._judge = desync_figures.Judge(functools.partial(networks.load, _JOINT))

    def _has(self, network: str) -> bool:
        return self.networks is not None and self.networks.has(network)

    def _extraction(self, heard: av_benchmark_audio.Heard) -> feature_store.Extraction:
        as_torchaudio = self.preset == "official"
        reading = {"like": self.name, "seconds": self.seconds, "as_torchaudio": as_torchaudio}
        read = functools.partial(
            heard.read,
            seconds=self.seconds,
            min_s=heard.min_s,
            as_torchaudio=as_torchaudio,
        )
        how = {"batch_size": heard.batch_size, "is_audio": heard.is_audio}
        return self.networks.extraction(heard.network, read, reading, **how)

    def _seeing(self, seen: av_benchmark_video.Seen) -> feature_store.Extraction:
        exact = self.preset == "official"
        reading = {"like": self.name, "seconds": self.seconds, "exact": exact}
        read = seen.reader(self.seconds, exact)
        return self.networks.extraction(seen.network, read, reading, batch_size=1, is_audio=False)

    def _captioned(self, network: str) -> av_benchmark_text.Captioned:
        folder = self.networks.weights / captions_lib.TOKENISERS[network][1]
        load = functools.partial(self.networks.load, network)
        return av_benchmark_text.Captioned(network, load, folder)

    def settings(self) -> dict[str, Any]:
        networks = [av_benchmark_audio.HEARD[file].network for file in self.extractions]
        networks += [av_benchmark_video.SEEN[file].network for file in self.seen]
        networks += [_JOINT] if self._judge else []
        networks += [captioned.network for captioned in self.captioned.values()]
        return {
            "networks": {name: self.networks.identity(name) for name in networks},
            "features": self._sources,
            "captions_sha256": self._captions_hash,
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
        possible = self.extractions | (self.seen if what == protocol.REFERENCE else {})
        extracted = [file for file in possible if caches[file].lacks(paths)]
        heard = self._hear(paths, label, {file: possible[file] for file in extracted})
        extracted = [file for file in extracted if file in heard]
        names = [n for n in paths if all(n in part.items for part in heard.values())]
        features: dict[str, Mapping[str, Any]] = {}
        for file, cached in caches.items():
            if file in extracted:
                features[file] = self._keep(file, label, paths, heard[file].items)
            elif file in self.captioned and what == protocol.REFERENCE and cached.lacks(names):
                if items := self._embed(file, label, names):
                    features[file] = self._write(file, label, paths, items)
            elif why := self._lacking.get(label, {}).get(file) or cached.lacks(names):
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
        """Those of `av_benchmark_figures.figures`, and DeSync."""
        found, too_few = av_benchmark_figures.figures(heard, reference, self.preset)
        found |= self._desync(heard, reference)
        # another system may have enough: this is a gap of its row, not a skipped metric
        gaps = {key: remarks.absent(why.removeprefix("skipped: ")) for key, why in too_few.items()}
        return {"clips": len(heard), **found, **gaps}

    def distances(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        """FD-VGG, FD-PANN and FD-PASST."""
        return av_benchmark_figures.distances_of(heard, reference)

    def row(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        found = av_benchmark_figures.row(heard, reference)
        if pair := self._judged({"": heard}, {"": reference}):
            found[av_benchmark_figures.DESYNC.key] = float(self._judge(pair)[0])
        return found

    def _judged(self, heard: Mapping, reference: Mapping) -> list[tuple]:
        """(video, audio) features of the pairs that DeSync judges; none without all of them."""
        metric = av_benchmark_figures.DESYNC
        if self._judge is None or not av_benchmark_figures.is_there(metric, heard, reference):
            return []
        try:
            own = av_benchmark_figures.with_partners(metric, heard, reference, self.preset)
        except av_benchmark_figures.TooFewError:
            return []
        return [
            (reference[name][metric.true][metric.part], item[metric.own][metric.part])
            for name, item in own.items()
        ]

    def _desync(self, heard: Mapping, reference: Mapping) -> dict[str, float]:
        if not (judged := self._judged(heard, reference)):
            return {}
        video, audio = ([pair[k] for pair in judged] for k in (0, 1))
        contrast = av_benchmark_figures.DESYNC.contrast
        return desync_figures.figures(contrast, self._judge, video, audio)

    def _label(self, paths: Mapping[str, Path], what: str) -> str:
        """NAME of a system's first folder, NAME.1 of its second, and so on."""
        folders = tuple(dict.fromkeys(path.parent for path in paths.values()))
        runs = self._runs.setdefault(what, [])
        if folders not in runs:
            runs.append(folders)
        place = runs.index(folders)
        return what.replace("/", "_") + (f".{place}" if place else "")

    def _caches(
        self, paths: Mapping[str, Path], label: str
    ) -> dict[str, av_benchmark_cache.Cached]:
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
            made_here = {**self.extractions, **self.seen, **self.captioned}
            known = None if file in made_here else made_of
            places = av_benchmark_cache.find(folders, file, known)
            found[file] = av_benchmark_cache.read_all(places, file, self._no_network(file))
        return found

    def _made_of(self, paths: Mapping[str, Path]) -> dict[str, Any]:
        audio_clips = run_card.hash_of_files(paths)
        return {"sounds_sha256": audio_clips, "seconds": self.seconds, "preset": self.preset}

    def _no_network(self, file: str) -> str:
        """Why a file cannot be extracted."""
        network = av_benchmark_text.CAPTIONED.get(file)
        if network is not None and self.captions is None:
            return "no --captions"
        if file in av_benchmark_audio.HEARD:
            network = av_benchmark_audio.HEARD[file].network
            if self.seconds < av_benchmark_audio.HEARD[file].min_s:
                return f"{network} needs {av_benchmark_audio.HEARD[file].min_s} s"
        if file in av_benchmark_video.SEEN:
            network = av_benchmark_video.SEEN[file].network
        if self.networks is None:
            return f"no weights of {network}"
        return self._missing(network)

    def _missing(self, network: str) -> str:
        return registry.find(self.networks.weights).missing.get(network, "")

    def _hear(
        self,
        paths: Mapping[str, Path],
        label: str,
        extractions: Mapping[str, feature_store.Extraction],
    ) -> dict[str, rules_lib.Extracted]:
        """Extracts what no cache has; without any, it is at least heard which audio are silent.

        A network that can read none of the files, where another can, is left out with its reason.
        """
        if not extractions:
            rate_hz = av_benchmark_audio.RATE_HZ
            return {"": rules_lib.listen_each(paths, label, rate_hz, lambda audio_L: None)}
        store = self.networks.store
        found = {
            f: store.extract(paths, extraction, label) for f, extraction in extractions.items()
        }
        if not any(part.items for part in found.values()):
            return found
        for file in [file for file, part in found.items() if not part.items]:
            why = next(iter(found.pop(file).unreadable.values()), "no file")
            self._lacking.setdefault(label, {})[file] = why
        return found

    def _keep(
        self, file: str, label: str, paths: Mapping[str, Path], answers: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """A network's answers as av-benchmark keeps them, written into the cache."""
        heard = av_benchmark_audio.HEARD.get(file)
        parts = heard.parts if heard else av_benchmark_audio.embedding
        items = {name: parts(answer) for name, answer in answers.items()}
        return self._write(file, label, paths, items)

    def _embed(self, file: str, label: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The captions of all clips as a network embeds them; none where some have no caption."""
        missing = [name for name in names if name not in self.captions]
        try:
            if missing:
                told = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                raise ValueError(f"no caption of {len(missing)} audio clips ({told})")
            texts = {name: self.captions[name] for name in names}
            embedded = self.captioned[file].embed(texts.values())
        except Exception as error:  # the other metrics go on
            self._lacking.setdefault(label, {})[file] = reasons.of(error)
            return {}
        return {name: embedded[text] for name, text in texts.items()}

    def _write(
        self, file: str, label: str, paths: Mapping[str, Path], items: dict[str, dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Enters new items into the cache, and where they came from; returns them."""
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
        if self._judge is None:
            why = "no weights of it" if self.networks is None else self._missing(_JOINT)
            self._skipped[av_benchmark_figures.DESYNC.key] = f"skipped: Synchformer: {why}"
        for metric in _METRICS:
            reasons: dict[str, list[str]] = {}
            for label, lacking in self._lacking.items():
                needed = {metric.own, *([metric.true] if label == protocol.REFERENCE else [])}
                for file in sorted(needed & set(lacking)):
                    reasons.setdefault(lacking[file], []).append(label)
            told = "; ".join(f"{', '.join(labels)}: {why}" for why, labels in reasons.items())
            if told:
                self._skipped |= dict.fromkeys(metric.keys, f"skipped: {told}")
