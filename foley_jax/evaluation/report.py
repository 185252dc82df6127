"""The files of a report: one protocol's figures, with every reason and remark in each of them."""

import json
from pathlib import Path

from foley_jax.evaluation import notes, run_card, tables
from foley_jax.evaluation.pages import page
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import remarks
from foley_jax.media import names


class _Nothing(rules_lib.Rules):
    """A protocol that could not be made, or that failed."""

    columns = {}
    key = ""

    def __init__(self, name: str):
        self.name = name

    def settings(self) -> dict:
        return {}


def write(out: Path, rules: rules_lib.Rules, result: protocol.Result) -> str:
    """Writes all files of a report; returns its table and notes, to be printed.

    An absent figure is null in metrics.json, empty in per_sample.csv and a dash in the tables;
    why stands in each of them, in run_card.json and on the page. Likewise what is said of a figure
    that is there.
    """
    out.mkdir(parents=True, exist_ok=True)
    name = rules.name
    beside = notes.Table.of(rules, result)
    said = {
        **beside.record(),
        "skipped": result.skipped,
        "failed": result.failed,
        "complaints": result.folder_warnings,
    }
    # JSON knows no nan: what could not be computed is null
    figures = remarks.plain(result.figures)
    metrics = {"protocol": name, "judges": rules.judges, "systems": figures, **said}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    columns, more = rules.columns, rules.more_columns
    table = tables.markdown_table(f"protocol `{name}`", result.figures, columns, more)
    skipped = (f"{metric}: {why}" for metric, why in result.skipped.items())
    judges = [f"`{name}` judges {rules.judges}"] if rules.judges else []
    lines = [*judges, *beside.lines(), *result.folder_warnings, *skipped]
    lines = [names.shown(line) for line in lines]
    text = table + ("\n" + "".join(f"\n- {line}" for line in lines) if lines else "")
    (out / "table.md").write_text(text + "\n")
    keys = {head: key for head, key in columns.items() if key}
    latex = tables.latex_table(name, result.figures, keys, notes=lines)
    (out / "table.tex").write_text(latex + "\n")
    tables.write_per_sample(out / "per_sample.csv", name, beside.items(result.samples))
    run_card.write(out / "run_card.json", name, {**rules.settings(), **said}, result.systems)
    shown = page.write(out, rules, result)
    return f"{text}\n\nplayers, best and worst: {shown}\n"


def write_failure(out: Path, name: str, why: str) -> None:
    """A report that says why a protocol gave nothing, in place of an older one.

    Args:
      name: of the protocol.
    """
    write(out, _Nothing(name), protocol.Result({}, [], {}, [f"{name} failed: {why}"], {}, {}))
