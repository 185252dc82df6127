"""The report of the audit `memorisation`: tables, the closest pairs, a page with players.

Axis letters: T frames, H W C image, L audio samples.
"""

from collections.abc import Iterator, Mapping, Sequence
import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import notes, run_card, tables
from foley_jax.evaluation.memorisation import nearest_clips
from foley_jax.evaluation.pages import page_media
from foley_jax.evaluation.statistics import remarks
from foley_jax.media import audio as audio_io
from foley_jax.media import names, plots, specs
from foley_jax.media import video as video_io

PROTOCOL = "memorisation"
PAIRS = 6  # on the page, per descriptor and system
SHEET_PAIRS = 2  # on the contact sheet
SHEET_FRAMES, SHEET_SIDE, SHEET_RATE_HZ = 12, 64, 8000
COLUMNS = {
    "nearer than 5 % of held-out": "nearer",
    "AUC": "auc",
    "low": "auc_low",
    "high": "auc_high",
    "authentic": "authentic",
    "median ratio": "ratio",
    "median distance": "median",
    "5 % distance": "q05",
    "95 % distance": "q95",
}
MORE_COLUMNS = {"seeds": "seeds", "AUC spread": "auc_std"}
PARTIAL = {  # rows that cannot have all figures
    nearest_clips.HELD_OUT: "the others are held against it",
    nearest_clips.TRAINING: "it is its own training set",
}
HOW_TO_READ = (
    "Distances are to the nearest training clip. Samples that are not copied are no nearer than "
    "held-out clips: a share of 0.05 nearer than the held-out clips' 5 % quantile, and AUC (the "
    "probability that a sample is nearer than a held-out clip; low and high are its 95 % "
    "interval) 0.5; copies give 1 and 1. An AUC below 0.5 means samples unlike the training set; "
    "one above 0.5 beside a small share and a high authenticity means bland samples, which lie in "
    "the middle of the training set, not on its items. Authentic is the share of samples farther "
    "from their training clip than that is from its own nearest, the median ratio that of the two "
    "distances: copies give 0, samples as good as real ones what the held-out row has. The "
    "training row shows whether held-out clips are of its kind: AUC 0.5 if so (above, with few "
    "training clips, in network features, whose dimensions are scaled one by one). An image "
    "that the generator was given says nothing of it."
)
STYLE = (
    "body{font-family:sans-serif;max-width:80em;margin:1em auto;padding:0 1em}"
    "td{vertical-align:top;padding:.3em .8em .8em 0}video,audio{width:20em;display:block}"
    "pre{overflow-x:auto}.sorry{color:#a00}img{max-width:100%}"
)


