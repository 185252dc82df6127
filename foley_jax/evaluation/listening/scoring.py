"""Figures of a listening test: who was taken for real, rated how, and preferred to whom.

Intervals resample listeners (or items): they say how a figure would move with others of them, the
rest as it is. The share of clips called real also has the exact binomial interval, which takes all
answers for independent.

Axis letters: N listeners (or items), S systems.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, Literal

import numpy as np
from scipy import stats

from foley_jax.evaluation.listening import agreement, answer_key, answers, preferences, questions
from foley_jax.evaluation.statistics import bootstrap, remarks

Over = Literal["listeners", "items"]
LEVEL = 0.95
SCALES: dict[str, agreement.Scale] = {
    questions.REAL: "nominal",
    questions.PREFERENCE: "nominal",
    questions.QUALITY: "interval",
    questions.SYNC: "interval",
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """Figures of a test.

    Attributes:
      figures: kind of question -> system -> figures; kinds without an answer are not there.
      wins: system -> other -> how often it was preferred.
      agreement: kind -> {"alpha", "questions", "answers"}; the questions have two answers or more.
      first: share of preferences for the clip that stood first, and its binomial interval; empty
        without preferences.
      listeners: those who count, in order.
      excluded: listener -> why not.
      rows: one per system and item, for `tables.write_per_sample`.
      complaints: a line each.
    """

    figures: dict[str, dict[str, dict[str, float]]]
    wins: dict[str, dict[str, int]]
    agreement: dict[str, dict[str, float]]
    first: dict[str, float]
    listeners: tuple[str, ...]
    excluded: dict[str, str]
    rows: list[dict[str, Any]]
    complaints: list[str]


def score(
    key: answer_key.Key,
    given: Sequence[answers.Answer],
    *,
    allowed_failures: int = 0,
    over: Over = "listeners",
) -> Scores:
    """Scores answers.

    Args:
      key: of the test.
      given: its answers, one per listener and question.
      allowed_failures: attention checks that a listener may fail and still count.
      over: what intervals resample.
    Raises:
      ValueError: a negative allowance, or no answer that counts.
    """
    excluded = failed_listeners(key, given, allowed_failures)
    heard = [a for a in given if key.questions[a.question].kind != questions.ATTENTION]
    counted = [a for a in heard if a.listener not in excluded]
    broken = sum(a.value == questions.CANNOT_PLAY for a in counted)
    counted = [a for a in counted if a.value != questions.CANNOT_PLAY]
    if not counted:
        why = "; ".join(f"{who}: {what}" for who, what in excluded.items()) or "there are none"
        raise ValueError(f"no answer counts ({why}), expected at least one")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind in questions.KINDS:
        own = [a for a in counted if key.questions[a.question].kind == kind]
        if own:
            of_kind = _preferred if kind == questions.PREFERENCE else _judged
            figures[kind] = of_kind(key, own, over)
    return Scores(
        figures=figures,
        wins=_wins_by_name(key, counted),
        agreement=_agreement(key, counted),
        first=_first(key, counted),
        listeners=tuple(sorted({a.listener for a in counted})),
        excluded=excluded,
        rows=_rows(key, counted),
        complaints=[f"{broken} answers say that a clip could not be played"] if broken else [],
    )


def failed_listeners(
    key: answer_key.Key, given: Sequence[answers.Answer], allowed_failures: int
) -> dict[str, str]:
    """Listener -> why none of the answers count: attention checks failed, or none answered."""
    if allowed_failures < 0:
        raise ValueError(f"{allowed_failures} failures allowed, expected 0 or more")
    has_checks = any(q.kind == questions.ATTENTION for q in key.questions.values())
    found = {}
    for listener in sorted({a.listener for a in given}) if has_checks else ():
        checks = [
            a.value == key.questions[a.question].expected
            for a in given
            if a.listener == listener and key.questions[a.question].kind == questions.ATTENTION
        ]
        failures = checks.count(False)
        if not checks:
            found[listener] = "answered no attention check"
        elif failures > allowed_failures:
            found[listener] = f"failed {failures} of {len(checks)} attention checks"
    return found


def number_of(question: questions.Question, value: str | int) -> float:
    """An answer as a number: 1 if called real, or if the first system listed was preferred."""
    if question.kind == questions.REAL:
        return float(value == questions.SAID_REAL)
    if question.kind == questions.PREFERENCE:
        return float(value == question.clips[0])
    return float(value)


def _groups(key: answer_key.Key, own: Sequence[answers.Answer], over: Over) -> np.ndarray:
    """Number of the listener, or item, of each answer, int [answers]."""
    named = [a.listener if over == "listeners" else key.questions[a.question].item for a in own]
    return np.unique(named, return_inverse=True)[1]


def _interval(
    rows_NK: np.ndarray, statistic: Callable[[np.ndarray], float], over: Over, name: str
) -> dict[str, float]:
    """Figures `name`_low and `name`_high; absent of too few."""
    if len(rows_NK) < bootstrap.LEAST_ITEMS:
        need = f"an interval needs {bootstrap.LEAST_ITEMS}"
        few = remarks.too_few(len(rows_NK), over.removesuffix("s"), need)
        return {f"{name}_low": few, f"{name}_high": few}
    found = bootstrap.sums_interval(rows_NK, statistic, level=LEVEL)
    return {f"{name}_low": found.low, f"{name}_high": found.high}


def _binomial(count: int, total: int) -> tuple[float, float]:
    """The exact interval (Clopper and Pearson 1934)."""
    found = stats.binomtest(count, total).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def _judged(
    key: answer_key.Key, own: Sequence[answers.Answer], over: Over
) -> dict[str, dict[str, float]]:
    """Shares called real, or mean ratings, by system."""
    found = {}
    for system in key.systems:
        some = [a for a in own if key.questions[a.question].systems == (system,)]
        if not some:
            continue
        values = np.array([number_of(key.questions[a.question], a.value) for a in some])
        groups = _groups(key, some, over)
        rows_NK = np.stack([np.bincount(groups, values), np.bincount(groups)], 1)
        figures = {
            "clips": len({a.question for a in some}),
            "answers": len(some),
            "mean": float(values.mean()),
            **_interval(rows_NK, lambda sums: sums[0] / sums[1], over, "mean"),
        }
        if key.questions[some[0].question].kind == questions.REAL:
            figures["exact_low"], figures["exact_high"] = _binomial(int(values.sum()), len(some))
        found[system] = figures
    return found


def _wins(key: answer_key.Key, own: Sequence[answers.Answer], groups: np.ndarray) -> np.ndarray:
    """How often row was preferred to column, [N, S, S]."""
    number = {system: k for k, system in enumerate(key.systems)}
    wins = np.zeros((groups.max(initial=-1) + 1, len(number), len(number)))
    for group, a in zip(groups, own):
        question = key.questions[a.question]
        better, worse = question.systems[:: 1 if a.value == question.clips[0] else -1]
        wins[group, number[better], number[worse]] += 1
    return wins


def _preferred(
    key: answer_key.Key, own: Sequence[answers.Answer], over: Over
) -> dict[str, dict[str, float]]:
    """Bradley-Terry strengths and shares of comparisons won, by system."""
    wins_NSS = _wins(key, own, _groups(key, own, over))
    all_SS = wins_NSS.sum(0)
    there = np.flatnonzero((all_SS + all_SS.T).sum(1))
    wins_NSS, all_SS = wins_NSS[:, there][:, :, there], all_SS[there][:, there]
    compared_SS = all_SS + all_SS.T > 0

    # one fit for all systems: their intervals have the same resamples
    @functools.lru_cache(maxsize=bootstrap.NUM_RESAMPLES + 2)
    def fit(data: bytes) -> np.ndarray:
        return preferences.strengths(np.frombuffer(data).reshape(all_SS.shape), compared_SS)

    connected = preferences.are_connected(all_SS)
    rows_NK = wins_NSS.reshape(len(wins_NSS), -1)
    found = {}
    for k, number in enumerate(there):
        won, lost = all_SS[k].sum(), all_SS[:, k].sum()
        system = key.systems[number]
        asked = [a for a in own if system in key.questions[a.question].systems]
        figures = {
            "clips": len({key.questions[a.question].item for a in asked}),
            "answers": len(asked),
            "won": float(won / (won + lost)),
        }
        if connected:
            figures["strength"] = float(fit(all_SS.tobytes())[k])
            of_sums = functools.partial(lambda sums, k: float(fit(sums.tobytes())[k]), k=k)
            figures |= _interval(rows_NK, of_sums, over, "strength")
        else:
            why = remarks.absent("some systems were never compared with the others")
            figures |= dict.fromkeys(("strength", "strength_low", "strength_high"), why)
        found[system] = figures
    return found


def _preferences(key: answer_key.Key, counted: Sequence[answers.Answer]) -> list[answers.Answer]:
    return [a for a in counted if key.questions[a.question].kind == questions.PREFERENCE]


def _wins_by_name(
    key: answer_key.Key, counted: Sequence[answers.Answer]
) -> dict[str, dict[str, int]]:
    own = _preferences(key, counted)
    if not own:
        return {}
    wins_SS = _wins(key, own, np.zeros(len(own), int))[0]
    names = key.systems
    return {
        one: {other: int(wins_SS[i, j]) for j, other in enumerate(names) if j != i}
        for i, one in enumerate(names)
    }


def _first(key: answer_key.Key, counted: Sequence[answers.Answer]) -> dict[str, float]:
    """Whether the side had a say; answers of a seat that never had the question are left out."""
    sides = [
        a.value == key.questions[a.question].clips[int(key.flipped[a.seat, a.question])]
        for a in _preferences(key, counted)
        if (a.seat, a.question) in key.flipped
    ]
    if not sides:
        return {}
    low, high = _binomial(sum(sides), len(sides))
    return {"share": sum(sides) / len(sides), "low": low, "high": high, "answers": len(sides)}


def _agreement(
    key: answer_key.Key, counted: Sequence[answers.Answer]
) -> dict[str, dict[str, float]]:
    units: dict[str, dict[str, list[float]]] = {}
    for a in counted:
        question = key.questions[a.question]
        of_kind = units.setdefault(question.kind, {})
        of_kind.setdefault(question.id, []).append(number_of(question, a.value))
    return {
        kind: {
            "alpha": agreement.krippendorff(units[kind], SCALES[kind]),
            "questions": sum(len(values) > 1 for values in units[kind].values()),
            "answers": sum(map(len, units[kind].values())),
        }
        for kind in questions.KINDS
        if kind in units
    }


def _rows(key: answer_key.Key, counted: Sequence[answers.Answer]) -> list[dict[str, Any]]:
    """Per system and item: mean of each kind of answer and how many there are."""
    sums: dict[tuple[str, str], dict[str, list[float]]] = {}
    for a in counted:
        question = key.questions[a.question]
        value = number_of(question, a.value)
        for place, system in enumerate(question.systems):
            of_item = sums.setdefault((system, question.item), {})
            of_item.setdefault(question.kind, []).append(1.0 - value if place else value)
    heads = {questions.REAL: "called_real", questions.PREFERENCE: "won"}
    rows = []
    for system, item in sorted(sums, key=lambda pair: (key.systems.index(pair[0]), pair[1])):
        row: dict[str, Any] = {"system": system, "run": 0, "name": item}
        row["status"] = "recording" if system == key.real else "generated"
        for kind in questions.KINDS:
            if values := sums[system, item].get(kind):
                head = heads.get(kind, kind)
                row |= {head: float(np.mean(values)), f"{head}_answers": len(values)}
        rows.append(row)
    return rows
