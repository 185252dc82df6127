"""Rules of a protocol: what it extracts of files, and what figures come of that."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from foley_jax.evaluation import run_card
from foley_jax.evaluation.statistics import pairs
from foley_jax.media import audio as audio_io
from foley_jax.runtime import reasons


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Everything that a protocol heard (or saw) in some files, by name.

    Attributes:
      items: name -> whatever the protocol needs of it.
      unreadable: name -> why.
      silent: names among the items whose audio is nowhere above `run_card.SILENT_PEAK`.
    """

    items: dict[str, Any]
    unreadable: dict[str, str]
    silent: tuple[str, ...]


class Rules:
    """A named protocol.

    Attributes:
      name: under which every figure is printed.
      judges: what its figures judge, a clause for the report: when things sound (temporal sync) and
        what sounds (semantic sync) are different questions, and one answer is not the other.
      columns: head of a column of the table -> figure; None is the bootstrap interval, figures
        `f1_low` and `f1_high`.
      more_columns: likewise, shown where a system has the figure.
      contrasts: the figures that judge pairs, with their intervals and wrong pairs; where chance
        lies in the interval the figure is marked.
      key: the figure whose spread over seeds is reported; of items, what the best and the worst
        are chosen by.
      ascending: whether a larger `key` is better.
      pools_runs: whether several runs of a system are one set of samples (several for each
        item), not seeds whose figures are averaged.
      is_paired: whether an item is judged against the reference of its name; else all files of a
        folder are one set, beside the set of the reference.
      suffixes: which files are items; of one name the first kind is taken.
    """

    name: str
    judges: str = ""
    columns: Mapping[str, str | None]
    more_columns: Mapping[str, str] = {}
    contrasts: Sequence[pairs.Contrast] = ()
    key: str
    ascending: bool = True
    pools_runs: bool = False
    is_paired: bool = True
    suffixes: Sequence[str] = run_card.SUFFIXES

    def settings(self) -> dict[str, Any]:
        """Everything the figures depend on beside the files, JSON-able."""
        raise NotImplementedError

    def skipped(self) -> dict[str, str]:
        """Metrics that cannot be computed -> why; there is no figure in their place."""
        return {}

    def extract_features(self, paths: Mapping[str, Path], what: str) -> Extracted:
        """Hears all files; a bad one is named, the rest goes on. `what` is for progress bars."""
        raise NotImplementedError

    def refer(self, path: Path, heard: Any) -> Any:
        """Returns what an item is judged by: from the reference's file, and what is heard in it.

        Raises:
          MediaError: the file lacks what the protocol needs.
        """
        del path
        return heard

    def group(self, reference: Any) -> str:
        """Name of the part of the reference that an item is scored in; "" is the whole."""
        del reference
        return ""

    def figures(self, heard: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        """Figures over the items of `heard`, `clips` (their number) among them.

        Of too few items a figure is absent and says how many it needs (`remarks.absent`).

        Args:
          heard: name -> item; with `pools_runs` (name, run) -> item.
          reference: name -> what `refer` gave; at least for the names of `heard`.
        """
        raise NotImplementedError

    def floor(self, heard: Mapping[str, Any]) -> dict[str, float]:
        """Returns what the distances are between random halves of the reference.

        {}: nothing to say.
        """
        del heard
        return {}

    def row(self, heard: Any, reference: Any) -> dict[str, float]:
        """Figures of one item; `reference` is None where the protocol pairs nothing."""
        raise NotImplementedError


class ListeningRules(Rules):
    """A protocol that hears one audio clip at a time.

    Attributes:
      sample_rate_hz: at which audio clips are heard.
    """

    sample_rate_hz: int

    def extract_features(self, paths: Mapping[str, Path], what: str) -> Extracted:
        return listen_each(paths, what, self.sample_rate_hz, self.listen)

    def listen(self, audio_L: np.ndarray) -> Any:
        """Returns what is heard in an audio clip, float32 [L].

        Raises:
          MediaError: it cannot be judged; the file then counts as unreadable.
        """
        raise NotImplementedError


def listen_each(
    paths: Mapping[str, Path], what: str, rate_hz: int, listen: Callable[[np.ndarray], Any]
) -> Extracted:
    """`Rules.extract_features` for protocols that hear one clip at a time, float32 [L].

    A file that cannot be read, or about which `listen` raises anything, counts as unreadable.
    """
    items: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    silent = []
    for name, path in tqdm.tqdm(paths.items(), desc=what, unit="clip", leave=False):
        try:
            audio_L = audio_io.load(path, rate_hz)
            items[name] = listen(audio_L)
        except Exception as error:  # one bad file never stops the rest
            unreadable[name] = reasons.of(error)
            continue
        if run_card.is_silent(audio_L):
            silent.append(name)
    return Extracted(items, unreadable, tuple(silent))
