"""The items of a system that a page shows: players and mels, the reference's beside its own."""

from collections.abc import Sequence
import html
import os
from pathlib import Path

import tqdm

from foley_jax.evaluation.pages import page_media, page_ranking, page_table
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import remarks
from foley_jax.media import files

SHOWN = 6  # items at either end of a system
MOST_NAMES = 50  # of items without a figure

LEGEND = (
    '<p class="soft">Images are log-mels at 16 kHz, of the first '
    f"{page_media.MOST_SECONDS:.0f} s; a pair has one time axis. Marks: "
    '<span class="mark"><span style="color:cyan">\N{BLACK DOWN-POINTING TRIANGLE}</span> '
    '<span style="color:#fff">onsets of the reference</span></span> '
    '<span class="mark"><span style="color:lime">\N{BLACK DOWN-POINTING TRIANGLE}</span> '
    '<span style="color:#fff">onsets of the system</span></span>, both as the onset detector of '
    "protocol <code>onsets</code> hears them, whatever this protocol judges by.</p>"
)


class Cards:
    """The items that are shown, numbered over all systems.

    Args:
      out: folder of the page.
    Attributes:
      anchors: (system, run, name) -> anchor of the item on the page, of those shown so far.
    """

    def __init__(
        self,
        out: Path,
        rules: rules_lib.Rules,
        result: protocol.Result,
        links: page_media.Links,
    ):
        self.rules, self.result, self.links = rules, result, links
        self.mels = page_media.Mels(out)
        self.anchors: dict[tuple[str, int, str], str] = {}
        self.reference = next(iter(result.files.get(protocol.REFERENCE, [])), {})

    def section(self, system: str, anchor: str) -> str:
        """One system: its worst items, its best, and those without a figure."""
        rows = [row for row in self.result.samples if row["system"] == system]
        key, code = self.rules.key, page_table.code(self.rules.key)
        ranked = page_ranking.rank(rows, key, self.rules.ascending, SHOWN)
        head = f'<section id="{anchor}"><h3>{html.escape(system)}</h3>'
        if not ranked.worst:
            there = [row for row in rows if self._file(row) is not None][: 2 * SHOWN]
            text = f"<p>No item has {code} of its own; these are the first {len(there)}.</p>"
            # one that was scored has a reason where the protocol tried
            lacking = [row for row in rows if self._file(row) is None or self.rules.key in row]
            absent = self._without(lacking)
            return f"{head}{text}{self._list(there)}{absent}</section>"
        better = "larger" if self.rules.ascending else "smaller"
        parts = [head, f"<h4>Worst by {code} ({better} is better)</h4>", self._list(ranked.worst)]
        if ranked.best:
            parts += [f"<h4>Best by {code}</h4>", self._list(ranked.best)]
        return "\n".join([*parts, self._without(ranked.without), "</section>"])

    def _list(self, rows: Sequence[page_ranking.Row]) -> str:
        return "\n".join(
            self._card(row) for row in tqdm.tqdm(rows, desc="page", unit="item", leave=False)
        )

    def _card(self, row: page_ranking.Row) -> str:
        """Players and mels of the reference and of the system, under the item's figures."""
        anchor = f"item-{len(self.anchors)}"
        self.anchors[row["system"], row["run"], row["name"]] = anchor
        audio, true = self._file(row), self.reference.get(row["name"])
        title = self._title(row)
        true_mel, mel = self.mels.pair(audio, true, title)
        true_player = page_media.player(true, self.links, f"reference of {title}")
        player = page_media.player(audio, self.links, f"{row['system']}: {title}")
        if video := _video_beside(audio):
            label = f"{row['system']}, video: {title}"
            heard = f'<p class="soft">as judged, {html.escape(audio.name)}</p>'
            player = page_media.player(video, self.links, label) + heard + player
        sides = [("reference", true_player, true_mel)] if self.rules.is_paired else []
        sides.append((row["system"], player, mel))
        cells = "".join(
            f'<div><p class="soft">{html.escape(who)}</p>{shown}</div><div>{image}</div>'
            for who, shown, image in sides
        )
        return (
            f'<article class="card" id="{anchor}"><h5>{html.escape(title)}</h5>'
            f'<p class="figures">{_figures(row, self.rules.key)}</p>'
            f'<div class="side">{cells}</div></article>'
        )

    def _file(self, row: page_ranking.Row) -> Path | None:
        """Returns what was heard of an item; None if nothing was."""
        return self._files(row).get(row["name"])

    def _files(self, row: page_ranking.Row) -> dict[str, Path]:
        """All that was heard in the run of a row."""
        runs = self.result.files.get(row["system"], [])
        return runs[row["run"]] if row["run"] < len(runs) else {}

    def _title(self, row: page_ranking.Row) -> str:
        runs = self.result.systems[row["system"]]
        if len(runs) < 2:
            return str(row["name"])
        return f"{row['name']}, run {row['run']} ({runs[row['run']]['folder']})"

    def _without(self, rows: Sequence[page_ranking.Row]) -> str:
        if not rows:
            return ""
        items = "".join(f"<li>{html.escape(self._reason(row))}</li>" for row in rows[:MOST_NAMES])
        if len(rows) > MOST_NAMES:
            items += f"<li>and {len(rows) - MOST_NAMES} more; see per_sample.csv</li>"
        head = f"{len(rows)} without {page_table.code(self.rules.key)}"
        return f"<details><summary>{head}</summary><ul>{items}</ul></details>"

    def _reason(self, row: page_ranking.Row) -> str:
        """Why an item has no figure."""
        items = self.result.systems[row["system"]][row["run"]]["items"]
        why = items["unreadable"].get(row["name"])
        value = row.get(self.rules.key)
        absent = remarks.UNKNOWN if value is None else remarks.remark_of(value)
        if row["status"] == "scored":
            why = f"scored, but this figure cannot be computed of it: {absent}"
        elif row["status"] == "silent" and absent != remarks.UNKNOWN:
            why = f"silent: {absent}"
        why = row["status"] if why is None else why
        # where the files stood says nothing to who reads the page elsewhere
        for folder in {path.parent for path in self._files(row).values()}:
            why = why.replace(f"{folder}{os.sep}", "")
        return f"{self._title(row)}: {why}"


def _video_beside(audio: Path | None) -> Path | None:
    """The video of an audio clip's name, where the generator wrote both."""
    if audio is None or audio.suffix.lower() in files.VIDEO_SUFFIXES:
        return None
    video = audio.with_suffix(".mp4")
    return video if video.is_file() else None


def _figures(row: page_ranking.Row, key: str) -> str:
    """An item's figures, the ranking one first and in bold; its status unless all is well."""
    names = [name for name in row if name not in page_table.HEAD_KEYS and name != key]
    parts = [f"{html.escape(name)} {html.escape(page_table.text_of(row[name]))}" for name in names]
    if key in row:
        parts.insert(0, f"<b>{html.escape(key)} {html.escape(page_table.text_of(row[key]))}</b>")
    if row["status"] != "scored":
        parts.append(f'<span class="sorry">{html.escape(row["status"])}</span>')
    return " \N{MIDDLE DOT} ".join(parts)
