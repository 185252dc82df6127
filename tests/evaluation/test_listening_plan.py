"""Who is asked what: balanced systems, items and sides; orders that differ by listener."""

import collections

import pytest

from foley_jax.evaluation.listening import answers, questions
from tests.evaluation import listeners


def _main(made, seat):
    return [a for a in made.seats[seat] if made.questions[a.question].kind != "attention"]


def test_each_seat_asks_about_every_system_equally_often():
    made = listeners.plan(per_listener=40)
    for seat in range(len(made.seats)):
        asked = [made.questions[a.question] for a in _main(made, seat)]
        assert len({q.id for q in asked}) == len(asked) == 40
        counts = collections.Counter((q.kind, tuple(sorted(q.systems))) for q in asked)
        # 3 kinds of single clips of 4 systems and 6 pairs
        assert len(counts) == 18
        assert max(counts.values()) - min(counts.values()) <= 1


def test_all_seats_ask_each_question_equally_often_and_from_both_sides():
    made = listeners.plan(per_listener=25, num_seats=40)
    asked = collections.Counter(a.question for s in range(40) for a in _main(made, s))
    assert len(asked) == 18 * 12
    assert max(asked.values()) - min(asked.values()) <= 2  # a pair of seats asks it twice
    sides = collections.Counter(
        (a.question, a.flipped)
        for s in range(40)
        for a in _main(made, s)
        if made.questions[a.question].kind == "preference"
    )
    for question in {question for question, _ in sides}:
        assert sides[question, True] == sides[question, False]


def test_in_one_seat_a_system_stands_on_either_side_of_a_pair():
    made = listeners.plan(num_items=6, kinds=("preference",))
    for seat in range(10):
        first = collections.Counter()
        for asked in _main(made, seat):
            question = made.questions[asked.question]
            first[tuple(sorted(question.systems)), question.systems[int(asked.flipped)]] += 1
        assert set(first.values()) == {3}


def test_orders_differ_by_listener_and_are_the_same_for_one():
    made, again = listeners.plan(), listeners.plan()
    assert made == again
    assert made != listeners.plan(seed=1)
    assert len({tuple(a.question for a in seat) for seat in made.seats}) == len(made.seats)
    seats = [questions.seat_of(f"listener{k}", 60) for k in range(3000)]
    counts = collections.Counter(seats)
    assert set(counts) == set(range(60))
    # 50 are expected; five standard deviations
    assert min(counts.values()) > 15 and max(counts.values()) < 85
    assert questions.seat_of("anna", 60) == questions.seat_of("anna", 60)


def test_attention_checks_are_spread_and_all_are_asked():
    made = listeners.plan(kinds=("quality",), checks={"a": 1, "b": 2, "c": 3})
    for seat in made.seats:
        places = [k for k, a in enumerate(seat) if made.questions[a.question].kind == "attention"]
        assert len(places) == 3
        # one in each third
        assert places[0] <= 17 <= places[1] + 1 and places[1] <= 34 <= places[2] + 1


def test_what_the_page_is_told_follows_no_system():
    made = listeners.plan(kinds=("preference",), num_items=40)
    public = answers.public("t", "title", made)
    assert set(public) == {"test", "title", "questions", "seats"}
    assert set(public["questions"][0]) == {"id", "kind", "clips"}
    leads = collections.Counter(q.systems[0] for q in made.questions if q.systems)
    # 120 of 240 questions each, were the sides not dealt out "good" would lead all of its own
    assert all(30 <= leads[system] <= 90 for system in listeners.SYSTEMS)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"kinds": ("realism",)}, "expected some of real"),
        ({"kinds": ()}, "expected some of real"),
        ({"systems": ("one",), "kinds": ("preference",)}, "needs two systems"),
        ({"per_listener": 0}, "at least 1"),
        ({"num_seats": 7}, "even"),
        ({"num_items": 0}, "no items"),
    ],
)
def test_what_cannot_be_planned_is_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        listeners.plan(**settings)
