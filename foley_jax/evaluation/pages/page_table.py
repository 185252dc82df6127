"""All rows of a result as a table that a browser sorts and filters."""

from collections.abc import Mapping, Sequence
import html
import itertools
import math
import numbers
from typing import Any

from foley_jax.evaluation.pages import page_ranking
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib

MOST_ROWS = 2000  # a browser lays out more only slowly
HEAD_KEYS = ("system", "run", "name", "status")


def code(text: str) -> str:
    """HTML of a name in fixed pitch."""
    return f"<code>{html.escape(text)}</code>"


def text_of(value: Any) -> str:
    """A figure in words: a count, three decimals, two digits of what is smaller; a dash for nan."""
    if not isinstance(value, numbers.Real):
        return "" if value is None else str(value)
    if math.isnan(value):
        return "-"
    if isinstance(value, numbers.Integral) or not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def _shown_rows(rows: Sequence[page_ranking.Row]) -> list[page_ranking.Row]:
    """At most `MOST_ROWS`, as many of each system as possible, in their order."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    systems = list(dict.fromkeys(row["system"] for row in rows))
    share = max(1, MOST_ROWS // len(systems))
    of_system = {system: [row for row in rows if row["system"] == system] for system in systems}
    return [row for system in systems for row in of_system[system][:share]]


def samples(
    rules: rules_lib.Rules, result: protocol.Result, anchors: Mapping[tuple[str, int, str], str]
) -> str:
    """All rows (or as many as a browser bears), with buttons to sort and fields to filter."""
    rows = _shown_rows(result.samples)
    # reasons hold paths and stand above, with the items that they are of
    keys = [key for key in dict.fromkeys(itertools.chain(HEAD_KEYS, *rows)) if key != "why"]
    numeric = [key == "run" or key not in HEAD_KEYS for key in keys]
    heads = "".join(
        f'<th scope="col"{" class=number" * is_number}>'
        f'<button type="button">{html.escape(key)}</button></th>'
        for key, is_number in zip(keys, numeric)
    )
    body = "\n".join(_sample(row, keys, numeric, anchors) for row in rows)
    options = "".join(
        f'<option value="{html.escape(name)}">{html.escape(name)}</option>'
        for name in result.systems
    )
    cut = ""
    if len(rows) < len(result.samples):
        cut = f" Here are {len(rows)} of {len(result.samples)} rows; per_sample.csv has all."
    return (
        '<h2 id="rows">All items</h2>'
        f"<p>One row per system, run and item, under protocol {code(rules.name)}; a head sorts."
        f"{cut}</p>"
        '<div class="controls" id="controls" hidden><label>system'
        f'<select id="system"><option value="">all</option>{options}</select></label>'
        '<label>name contains<input id="search" type="search"></label>'
        '<output id="shown" for="system search"></output></div>'
        '<div class="tall" tabindex="0" role="region" aria-label="All items">'
        f'<table id="samples"><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def _sample(
    row: page_ranking.Row,
    keys: Sequence[str],
    numeric: Sequence[bool],
    anchors: Mapping[tuple[str, int, str], str],
) -> str:
    """One line of the table to sort; numbers keep their full value."""
    cells = []
    for key, is_number in zip(keys, numeric):
        text = html.escape(text_of(row.get(key)))
        anchor = anchors.get((row["system"], row["run"], row["name"]))
        if key == "name" and anchor:
            text = f'<a href="#{anchor}">{text}</a>'
        value = page_ranking.number_of(row, key) if is_number else None
        held = "" if value is None else f' data-v="{_script_number(value)}"'
        cells.append(f"<td{' class=number' * is_number}{held}>{text}</td>")
    system, name = html.escape(str(row["system"])), html.escape(str(row["name"]))
    return f'<tr data-system="{system}" data-name="{name}">{"".join(cells)}</tr>'


def _script_number(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)
