"""Scripted listeners of known preference: the figures find it; who is inattentive is left out."""

import dataclasses
import json
import math

import numpy as np
import pytest

from foley_jax.evaluation.listening import (
    agreement,
    answers,
    listening_report,
    preferences,
    scoring,
)
from foley_jax.evaluation.statistics import remarks
from tests.evaluation import listeners

STRENGTHS = {"good": 0.8, "fair": 0.1, "poor": -1.2, "real": 0.3}  # their mean is 0
RATINGS = {"good": 4.0, "fair": 3.0, "poor": 2.0, "real": 3.4}
CALLED_REAL = {"good": 0.6, "fair": 0.4, "poor": 0.15, "real": 0.8}


def _is_within(true, figures, name, slack=0.0):
    """Within half more than the interval: three deviations, so that no seed must be chosen."""
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    margin = (high - low) / 4 + slack
    assert low - margin < true < high + margin, (true, figures)


def _given(made, count=24, inattentive=0, seed=5):
    rng = np.random.default_rng(seed)
    people = [
        listeners.Listener(f"p{k}", STRENGTHS, RATINGS, CALLED_REAL, rng) for k in range(count)
    ]
    upside_down = {system: -strength for system, strength in STRENGTHS.items()}
    people += [
        listeners.Listener(f"x{k}", upside_down, RATINGS, CALLED_REAL, rng, attentive=False)
        for k in range(inattentive)
    ]
    return [answer for person in people for answer in person.all_of(made)]


@pytest.fixture(scope="module")
def scored():
    made = listeners.plan(per_listener=60)
    key = listeners.key_of(made)
    return key, scoring.score(key, _given(made, inattentive=8))


def test_known_strengths_lie_in_their_intervals(scored):
    _, scores = scored
    for system, true in STRENGTHS.items():
        figures = scores.figures["preference"][system]
        _is_within(true, figures, "strength")
        assert figures["strength_high"] - figures["strength_low"] < 1.0
    order = sorted(STRENGTHS, key=lambda s: scores.figures["preference"][s]["strength"])
    assert order[0] == "poor" and order[-1] == "good"


def test_known_rates_and_ratings_lie_in_their_intervals(scored):
    _, scores = scored
    for system, true in CALLED_REAL.items():
        figures = scores.figures["real"][system]
        assert figures["exact_low"] <= figures["mean"] <= figures["exact_high"]
        _is_within(true, figures, "mean")
    for kind in ("quality", "sync"):
        for system, true in RATINGS.items():
            figures = scores.figures[kind][system]
            # rounding and the ends of the scale move the mean a little
            _is_within(true, figures, "mean", 0.05)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """Over 15 tests, of four systems each: 95 % are 57 of 60; below 51 would be 4 deviations."""
    made = listeners.plan(per_listener=60)
    key, held = listeners.key_of(made), {"strength": 0, "mean": 0, "exact": 0}
    for seed in range(15):
        scores = scoring.score(key, _given(made, seed=100 + seed))
        for system in STRENGTHS:
            for name, kind, true in (
                ("strength", "preference", STRENGTHS),
                ("mean", "real", CALLED_REAL),
                ("exact", "real", CALLED_REAL),
            ):
                figures = scores.figures[kind][system]
                held[name] += figures[f"{name}_low"] < true[system] < figures[f"{name}_high"]
    assert min(held.values()) >= 51, held


def test_inattentive_listeners_are_left_out_and_named(scored):
    key, scores = scored
    assert set(scores.excluded) == {f"x{k}" for k in range(8)}
    assert scores.excluded["x0"] == "failed 2 of 2 attention checks"
    assert not set(scores.listeners) & set(scores.excluded)
    lines = listening_report.said(key, scores, "listeners")
    assert any("8 listeners are left out" in line and "x3" in line for line in lines)


def test_failures_can_be_allowed_and_no_check_is_none():
    made = listeners.plan(kinds=("real",))
    key, given = listeners.key_of(made), _given(made, count=5, inattentive=1)
    assert scoring.score(key, given, allowed_failures=2).excluded == {}
    kinds = {q.id: q.kind for q in made.questions}
    unchecked = [a for a in given if a.listener != "p0" or kinds[a.question] != "attention"]
    assert scoring.score(key, unchecked).excluded["p0"] == "answered no attention check"
    with pytest.raises(ValueError, match="no answer counts"):
        scoring.score(key, [a for a in given if a.listener == "x0"])


def test_few_listeners_have_figures_and_no_interval():
    made = listeners.plan(kinds=("quality",))
    key = listeners.key_of(made)
    scores = scoring.score(key, _given(made, count=3))
    figures = scores.figures["quality"]["good"]
    assert figures["mean"] > 3 and math.isnan(figures["mean_low"])
    assert remarks.remark_of(figures["mean_low"]) == "3 listeners; an interval needs 4"
    assert math.isfinite(
        scoring.score(key, _given(made, count=3), over="items").figures["quality"]["good"][
            "mean_low"
        ]
    )


def test_sides_and_items_are_accounted_for(scored):
    key, scores = scored
    assert scores.first["low"] < 0.5 < scores.first["high"]
    assert len(scores.rows) == 12 * 4
    row = next(r for r in scores.rows if r["system"] == "real" and r["name"] == "item3")
    assert row["status"] == "recording" and 0 <= row["won"] <= 1
    wins = scores.wins
    assert wins["good"]["poor"] > wins["poor"]["good"]
    total = sum(sum(of.values()) for of in wins.values())
    assert total == scores.agreement["preference"]["answers"] == scores.first["answers"]


