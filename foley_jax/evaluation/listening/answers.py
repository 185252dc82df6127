"""A test as its page has it, and the answers to it: what is one, and which count.

An answer is a line of JSON:
{"test": id, "listener": "anna", "seat": 3, "question": "q7", "answer": 4, "seconds": 12.5}
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import math
import numbers
from pathlib import Path
import re
from typing import Any

from foley_jax.evaluation.listening import questions as questions_lib

TEST_FILE = "test.json"  # in the page's folder; holds nothing of the key
LISTENER = re.compile(r"[A-Za-z0-9_-]{1,40}")
FIELDS = {"test", "listener", "seat", "question", "answer", "seconds"}
MOST_SECONDS = 7 * 24 * 3600.0
MOST_LINE = 2000  # characters


@dataclasses.dataclass(frozen=True)
class Test:
    """The public part of a test.

    Attributes:
      id: of the test; answers name it.
      questions: id -> kind and opaque names of its clips.
      num_seats: how many there are.
    """

    __test__ = False  # no test of pytest's

    id: str
    questions: Mapping[str, tuple[str, tuple[str, ...]]]
    num_seats: int

    @classmethod
    def of(cls, public: Mapping[str, Any]) -> "Test":
        """Reads what `public` made.

        Raises:
          ValueError: it is something else.
        """
        try:
            asked = {q["id"]: (q["kind"], tuple(q["clips"])) for q in public["questions"]}
            return cls(str(public["test"]), asked, len(public["seats"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no listening test ({error}); expected what `make` wrote") from error


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer; `value` is "real" or "generated", a clip's name, or 1 to 5."""

    listener: str
    seat: int
    question: str
    value: str | int
    seconds: float


def public(test: str, title: str, plan: questions_lib.Plan) -> dict[str, Any]:
    """Returns what the page may know of a plan: neither items nor systems nor right answers."""
    asked = [{"id": q.id, "kind": q.kind, "clips": list(q.clips)} for q in plan.questions]
    seats = [[[one.question, int(one.flipped)] for one in seat] for seat in plan.seats]
    return {"test": test, "title": title, "questions": asked, "seats": seats}


def parse(line: str, test: Test) -> Answer:
    """Reads one answer.

    Raises:
      ValueError: it is none, or none to this test; says why without the line itself.
    """
    if len(line) > MOST_LINE:
        raise ValueError(f"a line of {len(line)} characters, expected at most {MOST_LINE}")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("a line is not JSON, expected one answer per line") from error
    if not isinstance(found, dict) or set(found) != FIELDS:
        raise ValueError(f"an answer has other fields, expected {', '.join(sorted(FIELDS))}")
    if found["test"] != test.id:
        raise ValueError("an answer is to another test, expected one to this page's")
    listener, seat, question = found["listener"], found["seat"], found["question"]
    if not isinstance(listener, str) or not LISTENER.fullmatch(listener):
        raise ValueError("a listener's id is expected to be 1 to 40 letters, digits, - and _")
    if type(seat) is not int or not 0 <= seat < test.num_seats:
        raise ValueError(f"a seat is expected to be 0 to {test.num_seats - 1}")
    if not isinstance(question, str) or question not in test.questions:
        raise ValueError("an answer is to a question that this test does not have")
    seconds = found["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise ValueError("seconds are expected to be a number")
    if not math.isfinite(seconds) or not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"seconds are expected to be 0 to {MOST_SECONDS:.0f}")
    _check_value(found["answer"], *test.questions[question])
    return Answer(listener, seat, question, found["answer"], float(seconds))


def _check_value(value: Any, kind: str, clips: Sequence[str]) -> None:
    allowed: tuple[str | int, ...] = questions_lib.POINTS
    if kind == questions_lib.REAL:
        allowed = (questions_lib.SAID_REAL, questions_lib.SAID_GENERATED)
    elif kind == questions_lib.PREFERENCE:
        allowed = tuple(clips)
    # True is 1, and 1.0 too
    if type(value) not in (str, int) or value not in (*allowed, questions_lib.CANNOT_PLAY):
        what = "one of its clips" if kind == questions_lib.PREFERENCE else f"one of {allowed}"
        raise ValueError(f"an answer to a question of kind {kind} is expected to be {what}")


def record(answer: Answer, test: str) -> dict[str, Any]:
    """Returns an answer as a line of JSON has it."""
    return {
        "test": test,
        "listener": answer.listener,
        "seat": answer.seat,
        "question": answer.question,
        "answer": answer.value,
        "seconds": answer.seconds,
    }


def read(paths: Iterable[Path], test: Test) -> tuple[list[Answer], list[str]]:
    """Reads answers from files of JSON lines; of one listener's to one question the last counts.

    Args:
      paths: files, the later ones of a listener last.
    Returns:
      The answers, and complaints: a line for each that is none, and how many were replaced.
    Raises:
      FileNotFoundError: a file is not there.
    """
    last: dict[tuple[str, str], Answer] = {}
    complaints, replaced = [], 0
    for path in paths:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            try:
                answer = parse(line, test)
            except ValueError as error:
                complaints.append(f"{path.name}, line {number}: {error}; left out")
                continue
            # the download and the server's file may hold the same answer
            earlier = last.pop((answer.listener, answer.question), None)
            replaced += earlier is not None and earlier.value != answer.value
            last[answer.listener, answer.question] = answer
    if replaced:
        complaints.append(f"{replaced} answers were given anew; the last ones count")
    return list(last.values()), complaints
