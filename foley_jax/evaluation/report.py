"""What a person reads of an evaluation: a table, a contact sheet, a page with players."""

from collections.abc import Mapping, Sequence
import html
import json
import os
from pathlib import Path
from typing import Any

from matplotlib import figure

from foley_jax.media import plots, specs
from foley_jax.media import video as video_io

SHEET_CLIPS = 6
SHEET_VIDEO = specs.VideoSpec(fps=1.0, height=96, width=96)
COLUMNS = {
    "F1 @100 ms": "f1@100ms",
    "95 % interval": None,
    "shuffled": "shuffled_f1@100ms",
    "F1 @150 ms": "f1@150ms",
    "shuffled ": "shuffled_f1@150ms",
    "precision": "precision",
    "recall": "recall",
    "material": "material_accuracy",
}
MORE_COLUMNS = {  # shown where a system has them
    "seeds": "seeds",
    "F1 spread": "f1@100ms_std",
    "align acc": "align_acc",
    "align spread": "align_acc_std",
    "CAVP similarity": "cavp_similarity",
}
WHOLE = (
    "seeds",
    "events",
    "heard",
    "clips_without_impact",
    "clips_without_peaks",
)  # written without decimals


def table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: one row per level and system; every row names its protocol."""
    rows = {f"{level}: {name}": f for level, all_ in figures.items() for name, f in all_.items()}
    return table_of("protocol `embedded`", rows, COLUMNS, MORE_COLUMNS)


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


def contact_sheet(path: Path, clips: Sequence[Any], heard: Mapping[str, Any], audio) -> None:
    """A PNG: per clip a strip of frames, the true mel, and each system's mel with onsets."""
    rows_per_clip = 1 + len(heard)
    fig = figure.Figure(
        figsize=(13, 1.35 * rows_per_clip * len(clips)), dpi=70, layout="constrained"
    )
    axes = fig.subplots(rows_per_clip * len(clips), 1, squeeze=False)[:, 0]
    for i, clip in enumerate(clips):
        row = i * rows_per_clip
        frames = video_io.read_frames(clip.video, SHEET_VIDEO)
        strip = frames.transpose(1, 0, 2, 3).reshape(frames.shape[1], -1, 3)  # [H, T*W, 3]
        axes[row].imshow(strip, aspect="auto")
        axes[row].set_axis_off()
        axes[row].set_title(f"{clip.name} ({clip.level}), one frame a second", fontsize=8)
        for k, (name, sounds) in enumerate(heard.items()):
            sound = sounds[clip.name]
            marks = {"true events": clip.times_s, "heard": sound.onsets_s}
            plots.draw_mel(axes[row + 1 + k], sound.mel_FT, audio.frame_s, marks_s=marks)
            axes[row + 1 + k].set_title(name, fontsize=8, loc="left")
    fig.savefig(path)


def page(out: Path, clips: Sequence[Any], systems: Mapping[str, Path], table_md: str) -> str:
    """HTML with a player per clip and system; paths are relative to the report."""
    head = "".join(f"<th>{html.escape(n)}</th>" for n in ("true sound", *systems))
    body = []
    for clip in clips:
        videos = [clip.video, *(d / f"{clip.name}.mp4" for d in systems.values())]
        cells = "".join(
            f'<td><video controls preload=none width=220 src="{_relative(v, out)}"></video></td>'
            for v in videos
        )
        body.append(f"<tr><td>{html.escape(clip.name)}<br>{clip.level}</td>{cells}</tr>")
    return (
        "<!doctype html><meta charset=utf-8><title>foley_jax: embedded scenes</title>"
        "<style>body{font-family:sans-serif}td{vertical-align:top}</style>"
        f"<h1>Embedded scenes</h1><pre>{html.escape(table_md)}</pre>"
        '<p><img src="contact_sheet.png" width="100%"></p>'
        f"<table><tr><th>clip</th>{head}</tr>{''.join(body)}</table>"
    )


def _relative(path: Path, folder: Path) -> str:
    return html.escape(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def write(
    out: Path,
    figures: Mapping,
    heard: Mapping[str, Mapping[str, Any]],
    clips: Sequence[Any],
    systems: Mapping[str, Path],
    audio: specs.AudioSpec,
) -> None:
    """Writes metrics.json, table.md, contact_sheet.png, index.html; prints the table."""
    out.mkdir(parents=True, exist_ok=True)
    metrics = {"protocol": "embedded", "levels": figures}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    table_md = table(figures)
    (out / "table.md").write_text(table_md + "\n")
    levels = list(figures)
    per_level = max(1, SHEET_CLIPS // len(levels))
    shown = [c for level in levels for c in [c for c in clips if c.level == level][:per_level]]
    contact_sheet(out / "contact_sheet.png", shown, heard, audio)
    (out / "index.html").write_text(page(out, clips, systems, table_md))
    print(table_md)
    print(f"\ncontact sheet: {out / 'contact_sheet.png'}   players: {out / 'index.html'}")
