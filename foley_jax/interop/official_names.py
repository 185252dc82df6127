"""Official names of our parameters: the renames of a kind of checkpoint, turned round."""

from collections.abc import Collection, Mapping
import functools
import itertools
import re
from typing import Any

from foley_jax.interop import fill, spec

_OURS_TO_TORCH = {ours: torch for torch, many in fill.LEAVES.items() for ours in many}
_SPECIAL = re.compile(r"[*+?{}\[\]|^$\\]")


def key_of(kind: spec.Checkpoint, path: str, targets: Mapping[str, Any] | Collection[str]) -> str:
    """Returns the official name of a parameter.

    Reading takes it to that parameter; of several such names, the one with the most renames undone.

    Args:
      kind: names and rules.
      path: ours, "a/0/kernel".
      targets: all paths of the module.
    Raises:
      ValueError: there is none, or no telling which.
    """
    counts = _candidates(kind.renames, path)
    never = () if kind.writing is None else kind.writing.never
    fitting = {
        key: count
        for key, count in counts.items()
        if not fill.matches(key, never)
        and fill.reason_of(kind, key) is None
        and fill.path_of(fill.renamed_key(kind, key), targets) == path
    }
    if not fitting:
        raise ValueError(f"{path} has no name in this kind of file")
    most = max(fitting.values())
    best = sorted(key for key, count in fitting.items() if count == most)
    if len(best) > 1:
        raise ValueError(f"{path} may be {' or '.join(best)} in this kind of file")
    return best[0]


def _candidates(renames: tuple[tuple[str, str], ...], path: str) -> dict[str, int]:
    """Names from which the renames may have made a path, with how many were undone."""
    *parents, leaf = path.split("/")
    counts = {".".join((*parents, leaf)): 0}
    if leaf in _OURS_TO_TORCH:
        counts[".".join((*parents, _OURS_TO_TORCH[leaf]))] = 1
    for pattern, replacement in reversed(renames):
        for name, count in list(counts.items()):
            for regex, template in inverse(pattern, replacement):
                for match in regex.finditer(name):
                    old = name[: match.start()] + match.expand(template) + name[match.end() :]
                    counts[old] = max(count + 1, counts.get(old, 0))
    return counts


@functools.cache
def inverse(pattern: str, replacement: str) -> tuple[tuple[re.Pattern, str], ...]:
    r"""Turns a rename round: what finds its results, and templates of what they came from.

    Args:
      pattern: literal text, groups `(a|b)` without groups in them, and `\1` for what a group found;
        `^` and `$` at its ends.
      replacement: literal text and `\1`.
    Raises:
      ValueError: the pattern holds something else.
    """
    begin, end = "^" * pattern.startswith("^"), "$" * pattern.endswith("$")
    pieces = re.split(r"(\([^()]*\)|\\\d)", pattern.removeprefix("^").removesuffix("$"))
    groups = [piece[1:-1] for piece in pieces if piece.startswith("(")]
    told = {int(number) for number in re.findall(r"\\(\d)", replacement)}
    found, seen = "", set()
    for piece in re.split(r"(\\\d)", replacement):
        if re.fullmatch(r"\\\d", piece):
            number = int(piece[1:])
            first = number not in seen
            found += f"(?P<g{number}>{groups[number - 1]})" if first else f"(?P=g{number})"
            seen.add(number)
        else:
            found += re.escape(piece)
    choices, number = [], 0
    for piece in pieces:
        if piece.startswith("("):
            number += 1
            if number in told:
                choices.append([rf"\g<g{number}>"])
            else:
                choices.append([_literal(one, pattern) for one in piece[1:-1].split("|")])
        elif re.fullmatch(r"\\\d", piece) and int(piece[1:]) in told:
            choices.append([rf"\g<g{piece[1:]}>"])
        else:
            choices.append([_literal(piece, pattern)])
    regex = re.compile(begin + found + end)
    return tuple((regex, "".join(parts)) for parts in itertools.product(*choices))


def _literal(piece: str, pattern: str) -> str:
    text = piece.replace(r"\.", ".")
    if _SPECIAL.search(text):
        raise ValueError(f"the rename of {pattern!r} cannot be turned round: {piece!r} is no text")
    return text