def write(
    out: Path,
    found: Sequence[nearest_clips.Compared],
    skipped: Mapping[str, str],
    leaked: Mapping[str, str],
    settings: Mapping[str, Any],
    checkpoints: Mapping[str, Path],
) -> None:
    """Writes all files of the report and prints its tables.

    Args:
      out: folder; made if it is not there.
      found: one per descriptor.
      skipped: what was left out -> why.
      leaked: held-out item that was left out -> training item with the same content.
      settings: for the run card.
      checkpoints: system -> weights to hash for the run card.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = {compared.descriptor.name: compared.figures() for compared in found}
    folder_warnings = [*_leaks(leaked), *dict.fromkeys(_complaints(found))]
    beside = {
        name: notes.Table(of_it, COLUMNS, MORE_COLUMNS, partial=PARTIAL)
        for name, of_it in figures.items()
    }
    said = {name: table.record() for name, table in beside.items()}
    metrics = {
        "protocol": PROTOCOL,
        "descriptors": remarks.plain(figures),
        "reasons": {name: record["reasons"] for name, record in said.items()},
        "remarks": {name: record["remarks"] for name, record in said.items()},
        "skipped": dict(skipped),
        "complaints": folder_warnings,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    parts = [
        tables.markdown_table(f"protocol `{PROTOCOL}`, {name}", systems, COLUMNS, MORE_COLUMNS)
        for name, systems in figures.items()
    ]
    lines = [f"{name}: {line}" for name, table in beside.items() for line in table.lines()]
    lines += [*folder_warnings, *(f"{what}: {why}" for what, why in skipped.items())]
    text = "\n\n".join([*parts, HOW_TO_READ, "\n".join(f"- {line}" for line in lines)]).strip()
    text = names.shown(text)
    (out / "table.md").write_text(text + "\n")
    rows = [row for compared in found for row in compared.rows()]
    tables.write_per_sample(out / "per_sample.csv", PROTOCOL, rows)
    run_card.write(out / "run_card.json", PROTOCOL, settings, _card(found, checkpoints))
    sheets = {compared.descriptor.name: _sheet(out, compared) for compared in found}
    page = out / "neighbours.html"
    page.write_text(names.shown(_page(out, found, sheets, text)))
    print(text)
    print(f"\nclosest pairs: {page}")


def _leaks(leaked: Mapping[str, str]) -> list[str]:
    if not leaked:
        return []
    pairs = ", ".join(f"{name} = {twin}" for name, twin in list(leaked.items())[:3])
    more = ", ..." if len(leaked) > 3 else ""
    return [
        f"{nearest_clips.HELD_OUT}: {len(leaked)} left out, being files of the training set "
        f"({pairs}{more})"
    ]


def _complaints(found: Sequence[nearest_clips.Compared]) -> Iterator[str]:
    for compared in found:
        medium = compared.descriptor.medium
        for runs in compared.systems.values():
            for run in runs:
                if complaint := run.items.account.complaint():
                    collection = run.items.collection
                    what = f"{collection.what}, {collection.folder.name}, {medium}"
                    yield f"{what}: {complaint}"
        run = compared.systems[nearest_clips.HELD_OUT][0]
        same = np.flatnonzero(run.nearest.distance_N == 0)
        if len(same):
            names = ", ".join(run.items.names[i] for i in same[:3]) + ", ..." * (len(same) > 3)
            yield (
                f"{nearest_clips.HELD_OUT}, {compared.descriptor.name}: {len(same)} equal to a "
                f"training item ({names}): a leak hides memorisation"
            )


def _card(
    found: Sequence[nearest_clips.Compared], checkpoints: Mapping[str, Path]
) -> dict[str, list[dict[str, Any]]]:
    """Entries of the run card: per system and run, the account over all descriptors."""
    card: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys(name for compared in found for name in compared.systems):
        several = [compared.systems[name] for compared in found if name in compared.systems]
        weights = checkpoints.get(name)
        card[name] = [
            _entry([run.items for run in runs], weights) for runs in zip(*several, strict=True)
        ]
    return card


def _entry(gathered: Sequence[nearest_clips.Gathered], checkpoint: Path | None) -> dict[str, Any]:
    collection = gathered[0].collection
    scored = {name for items in gathered for name in items.account.scored}
    unreadable = {n: why for items in gathered for n, why in items.account.unreadable.items()}
    account = run_card.Account(
        requested=collection.names,
        scored=tuple(sorted(scored)),
        missing=tuple(n for n in collection.names if n not in scored and n not in unreadable),
        unreadable=unreadable,
        silent=tuple(sorted({name for items in gathered for name in items.account.silent})),
    )
    paths = {**collection.media["image"], **collection.media["audio"]}
    return run_card.of_system(collection.folder, paths, account, checkpoint)


def _pairs(
    compared: nearest_clips.Compared, most: int
) -> Iterator[tuple[str, nearest_clips.Run, int]]:
    """(system, run, number) of the closest items of every set but the training set."""
    for system in compared.systems:
        if system != nearest_clips.TRAINING:
            for run, i in compared.closest(system, most):
                yield system, run, i


def _texts(compared: nearest_clips.Compared, system: str, run: nearest_clips.Run, i: int):
    """Returns what stands over an item, and over its neighbour."""
    first = run.nearest.index_N[i]
    own = f"distance {run.nearest.distance_N[i]:.3f}, ratio {run.nearest.ratio_N[i]:.2f}"
    beside = f"from {compared.training.starts_s[first]:.2f} s"
    return (
        f"{system}: {run.items.names[i]} ({own})",
        f"nearest in training: {compared.training.names[first]} ({beside})",
    )


def _sheet(out: Path, compared: nearest_clips.Compared) -> Path:
    """A contact sheet: under every item its nearest training clip."""
    rows = []
    seconds = float(compared.descriptor.settings["seconds"])
    for system, run, i in _pairs(compared, SHEET_PAIRS):
        texts = _texts(compared, system, run, i)
        for items, k, title in (
            (run.items, i, texts[0]),
            (compared.training, run.nearest.index_N[i], texts[1]),
        ):
            rows.append(_row(items, k, seconds, title))
    path = out / f"neighbours_{page_media.slug(compared.descriptor.name)}.png"
    plots.save_contact_sheet(path, rows)
    return path


def _row(items: nearest_clips.Gathered, number: int, seconds: float, title: str) -> plots.SheetRow:
    """One clip as it was compared; black, or silent, where the file lacks the other medium."""
    name, start_s = items.names[number], items.starts_s[number]
    video = specs.VideoSpec(SHEET_FRAMES / seconds, SHEET_SIDE, SHEET_SIDE)
    frames = np.zeros((SHEET_FRAMES, SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    audio_L = np.zeros(round(seconds * SHEET_RATE_HZ), np.float32)
    media = items.collection.media
    span = {"start_s": start_s, "duration_s": seconds}
    try:
        if name in media["image"]:
            frames = video_io.read_frames(media["image"][name], video, **span)
    except Exception:  # one bad file costs its image alone
        title += " [no image]"
    try:
        if name in media["audio"]:
            audio_L = audio_io.load(media["audio"][name], SHEET_RATE_HZ, **span)
    except Exception:  # one bad file costs its image alone
        title += " [no audio]"
    return plots.SheetRow(frames, audio_L, SHEET_RATE_HZ, video.fps, title)


def _page(
    out: Path,
    found: Sequence[nearest_clips.Compared],
    sheets: Mapping[str, Path],
    text: str,
) -> str:
    """HTML: the tables, and per descriptor and system the closest pairs side by side."""
    links = page_media.Links(out, copy=False)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>foley_jax: {PROTOCOL}</title><style>{STYLE}</style>",
        f"<h1>Audit: {PROTOCOL}</h1><pre>{html.escape(text)}</pre>",
    ]
    for compared in found:
        name = compared.descriptor.name
        parts.append(f"<h2>Closest pairs by {html.escape(name)}</h2><table>")
        for system, run, i in _pairs(compared, PAIRS):
            own, beside = (html.escape(t) for t in _texts(compared, system, run, i))
            left = _players(run.items, i, links)
            right = _players(compared.training, int(run.nearest.index_N[i]), links)
            parts.append(f"<tr><td>{own}{left}</td><td>{beside}{right}</td></tr>")
        sheet = html.escape(links.to(sheets[name]))
        parts.append(f'</table><p><img src="{sheet}" alt="contact sheet of the closest pairs"></p>')
    return "\n".join(parts) + "\n"


def _players(items: nearest_clips.Gathered, number: int, links: page_media.Links) -> str:
    name = items.names[number]
    paths = [items.collection.media[medium].get(name) for medium in ("image", "audio")]
    return "".join(page_media.player(p, links, name) for p in dict.fromkeys(paths) if p is not None)
