"""Rows for LaTeX and CSV carry their protocol and never turn a gap into a zero."""

import csv

import pytest

from foley_jax.evaluation import tables


def test_latex_row():
    figures = {"f1": 0.81234, "f1_std": 0.01, "ap": 0.5, "is": float("nan")}
    row = tables.latex_row("onsets", "Ours & co_1", figures, ["f1", "ap", "is", "fid"])
    want = r"Ours \& co\_1 & $0.812 \pm 0.010$ & 0.500 & -- & -- \\ % protocol: onsets"
    assert row == want


def test_latex_table_has_as_many_cells_in_every_row():
    rows = {"a": {"f1": 1.0}, "b": {}}
    text = tables.latex_table("onsets", rows, {"F1 @100 ms": "f1", "50 % of": "half"})
    cells = [line.split("\\\\")[0].count(" & ") for line in text.split("\n") if " & " in line]
    assert cells == [2, 2, 2]
    assert r"\begin{tabular}{lrr}" in text and r"50 \% of" in text and "protocol onsets" in text


def test_special_characters_are_escaped():
    assert tables.latex_escape("a\\b~^{}$#") == (
        r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}\{\}\$\#"
    )


def test_rows_without_protocol_are_refused(tmp_path):
    with pytest.raises(ValueError, match="protocol ''"):
        tables.latex_row("", "a", {}, ["f1"])
    with pytest.raises(ValueError, match="no protocol"):
        tables.write_per_sample(tmp_path / "s.csv", "", [])


def test_per_sample_file(tmp_path):
    rows = [
        {"system": "a", "name": "x,1", "f1": 0.25},
        {"system": "a", "name": "y", "status": "missing"},
    ]
    tables.write_per_sample(tmp_path / "s.csv", "onsets", rows)
    with (tmp_path / "s.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["protocol", "system", "name", "f1", "status"]
    assert read[0]["name"] == "x,1" and float(read[0]["f1"]) == 0.25
    assert read[1]["f1"] == "" and {r["protocol"] for r in read} == {"onsets"}
    with pytest.raises(ValueError, match="expected system and name"):
        tables.write_per_sample(tmp_path / "s.csv", "onsets", [{"name": "x"}])
