"""The report of a listening test: metrics.json, table.md, table.tex, per_sample.csv, index.html."""

from collections.abc import Mapping, Sequence
import html
import json
from pathlib import Path
from typing import Any

from foley_jax.evaluation import notes, run_card, tables
from foley_jax.evaluation.listening import answer_key, preferences, questions, scoring
from foley_jax.evaluation.pages import page_look, page_table
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import bootstrap, remarks
from foley_jax.media import names

PROTOCOL = "listening"
COLUMNS = {
    questions.REAL: {
        "called real": "mean",
        "low": "mean_low",
        "high": "mean_high",
        "exact low": "exact_low",
        "exact high": "exact_high",
    },
    questions.PREFERENCE: {
        "strength": "strength",
        "low": "strength_low",
        "high": "strength_high",
        "won": "won",
    },
    questions.QUALITY: {"quality": "mean", "low": "mean_low", "high": "mean_high"},
    questions.SYNC: {"sync": "mean", "low": "mean_low", "high": "mean_high"},
}
ANSWERS = {"answers": "answers"}  # a column of counts, not for LaTeX
HEADS = {
    questions.REAL: "Real or generated",
    questions.PREFERENCE: "Preference",
    questions.QUALITY: "Quality, 1 to 5",
    questions.SYNC: "Sync, 1 to 5",
}


class _Rules(rules_lib.Rules):
    """The name under which figures are printed."""

    name, key, columns = PROTOCOL, "", {}


