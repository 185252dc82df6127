"""The questions of a listening test, and in which order whom they are asked.

A listener takes one seat (by a hash of the id), and a seat is a fixed list of questions. Balanced
by construction: in every seat each system, or pair of systems, is asked about equally often (by at
most one question), all seats together ask every question equally often (likewise), and the seats
2 k and 2 k + 1 ask the same questions with the sides of every pair exchanged.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools

import numpy as np

REAL, PREFERENCE, QUALITY, SYNC, ATTENTION = "real", "preference", "quality", "sync", "attention"
KINDS = (REAL, PREFERENCE, QUALITY, SYNC)  # that may be asked for; ATTENTION comes by itself
RATINGS = (QUALITY, SYNC)
POINTS = (1, 2, 3, 4, 5)  # of a rating, and beeps of an attention check
SAID_REAL, SAID_GENERATED = "real", "generated"
CANNOT_PLAY = "unplayable"  # an answer to any question; counted, never scored
DEFAULT_SEATS = 60


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
      id: in answers and in the key; says nothing.
      kind: of `KINDS`, or `ATTENTION`.
      item: name of the item; "" of an attention check.
      clips: opaque names of what is heard: two for a preference, else one.
      systems: whose clips these are, in the same order; () of an attention check.
      expected: right answer of an attention check, else None.
    """

    id: str
    kind: str
    item: str
    clips: tuple[str, ...]
    systems: tuple[str, ...]
    expected: int | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question in a seat.

    Attributes:
      question: its number among the questions.
      flipped: whether the second clip stands first.
    """

    question: int
    flipped: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """All questions, and for every seat which are asked, in order."""

    questions: tuple[Question, ...]
    seats: tuple[tuple[Asked, ...], ...]


def make(
    clips: Mapping[str, Mapping[str, str]],
    checks: Mapping[str, int],
    kinds: Sequence[str],
    *,
    per_listener: int | None = None,
    num_seats: int = DEFAULT_SEATS,
    seed: int = 0,
) -> Plan:
    """Plans a listening test.

    Args:
      clips: item -> system -> opaque name of its clip; every item has the same systems.
      checks: opaque name of an attention check's clip -> how many beeps are heard in it. All of
        them are asked in every seat.
      kinds: of `KINDS`.
      per_listener: questions in a seat without the checks, at least 1; None asks all of them.
      num_seats: even, at least 2.
      seed: of the orders and sides.
    Raises:
      ValueError: no items, unknown kinds, a preference between fewer than two systems, items with
        other systems, or numbers out of range.
    """
    systems = _check(clips, kinds, per_listener, num_seats)
    rng = np.random.default_rng(seed)
    strata = list(_strata(clips, kinds, systems, rng))
    listed = [question for stratum in strata for question in stratum]
    listed += [Question("", ATTENTION, "", (name,), (), beeps) for name, beeps in checks.items()]
    # the numbers of questions are on the page: they must not follow the systems
    place = rng.permutation(len(listed))
    questions: list[Question] = [listed[0]] * len(listed)
    for old, new in enumerate(place):
        questions[new] = dataclasses.replace(listed[old], id=f"q{new}")
    ends = np.cumsum([0, *map(len, strata)])
    numbers = [place[a:b].tolist() for a, b in itertools.pairwise(ends)]
    own_checks = place[ends[-1] :].tolist()
    total = int(ends[-1])
    count = total if per_listener is None else min(per_listener, total)
    seats = []
    for pair in range(num_seats // 2):
        window = _window(numbers, pair * count, count)
        flips = _flips(window, questions, rng)
        for mirrored in (False, True):
            asked = [
                Asked(q, flips[q] ^ (mirrored and len(questions[q].clips) > 1)) for q in window
            ]
            seats.append(_ordered(asked, own_checks, rng))
    return Plan(tuple(questions), tuple(seats))


def seat_of(listener: str, num_seats: int) -> int:
    """Returns the seat of a listener: FNV-1a of the id (ASCII), modulo the number of seats.

    The page computes the same. Its high bits are folded in, because the low ones of short ids
    that differ in one letter are not spread.
    """
    digest = 0x811C9DC5
    for byte in listener.encode("ascii"):
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return (digest ^ (digest >> 15)) % num_seats


def _check(
    clips: Mapping[str, Mapping[str, str]],
    kinds: Sequence[str],
    per_listener: int | None,
    num_seats: int,
) -> tuple[str, ...]:
    """Returns the systems."""
    if not clips:
        raise ValueError("no items, expected at least one that every system has")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"questions are {list(kinds)}, expected some of {', '.join(KINDS)}, once")
    systems = tuple(next(iter(clips.values())))
    for item, there in clips.items():
        if set(there) != set(systems):
            raise ValueError(f"{item} has {sorted(there)}, expected {sorted(systems)} as the first")
    if PREFERENCE in kinds and len(systems) < 2:
        raise ValueError(f"a preference needs two systems, there is only {', '.join(systems)}")
    if per_listener is not None and per_listener < 1:
        raise ValueError(f"{per_listener} questions per listener, expected at least 1")
    if num_seats < 2 or num_seats % 2:
        raise ValueError(f"{num_seats} seats, expected an even number, at least 2")
    return systems


def _strata(
    clips: Mapping[str, Mapping[str, str]],
    kinds: Sequence[str],
    systems: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[list[Question]]:
    """Yields the questions on one system (or pair) by one kind, items in an order of their own."""
    items = list(clips)
    # one order for all, each stratum begins elsewhere: a short seat asks about different items
    order = rng.permutation(len(items))
    groups = [
        (kind, group)
        for kind in kinds
        for group in itertools.combinations(systems, 2 if kind == PREFERENCE else 1)
    ]
    rng.shuffle(groups)
    for shift, (kind, group) in enumerate(groups):
        kind, group = str(kind), tuple(map(str, group))
        chosen = [items[k] for k in np.roll(order, -shift * max(1, len(items) // len(groups)))]
        stratum = []
        for item in chosen:
            # which system is listed first must not be the same everywhere: the page shows it
            own = group[::-1] if rng.integers(2) else group
            names = tuple(clips[item][system] for system in own)
            stratum.append(Question("", kind, item, names, own))
        yield stratum


def _window(strata: Sequence[Sequence[int]], start: int, count: int) -> list[int]:
    """Questions start, start + 1, ... of the endless list that takes from each stratum in turn."""
    total = len(strata) * len(strata[0])
    places = [(start + k) % total for k in range(count)]
    return [strata[p % len(strata)][p // len(strata)] for p in places]


def _flips(
    window: Sequence[int], questions: Sequence[Question], rng: np.random.Generator
) -> dict[int, bool]:
    """Sides in one seat: of two questions on one pair of systems, each stands first once."""
    first: dict[tuple[str, ...], bool] = {}
    flips = {}
    for q in window:
        pair = tuple(sorted(questions[q].systems))
        flips[q] = False
        if len(pair) > 1:
            leads = first[pair] = not first.get(pair, bool(rng.integers(2)))
            # whether the alphabetically first system shall stand first
            flips[q] = leads != (questions[q].systems[0] == pair[0])
    return flips


def _ordered(
    asked: Sequence[Asked], checks: Sequence[int], rng: np.random.Generator
) -> tuple[Asked, ...]:
    """A random order, with the checks spread over it: one somewhere in each of equal parts."""
    order = [asked[k] for k in rng.permutation(len(asked))]
    parts = [list(part) for part in np.array_split(np.arange(len(order)), max(1, len(checks)))]
    shuffled = [Asked(checks[k]) for k in rng.permutation(len(checks))]
    found: list[Asked] = []
    for k, part in enumerate(parts):
        own = [order[i] for i in part]
        if k < len(shuffled):
            own.insert(int(rng.integers(len(own) + 1)), shuffled[k])
        found += own
    return tuple(found)
