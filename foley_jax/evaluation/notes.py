"""Notes beside a table: the reason of every dash, and what is to be known of marked figures.

A row is a system (or "GROUP: SYSTEM"), a figure is nan where it cannot be computed (`remarks`).
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from foley_jax.evaluation import tables
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import pairs, remarks

_HALVES = "only distances between sets are meant for halves"
_ONE_RUN = "one run has no spread"
_NOT_THERE = "nothing gives it here"


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures as a report shows them.

    Attributes:
      figures: row -> figures.
      columns, more_columns: as `tables.markdown_table` takes them.
      contrasts: the figures that judge pairs.
      skipped: metric -> why it is not among the figures.
      partial: row -> why it has less figures than others.
    """

    figures: Mapping[str, Mapping[str, float]]
    columns: Mapping[str, str | None]
    more_columns: Mapping[str, str]
    contrasts: Sequence[pairs.Contrast] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partial: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, rules: rules_lib.Rules, result: protocol.Result) -> "Table":
        """That of a protocol."""
        partial = {row: _HALVES for row in result.figures if row.endswith(protocol.HALVES)}
        columns, more = rules.columns, rules.more_columns
        return cls(result.figures, columns, more, rules.contrasts, result.skipped, partial)

    def record(self) -> dict[str, Any]:
        """For JSON: per row, `reasons` of absent figures, `remarks` on those that are there, and
        of figures that judge pairs whether they tell them apart (`tells_pairs_apart`; None is not
        known)."""
        told = {
            row: {
                contrast.key: pairs.tells_apart(figures, contrast)
                for contrast in self.contrasts
                if contrast.key in figures
            }
            for row, figures in self.figures.items()
        }
        return {"reasons": self.reasons(), "remarks": self.said(), "tells_pairs_apart": told}

    def reasons(self) -> dict[str, dict[str, str]]:
        """Row -> figure -> why it is absent: of all that were tried, and of all that are shown."""
        shown = tables.shown_columns(self.figures, self.columns, self.more_columns)
        keys = [name for key in shown.values() for name in tables.keys_of(key)]
        found = {}
        for row, figures in self.figures.items():
            tried = [key for key, value in figures.items() if remarks.is_absent(value)]
            why = {key: remarks.remark_of(figures[key]) for key in tried}
            why |= {key: self._why_missing(row, key) for key in keys if key not in figures}
            if why:
                found[row] = why
        return found

    def said(self) -> dict[str, dict[str, str]]:
        """Row -> figure -> what is to be known of it, of the figures that are there."""
        found = {}
        for row, figures in self.figures.items():
            there = {key: value for key, value in figures.items() if not remarks.is_absent(value)}
            told = {k: remarks.remark_of(v) for k, v in there.items() if remarks.remark_of(v)}
            if told:
                found[row] = told
        return found

    def lines(self) -> list[str]:
        """All notes on what the table shows: marked figures first, then the dashes."""
        return [*self._marked(), *self._dashes()]

    def items(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of items, with the names of their figures that do not tell pairs apart.

        Args:
          samples: each with its "system".
        """
        doubtful: dict[str, set[str]] = {}
        for row, told in self.said().items():
            keys = {key for key, remark in told.items() if remark.startswith(pairs.DOES_NOT_TELL)}
            for system in (row, row.partition(": ")[2]):  # of a group, or of the whole
                doubtful.setdefault(system, set()).update(keys)
        found = []
        for sample in samples:
            keys = [key for key in sample if key in doubtful.get(sample["system"], ())]
            more = {"does_not_tell_pairs_apart": " ".join(keys)} if keys else {}
            found.append({**sample, **more})
        return found

    def _marked(self) -> list[str]:
        """A line per figure and kind of remark, over the rows that have it."""
        grouped: dict[tuple[str, str], list[str]] = {}
        heads = self._heads()
        for row, told in self.said().items():
            for key, remark in told.items():
                if key in heads:
                    what, _, detail = remark.partition(": ")
                    where = f"{row} ({detail})" if detail else row
                    grouped.setdefault((heads[key], what), []).append(where)
        return [f"{tables.MARK} {k} {what}: {'; '.join(v)}" for (k, what), v in grouped.items()]

    def _dashes(self) -> list[str]:
        """A line per reason, over its columns and rows; a skipped metric says it already."""
        heads = self._heads()
        grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for row, of_row in self.reasons().items():
            columns: dict[str, list[str]] = {}
            for key, why in of_row.items():
                if key in heads and why not in self.skipped.values():
                    columns.setdefault(why, []).append(heads[key])
            for why, some in columns.items():
                grouped.setdefault((why, tuple(dict.fromkeys(some))), []).append(row)
        return [f"no {', '.join(some)} of {'; '.join(v)}: {w}" for (w, some), v in grouped.items()]

    def _heads(self) -> dict[str, str]:
        """Figure -> what the table calls it; itself where several columns have one head."""
        shown = tables.shown_columns(self.figures, self.columns, self.more_columns)
        heads = [head.strip() for head in shown]
        return {
            key: head.strip() if heads.count(head.strip()) == 1 else key
            for head, column in shown.items()
            for key in tables.keys_of(column)
        }

    def _why_missing(self, row: str, key: str) -> str:
        """Why a row lacks a figure that the table shows."""
        if row in self.partial:
            return self.partial[row]
        base = key.removeprefix("shuffled_")
        for end in ("_low", "_high", "_std"):
            base = base.removesuffix(end)
        if base in self.skipped:
            return self.skipped[base]
        return _ONE_RUN if key.endswith("_std") else _NOT_THERE
