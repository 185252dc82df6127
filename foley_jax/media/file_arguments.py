"""Command lines whose words may be any names of files.

VGGSound alone has many that begin with a dash (--0PQM4-hqg_000030.mp4), which argparse takes for
options; and a name may hold bytes that no strict output can print.
"""

import argparse
from collections.abc import Sequence
import os
import sys


class Parser(argparse.ArgumentParser):
    """A parser that takes an existing file or folder for one, and whose command prints any name.

    A word that is an option stays one, whatever files there are. Descriptions keep their lines.
    """

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._strange: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        print_any_name()
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        dashed = [word for word in words[:end] if word.startswith("-") and not _is_number(word)]
        there = {word for word in dashed if os.path.lexists(word) and not self._is_option(word)}
        # the dot changes nothing about the path, and pathlib drops it
        words[:end] = [os.path.join(".", word) if word in there else word for word in words[:end]]
        self._strange = [
            word for word in dashed if "=" not in word and "." in word and word not in there
        ]
        return super().parse_known_args(words, namespace)

    def error(self, message: str):
        """Ends the command; says how to write a name that was taken for an option."""
        if self._strange:
            name = self._strange[0]
            message += f"; a name that begins with a dash is written ./{name}, or OPTION={name}"
        super().error(message)

    def _is_option(self, word: str) -> bool:
        """Whether a word is an option, or short for one."""
        name, equals, _ = word.partition("=")
        known = [option for action in self._actions for option in action.option_strings]
        is_short = name.startswith("--") and any(option.startswith(name) for option in known)
        return name in known or (is_short and not equals)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def print_any_name() -> None:
    """From now on nothing that is printed raises: what cannot be encoded is written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
