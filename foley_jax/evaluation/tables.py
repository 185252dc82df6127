"""Figures as tables: Markdown, LaTeX row by row, and a line of CSV per sample."""

from collections.abc import Mapping, Sequence
import csv
from pathlib import Path

from foley_jax.evaluation.statistics import remarks

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
    "answers",
)  # written without decimals


MARK = "\N{DAGGER}"  # behind a figure of which something is to be known (`notes`)
INTERVAL = ("f1_low", "f1_high")  # figures of the column that has no figure of its own


def keys_of(key: str | None) -> tuple[str, ...]:
    """The figures that a column is made of."""
    return INTERVAL if key is None else (key,)


def no_figures(columns: Mapping[str, str | None], why: str) -> dict[str, float]:
    """The row of a system of which nothing can be computed: no clips, and every figure absent."""
    keys = [name for key in columns.values() for name in keys_of(key)]
    return {"clips": 0, **dict.fromkeys(keys, remarks.absent(why))}


def shown_columns(
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, str | None],
    more_columns: Mapping[str, str],
) -> dict[str, str | None]:
    """Head of a column -> figure, with those of `more_columns` that some row has."""
    more = {name: key for name, key in more_columns.items() if any(key in f for f in rows.values())}
    return {**columns, **more}


def markdown_table(
    corner: str,
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, str | None],
    more_columns: Mapping[str, str],
) -> str:
    """Markdown with one row per name; an absent figure is a dash, `MARK` follows a remarked one.

    Args:
      corner: head of the column of names.
      rows: figures by name.
      columns: head of a column -> figure; None is the bootstrap interval.
      more_columns: likewise, shown where a row has the figure.
    """
    columns = shown_columns(rows, columns, more_columns)
    lines = [[corner, "clips", *(head.strip() for head in columns)], ["---"] * (2 + len(columns))]
    for name, figures in rows.items():
        # a mean over runs of unlike numbers has decimals
        clips = f"{round(figures['clips'], 1):g}"
        lines.append([name, clips, *(_cell(figures, key) for key in columns.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(figures: Mapping[str, float], key: str | None) -> str:
    if any(name not in figures or remarks.is_absent(figures[name]) for name in keys_of(key)):
        return "-"
    if key is None:
        return "-".join(decimal(figures[name]) for name in INTERVAL)
    value = figures[key]
    text = f"{value:.0f}" if key in WHOLE else decimal(value)
    return text + (MARK if remarks.remark_of(value) else "")


def decimal(value: float, decimals: int = 3) -> str:
    """A number with its decimals; what rounds to zero has no sign."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if not float(text) else text


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
    not a number is a dash, never a zero; a remarked one has a dagger.

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
        if value is None or remarks.is_absent(value):
            cells.append("--")
            continue
        text = decimal(value, decimals)
        if spread is not None and not remarks.is_absent(spread):
            text = rf"${text} \pm {spread:.{decimals}f}$"
        cells.append(text + (r"$^\dagger$" if remarks.remark_of(value) else ""))
    return " & ".join(cells) + rf" \\ % protocol: {protocol}"


def latex_table(
    protocol: str,
    rows: Mapping[str, Mapping[str, float]],
    columns: Mapping[str, str],
    *,
    decimals: int = 3,
    notes: Sequence[str] = (),
) -> str:
    """A whole `tabular` with a head; the protocol stands in its first cell.

    Args:
      rows: system -> figures.
      columns: head -> key of a figure.
      notes: what the dashes and daggers mean; comments behind the table.
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
        *(f"% {' '.join(note.split())}" for note in notes),
    ]
    return "\n".join(lines)


def write_per_sample(path: Path, protocol: str, rows: Sequence[Mapping[str, str | float]]) -> None:
    """CSV with a line per sample and system; the first column is the protocol.

    Columns are those of all rows in order of appearance; what a row lacks stays empty, and so does
    a figure that is absent: the column `why` says why.

    Raises:
      ValueError: no protocol, or a row without "system" and "name".
    """
    if not protocol:
        raise ValueError("no protocol, expected the name under which the figures are printed")
    for row in rows:
        if "system" not in row or "name" not in row:
            raise ValueError(f"a row holds {sorted(row)}, expected system and name among them")
    rows = [_with_reasons(row) for row in rows]
    columns = list(dict.fromkeys(["protocol", "system", "name", *(k for r in rows for k in r)]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"protocol": protocol, **row} for row in rows)


def _with_reasons(row: Mapping[str, str | float]) -> dict[str, str | float]:
    """A row whose absent figures are empty, and whose `why` names them."""
    absent = {k: v for k, v in row.items() if isinstance(v, float) and remarks.is_absent(v)}
    if not absent:
        return dict(row)
    reasons = [row["why"]] if "why" in row else []
    reasons += [f"{key}: {remarks.remark_of(value)}" for key, value in absent.items()]
    return {**row, **dict.fromkeys(absent, ""), "why": "; ".join(reasons)}
