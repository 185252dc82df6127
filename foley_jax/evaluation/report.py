"""The table of an evaluation as Markdown."""

from collections.abc import Mapping

WHOLE = (
    "seeds",
    "events",
    "heard",
    "clips_without_impact",
    "clips_without_peaks",
)  # written without decimals


def table_of(
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
