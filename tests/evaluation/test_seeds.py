"""Seeds of one system: collected by name, averaged, with their spread; gaps are not filled."""

import json
from pathlib import Path

import numpy as np
import pytest

from foley_jax.evaluation import seeds, tables


def test_a_repeated_name_collects_folders():
    assert seeds.parse(["a=x/0", "b=y", "a=x/1"]) == {
        "a": [Path("x/0"), Path("x/1")],
        "b": [Path("y")],
    }


@pytest.mark.parametrize("item", ("x/0", "=x", "a="))
def test_an_item_without_name_or_folder_is_refused(item):
    with pytest.raises(ValueError, match="expected NAME=DIR"):
        seeds.parse([item])


def test_merge_averages_and_reports_the_spread_over_seeds():
    runs = [{"f1@100ms": f, "clips": 8, "align_acc": a} for f, a in ((0.7, 0.5), (0.9, 0.5))]
    merged = seeds.merge(runs)
    assert merged["f1@100ms"] == pytest.approx(0.8)
    assert merged["f1@100ms_std"] == pytest.approx(np.sqrt(0.02))
    assert merged["align_acc_std"] == 0.0
    assert merged["seeds"] == 2


def test_merge_drops_what_only_some_seeds_have():
    merged = seeds.merge([{"f1@100ms": 0.7, "align_acc": 0.5}, {"f1@100ms": 0.9}])
    assert "align_acc" not in merged and "align_acc_std" not in merged


def test_mean_scores_rounds_half_to_wrong_and_skips_incomplete(tmp_path):
    clips = {
        "a": {"alignment": 0.5, "cavp_similarity": 0.2},
        "b": {"alignment": 0.51, "cavp_similarity": 0.4},
        "c": {"cavp_similarity": 0.6},
    }
    (tmp_path / "scores.json").write_text(json.dumps({"clips": clips}))
    both = seeds.mean_scores(tmp_path, ["a", "b"])
    assert both["align_acc"] == 0.5
    assert both["cavp_similarity"] == pytest.approx(0.3)
    assert set(seeds.mean_scores(tmp_path, ["a", "c"])) == {"cavp_similarity"}
    assert seeds.mean_scores(tmp_path / "none", ["a"]) == {}
    assert seeds.mean_scores(None, ["a"]) == {}


def test_the_table_shows_a_dash_where_a_system_lacks_a_figure():
    row = {"clips": 8, "f1_low": 0.4, "f1_high": 0.6, "f1": 0.5, "seeds": 3}
    rows = {"a": row, "b": {**row, "align_acc": 0.25}}
    columns, more = {"F1": "f1", "95 %": None}, {"seeds": "seeds", "align": "align_acc"}
    header, _, a, b = tables.markdown_table("protocol `x`", rows, columns, more).splitlines()
    assert header == "| protocol `x` | clips | F1 | 95 % | seeds | align |"
    assert a == "| a | 8 | 0.500 | 0.400-0.600 | 3 | - |"
    assert b == "| b | 8 | 0.500 | 0.400-0.600 | 3 | 0.250 |"
