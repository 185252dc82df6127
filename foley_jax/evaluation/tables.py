"""Figures as tables: Markdown, LaTeX row by row, and a line of CSV per sample."""

from collections.abc import Mapping, Sequence
import csv
import math
from pathlib import Path

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
WHOLE = (
    "seeds",
    "events",
    "heard",
    "clips_without_impact",
    "clips_without_peaks",
)  # written without decimals


def markdown_table(
    corner: str,
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, str | None],
    more_columns: Mapping[str, str],
) -> str:
    """Markdown with one row per name.

    Args:
      corner: head of the column of names.
      rows: figures by name.
      columns: head of a column -> figure; None is the bootstrap interval.
      more_columns: likewise, shown where a row has the figure.
    """
    more = {name: key for name, key in more_columns.items() if any(key in f for f in rows.values())}
    columns = {**columns, **more}
    lines = [
        f"| {corner} | clips | " + " | ".join(c.strip() for c in columns) + " |",
        "| --- " * (2 + len(columns)) + "|",
    ]
    for name, f in rows.items():
        cells = [_cell(f, key) for key in columns.values()]
        lines.append(f"| {name} | {f['clips']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figures: Mapping[str, float], key: str | None) -> str:
    if key is None:
        return f"{figures['f1_low']:.3f}-{figures['f1_high']:.3f}"
    if key not in figures:
        return "-"
    return f"{figures[key]:.0f}" if key in WHOLE else f"{figures[key]:.3f}"


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX_ESCAPES.get(c, c) for c in text)


def latex_row(
    protocol: str,
    system: str,
    figures: Mapping[str, float],
    columns: Sequence[str],
    *,
    decimals: int = 3,
) -> str:
    """One row of a `tabular`: the system, its figures, and the protocol as a comment.

    A figure whose spread over seeds is known (`KEY_std`) gets it behind; one that is missing or
    not a number is a dash, never a zero.

    Args:
      columns: keys of figures, in order.
    Raises:
      ValueError: no protocol, or no columns.
    """
    if not protocol or not columns:
        raise ValueError(f"protocol {protocol!r}, columns {list(columns)}; expected both")
    cells = [latex_escape(system)]
    for key in columns:
        value, spread = figures.get(key), figures.get(f"{key}_std")
        if value is None or math.isnan(value):
            cells.append("--")
        elif spread is None or math.isnan(spread):
            cells.append(f"{value:.{decimals}f}")
        else:
            cells.append(rf"${value:.{decimals}f} \pm {spread:.{decimals}f}$")
    return " & ".join(cells) + rf" \\ % protocol: {protocol}"


def latex_table(
    protocol: str,
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, str],
    *,
    decimals: int = 3,
) -> str:
    """A whole `tabular` with a head; the protocol stands in its first cell.

    Args:
      rows: system -> figures.
      columns: head -> key of a figure.
    Raises:
      ValueError: as `latex_row`.
    """
    heads = [latex_escape(text) for text in (f"protocol {protocol}", *columns)]
    body = [
        latex_row(protocol, n, f, list(columns.values()), decimals=decimals)
        for n, f in rows.items()
    ]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\hline",
        " & ".join(heads) + r" \\",
        r"\hline",
        *body,
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def write_per_sample(path: Path, protocol: str, rows: Sequence[Mapping[str, str | float]]) -> None:
    """CSV with a line per sample and system; the first column is the protocol.

    Columns are those of all rows in order of appearance; what a row lacks stays empty.

    Raises:
      ValueError: no protocol, or a row without "system" and "name".
    """
    if not protocol:
        raise ValueError("no protocol, expected the name under which the figures are printed")
    for row in rows:
        if "system" not in row or "name" not in row:
            raise ValueError(f"a row holds {sorted(row)}, expected system and name among them")
    columns = list(dict.fromkeys(["protocol", "system", "name", *(k for r in rows for k in r)]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"protocol": protocol, **row} for row in rows)
