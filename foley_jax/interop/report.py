"""Report of what a conversion did with every key, for people and for programs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
from typing import Any

from foley_jax.interop import fill

FILE = "conversion.json"  # beside the converted weights, which hold a copy of its facts
_SHOWN = 8  # names per line on the screen; the file has them all


def lines(filled: fill.Filled) -> list[str]:
    """Notes, then counts and names: loaded, ignored and why, left as initialised."""
    by_reason = defaultdict(list)
    for key, reason in filled.ignored.items():
        by_reason[reason].append(key)
    found = list(filled.notes)
    found += [f"{len(filled.loaded)} keys loaded: {_names(list(filled.loaded))}"]
    found += [
        f"{len(keys)} keys ignored ({reason}): {_names(keys)}" for reason, keys in by_reason.items()
    ]
    if filled.initialised:
        count = len(filled.initialised)
        found.append(f"{count} parameters left as initialised: {_names(filled.initialised)}")
    return found


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def facts(filled: fill.Filled, **about: Any) -> Mapping[str, Any]:
    """Everything as JSON-ready data; `about` says what was converted."""
    return {
        **about,
        "counts": {
            "loaded": len(filled.loaded),
            "ignored": len(filled.ignored),
            "initialised": len(filled.initialised),
        },
        "loaded": dict(filled.loaded),  # checkpoint key -> our path
        "ignored": dict(filled.ignored),  # checkpoint key -> why
        "initialised": list(filled.initialised),  # our paths
        "notes": list(filled.notes),
    }


def write(folder: str | os.PathLike, filled: fill.Filled, **about: Any) -> Path:
    """Writes `facts` as conversion.json into a folder; returns the file."""
    path = Path(folder) / FILE
    path.write_text(json.dumps(facts(filled, **about), indent=1) + "\n")
    return path
