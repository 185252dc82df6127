"""The key of a listening test: which question is about which system's clip of which item."""

from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any

from foley_jax.evaluation.listening import answers, questions

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
      test: its public part.
      systems: names, in the order of the command line.
      real: the one whose clips are recordings, or None.
      questions: id -> question.
      flipped: (seat, id of a question) -> whether its second clip stood first.
      settings: the test was made with.
    """

    test: answers.Test
    systems: tuple[str, ...]
    real: str | None
    questions: Mapping[str, questions.Question]
    flipped: Mapping[tuple[int, str], bool]
    settings: Mapping[str, Any]


def load(path: Path) -> Key:
    """Reads a key that `make` wrote.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is something else, or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, expected the key that `make` wrote")
    try:
        found = json.loads(path.read_text())
        version = found["version"]
        if version != VERSION:
            raise ValueError(f"{path} is a key of version {version}, expected {VERSION}")
        return _parsed(found)
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no key ({error!r}), expected one that `make` wrote") from error


def _parsed(found: Mapping[str, Any]) -> Key:
    listed = [
        questions.Question(**{**q, "clips": tuple(q["clips"]), "systems": tuple(q["systems"])})
        for q in found["questions"]
    ]
    flipped = {
        (number, listed[q].id): bool(flip)
        for number, seat in enumerate(found["seats"])
        for q, flip in seat
    }
    return Key(
        test=answers.Test.of(found),
        systems=tuple(found["systems"]),
        real=found["real"],
        questions={question.id: question for question in listed},
        flipped=flipped,
        settings=found["settings"],
    )
