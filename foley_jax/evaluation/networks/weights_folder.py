"""The folder of weights that all protocols search, behind the one that a command names."""

import os
from pathlib import Path

VARIABLE = "FOLEY_JAX_WEIGHTS"


def usual() -> Path:
    """$FOLEY_JAX_WEIGHTS, else foley_jax/weights in the user's cache folder."""
    told = os.environ.get(VARIABLE)
    if told:
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "foley_jax" / "weights"


def place_of(file: str, folder: Path) -> Path | None:
    """Where a file lies: in `folder`, or in the usual one; None in neither."""
    return next((p / file for p in (folder, usual()) if (p / file).is_file()), None)