def write(
    out: Path,
    key: answer_key.Key,
    scores: scoring.Scores,
    complaints: Sequence[str],
    settings: Mapping[str, Any],
) -> str:
    """Writes all files of the report.

    Args:
      out: folder; made if it is not there.
      complaints: of reading the answers.
      settings: of scoring, "over" among them; into metrics.json.
    Returns:
      The tables and what is to be said of them, to be printed.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = {kind: notes.Table(f, COLUMNS[kind], ANSWERS) for kind, f in scores.figures.items()}
    lines = [*said(key, scores, str(settings["over"])), *complaints, *scores.complaints]
    lines += [f"{kind}: {line}" for kind, table in shown.items() for line in table.lines()]
    lines = [names.shown(line) for line in lines]
    metrics = {
        "protocol": PROTOCOL,
        "commit": run_card.commit(),
        "test": key.test.id,
        "real": key.real,
        "settings": {**settings, "test": key.settings},
        "figures": scores.figures,
        "wins": scores.wins,
        "agreement": scores.agreement,
        "first_clip_preferred": scores.first,
        "listeners": scores.listeners,
        "excluded": scores.excluded,
        "reasons": {kind: table.reasons() for kind, table in shown.items()},
        "notes": lines,
    }
    plain = json.dumps(remarks.plain(metrics), indent=1, allow_nan=False)
    (out / "metrics.json").write_text(plain + "\n")
    markdown = {kind: _markdown(kind, figures) for kind, figures in scores.figures.items()}
    text = "\n\n".join([*markdown.values(), "\n".join(f"- {line}" for line in lines)])
    text = names.shown(text)
    (out / "table.md").write_text(text + "\n")
    (out / "table.tex").write_text(_latex(scores, lines))
    tables.write_per_sample(out / "per_sample.csv", PROTOCOL, scores.rows)
    page = out / "index.html"
    page.write_text(_page(scores, markdown, lines), encoding="utf-8", errors="replace")
    return f"{text}\n\nall items: {page}\n"


def said(key: answer_key.Key, scores: scoring.Scores, over: str) -> list[str]:
    """Returns what the figures mean, who counts, and how far listeners agree; a line each."""
    lines = [f"{len(scores.listeners)} listeners count"]
    if scores.excluded:
        reasons = "; ".join(f"{who} {why}" for who, why in scores.excluded.items())
        lines.append(f"{len(scores.excluded)} listeners are left out: {reasons}")
    elif not any(q.kind == questions.ATTENTION for q in key.questions.values()):
        lines.append("the test has no attention checks: nobody was left out")
    lines.append(
        f"low and high: {scoring.LEVEL:.0%} bootstrap intervals over {over} "
        f"({bootstrap.NUM_RESAMPLES} resamples), the rest as it is"
    )
    if questions.REAL in scores.figures:
        real = f"; {key.real} holds the recordings" if key.real else ""
        lines.append(
            "called real: share of answers that take a clip for a recording (fool rate of a "
            f"system){real}; exact low and high: the binomial interval (Clopper-Pearson), which "
            "takes all answers for independent"
        )
    if questions.PREFERENCE in scores.figures:
        lines.append(
            "strength: Bradley-Terry, log odds with mean 0 over the systems, "
            f"{preferences.PRIOR_WINS} wins added to either side of a compared pair; won: share of "
            "its comparisons"
        )
    if first := scores.first:
        lines.append(
            f"the clip that stood first was preferred in {first['share']:.3f} of "
            f"{first['answers']} comparisons ({first['low']:.3f} to {first['high']:.3f})"
        )
    for kind, found in scores.agreement.items():
        alpha = found["alpha"]
        value = remarks.remark_of(alpha) if remarks.is_absent(alpha) else tables.decimal(alpha)
        lines.append(
            f"agreement on {kind}: Krippendorff's alpha ({scoring.SCALES[kind]}) {value}, "
            f"{found['questions']} questions with two answers or more"
        )
    return lines


def _markdown(kind: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    corner = f"protocol `{PROTOCOL}`, {HEADS[kind].lower()}"
    return tables.markdown_table(corner, figures, COLUMNS[kind], ANSWERS)


def _latex(scores: scoring.Scores, lines: Sequence[str]) -> str:
    parts = [
        tables.latex_table(f"{PROTOCOL}, {HEADS[kind]}", figures, COLUMNS[kind])
        for kind, figures in scores.figures.items()
    ]
    parts += [f"% {' '.join(line.split())}" for line in lines]
    return names.shown("\n".join(parts)) + "\n"


def _page(scores: scoring.Scores, markdown: Mapping[str, str], lines: Sequence[str]) -> str:
    result = protocol.Result(
        figures={},
        samples=scores.rows,
        systems={row["system"]: [] for row in scores.rows},
        folder_warnings=[],
        skipped={},
        files={},
    )
    parts = [f"<h1>Listening test, protocol {page_table.code(PROTOCOL)}</h1>"]
    parts.append(
        '<p class="soft">The same figures are in metrics.json, table.md and table.tex, every item '
        "in per_sample.csv.</p>"
    )
    for kind, text in markdown.items():
        parts.append(f'<h2 id="{kind}">{HEADS[kind]}</h2>{_table(text)}')
    if scores.wins:
        parts.append(f"<h2>Who was preferred to whom</h2>{_table(_wins(scores.wins))}")
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    parts.append(f'<h2>Notes</h2><ul class="notes">{items}</ul>')
    parts.append(page_table.samples(_Rules(), result, {}))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>foley_jax: {PROTOCOL}</title>\n<style>{page_look.STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{page_look.SCRIPT}</script>\n</body>\n</html>\n"
    )


def _wins(wins: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown: how often the row was preferred to the column."""
    head = ["row to column", *wins]
    rows = [[one, *(str(of.get(other, "")) for other in wins)] for one, of in wins.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _table(markdown: str) -> str:
    """The cells of a table of table.md as HTML, so that both say the same."""
    lines = markdown.split("\n")
    # a system's name may hold a bar, what follows it cannot: read from the right
    width = lines[1].count("---")
    head, *rows = [line[2:-2].rsplit(" | ", width - 1) for line in (lines[0], *lines[2:])]
    heads = "".join(f'<th scope="col" class="number">{html.escape(c)}</th>' for c in head[1:])
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">{html.escape(head[0])}</th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )
