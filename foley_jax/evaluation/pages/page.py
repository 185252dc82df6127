"""The page of a report: what a person hears and sees of an evaluation, under any protocol.

index.html holds the table, what is missing and why, per system the worst and the best items with
players and mels, and all rows in a table to sort. It opens from a disk, without a network; the
images stand in page/ beside it. Names are escaped; a file that cannot be read leaves its reason.
"""

from collections.abc import Mapping, Sequence
import html
from pathlib import Path
from typing import Any

from foley_jax.evaluation import notes, run_card, tables
from foley_jax.evaluation.pages import page_cards, page_look, page_media, page_table
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib


def write(
    out: Path, rules: rules_lib.Rules, result: protocol.Result, *, copy: bool = False
) -> Path:
    """Writes index.html and page/*.png.

    Args:
      out: folder of the report.
      rules: the protocol that made the result. Items are ranked by `rules.key` in its rows; where
        no row has it, the first ones are shown.
      copy: also copies the media that are shown into page/media, so that the folder can be sent
        to somebody; else they are linked where they are.
    Returns:
      The page.
    Raises:
      ValueError: no protocol; a number without one means nothing.
    """
    if not rules.name:
        raise ValueError("no protocol, expected the name under which the figures are printed")
    out.mkdir(parents=True, exist_ok=True)
    cards = page_cards.Cards(out, rules, result, page_media.Links(out, copy))
    systems = [name for name in result.systems if name != protocol.REFERENCE]
    # the reference stands beside every system; alone, it is what there is to see
    systems = systems or list(result.systems)
    sections = [cards.section(name, _anchor(k)) for k, name in enumerate(systems)]
    title = f"Evaluation under protocol {page_table.code(rules.name)}"
    parts = [
        f"<h1>{title}</h1>",
        _facts_line(result),
        _navigation(systems),
        _figures(rules, result),
        _complaints(result),
        "<h2>Worst and best</h2>",
        page_cards.LEGEND,
        *sections,
        page_table.samples(rules, result, cards.anchors),
        _run_card(rules, result),
    ]
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>foley_jax: {html.escape(rules.name)}</title>\n"
        f"<style>{page_look.STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{page_look.SCRIPT}</script>\n</body>\n</html>\n"
    )
    path = out / "index.html"
    # a file name need not be valid text
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def _anchor(number: int) -> str:
    return f"system-{number}"


def _facts_line(result: protocol.Result) -> str:
    commit = run_card.commit()
    source = "foley_jax, commit unknown"
    if commit:
        source = f"foley_jax at commit {page_table.code(commit[:12])}"
    if commit and commit.endswith("+changes"):
        source += " with changes"
    return (
        f'<p class="soft">{source}. The same figures are in metrics.json, table.md and table.tex, '
        "every item in per_sample.csv, and what all this was made from in run_card.json.</p>"
    )


def _navigation(systems: Sequence[str]) -> str:
    links = "".join(
        f'<a href="#{_anchor(k)}">{html.escape(name)}</a>' for k, name in enumerate(systems)
    )
    return (
        f'<nav aria-label="Parts of the page"><a href="#table">Table</a>{links}'
        '<a href="#rows">All items</a><a href="#card">Settings</a></nav>'
    )


def _figures(rules: rules_lib.Rules, result: protocol.Result) -> str:
    """The cells of table.md, so that both say the same."""
    head = f"protocol `{rules.name}`"
    lines = tables.markdown_table(head, result.figures, rules.columns, rules.more_columns).split(
        "\n"
    )
    # a system's name may hold a bar, what follows it cannot: read from the right
    width = lines[1].count("---")
    cells = [line[2:-2].rsplit(" | ", width - 1) for line in (lines[0], *lines[2:])]
    heads = "".join(f'<th scope="col" class="number">{html.escape(c)}</th>' for c in cells[0][1:])
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(map(_figure, row))}</tr>'
        for name, *row in cells[1:]
    )
    said = "".join(
        f"<li>{html.escape(line)}</li>" for line in notes.Table.of(rules, result).lines()
    )
    return (
        f'<h2 id="table">Table</h2><div class="scroll"><table><thead><tr>'
        f'<th scope="col">protocol {page_table.code(rules.name)}</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>" + (f'<ul class="notes">{said}</ul>' if said else "")
    )


def _figure(cell: str) -> str:
    """A cell of the table; a marked figure looks like one."""
    doubt = " doubt" if cell.endswith(tables.MARK) else ""
    return f'<td class="number{doubt}">{html.escape(cell)}</td>'


def _complaints(result: protocol.Result) -> str:
    """Returns what is missing, unreadable or silent, and the figures that could not be computed."""
    lines = [html.escape(line) for line in result.folder_warnings]
    parts = ["<h2>What is missing</h2>"]
    if not lines and not result.skipped:
        return parts[0] + "<p>Nothing: every item was scored, and none is silent.</p>"
    if lines:
        parts.append("<ul>" + "".join(f'<li class="sorry">{line}</li>' for line in lines) + "</ul>")
    if result.skipped:
        items = "".join(
            f"<dt>{html.escape(metric)}</dt><dd>{html.escape(why)}</dd>"
            for metric, why in result.skipped.items()
        )
        parts.append(f"<p>Figures that were not computed:</p><dl>{items}</dl>")
    return "".join(parts)


def _run_card(rules: rules_lib.Rules, result: protocol.Result) -> str:
    """The settings of the protocol, and what was judged, as the run card has them."""
    parts = ['<h2 id="card">Settings</h2>', _list_of(rules.settings())]
    for system, runs in result.systems.items():
        for number, run in enumerate(runs):
            items = {k: v for k, v in run["items"].items() if isinstance(v, int)}
            facts = {**{k: v for k, v in run.items() if k != "items"}, **items}
            head = html.escape(f"{system}, run {number}")
            parts.append(f"<details><summary>{head}</summary>{_list_of(facts)}</details>")
    return "\n".join(parts)


def _list_of(facts: Mapping[str, Any]) -> str:
    """Nested settings as one flat list of names and values."""

    def flat(node: Any, name: str) -> list[tuple[str, Any]]:
        if not isinstance(node, Mapping):
            return [(name, node)]
        return [pair for k, v in node.items() for pair in flat(v, f"{name}.{k}" if name else k)]

    pairs = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in flat(facts, "")
    )
    return f"<dl>{pairs}</dl>"