def test_what_could_not_be_played_is_counted_not_scored():
    made = listeners.plan(kinds=("quality",))
    key, given = listeners.key_of(made), _given(made, count=4)
    kinds = {q.id: q.kind for q in made.questions}
    first = next(k for k, a in enumerate(given) if kinds[a.question] == "quality")
    given[first] = dataclasses.replace(given[first], value="unplayable")
    scores = scoring.score(key, given)
    assert scores.complaints == ["1 answers say that a clip could not be played"]
    assert sum(f["answers"] for f in scores.figures["quality"].values()) == 4 * 48 - 1


def test_a_report_says_the_same_everywhere(scored, tmp_path):
    key, scores = scored
    text = listening_report.write(tmp_path, key, scores, ["a & b"], {"over": "listeners"})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    strength = metrics["figures"]["preference"]["good"]["strength"]
    for name in ("table.md", "table.tex", "index.html"):
        assert f"{strength:.3f}" in (tmp_path / name).read_text()
    assert f"{strength:.3f}" in text and "Krippendorff" in text and "Clopper" in text
    page = (tmp_path / "index.html").read_text()
    assert "a &amp; b" in page and "item11" in page
    assert len((tmp_path / "per_sample.csv").read_text().splitlines()) == 49


def test_bradley_terry_has_its_closed_form_for_two():
    found = preferences.strengths(np.array([[0, 30], [10, 0]]))
    expected = math.log((30 + preferences.PRIOR_WINS) / (10 + preferences.PRIOR_WINS))
    assert found[0] - found[1] == pytest.approx(expected, abs=1e-8)
    all_won = preferences.strengths(np.array([[0, 500], [0, 0]]))
    assert np.isfinite(all_won).all() and all_won[0] > all_won[1]
    with pytest.raises(ValueError, match="never compared"):
        preferences.strengths(np.zeros((2, 2)))


def test_bradley_terry_maximises_its_likelihood():
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 9, (5, 5)) * (1 - np.eye(5, dtype=int))
    found = preferences.strengths(wins)

    def likelihood(s):
        counts = wins + preferences.PRIOR_WINS * (1 - np.eye(5))
        return -(counts * np.log1p(np.exp(s[None] - s[:, None]))).sum()

    for _ in range(20):
        assert likelihood(found) > likelihood(found + rng.normal(0, 0.05, 5))


def test_alpha_is_that_of_the_published_example():
    """Krippendorff 2011, section C: four observers, twelve units, some values missing."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    units = {str(u): [row[u] for row in table if row[u]] for u in range(12)}
    assert agreement.krippendorff(units, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert agreement.krippendorff(units, "interval") == pytest.approx(0.849, abs=5e-4)
    assert agreement.krippendorff({"a": [1, 1], "b": [2, 2]}, "nominal") == 1.0
    assert "the same" in remarks.remark_of(agreement.krippendorff({"a": [1, 1]}, "nominal"))
    assert "two answers" in remarks.remark_of(agreement.krippendorff({"a": [1]}, "nominal"))


GOOD = {"test": "t1", "listener": "anna", "seat": 0, "question": "", "answer": 3, "seconds": 1.5}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"test": "t2"}, "another test"),
        ({"listener": "../etc"}, "1 to 40 letters"),
        ({"listener": "a" * 41}, "1 to 40 letters"),
        ({"listener": 5}, "1 to 40 letters"),
        ({"seat": 60}, "0 to 59"),
        ({"seat": True}, "0 to 59"),
        ({"question": "q9999"}, "does not have"),
        ({"question": ["q1"]}, "does not have"),
        ({"answer": 6}, "one of"),
        ({"answer": True}, "one of"),
        ({"answer": 3.0}, "one of"),
        ({"answer": "real"}, "one of"),
        ({"answer": [3]}, "one of"),
        ({"seconds": -1}, "0 to"),
        ({"seconds": math.nan}, "0 to"),
        ({"seconds": "1"}, "a number"),
        ({"more": 1}, "other fields"),
    ],
)
def test_bad_answers_are_refused(change, complaint):
    made = listeners.plan(kinds=("quality",))
    test = listeners.key_of(made).test
    good = GOOD | {"question": next(q.id for q in made.questions if q.kind == "quality")}
    assert answers.parse(json.dumps(good), test).value == 3
    with pytest.raises(ValueError, match=complaint):
        answers.parse(json.dumps(good | change), test)


def test_lines_that_are_no_answers_are_named_and_the_last_answer_counts(tmp_path):
    made = listeners.plan(kinds=("quality",))
    test = listeners.key_of(made).test
    good = GOOD | {"question": next(q.id for q in made.questions if q.kind == "quality")}
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(good), "{", "[" * 1900, json.dumps(good | {"answer": 5}), ""]
    path.write_text("\n".join(lines))
    given, complaints = answers.read([path], test)
    assert [a.value for a in given] == [5]
    assert len(complaints) == 3 and complaints[0].startswith("a.jsonl, line 2: ")
    assert "1 answers were given anew" in complaints[-1]
