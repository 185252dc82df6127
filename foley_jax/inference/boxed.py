"""Small trained models that come with the package: no download, no folder to name."""

import os
from pathlib import Path
from typing import TypeVar

import foley_jax

FOLDER = Path(foley_jax.__file__).parent / "assets"
# name -> folder; how each was trained, and what it is worth, stands in its README.md
NAMES = {
    "embedded": "embedded/ldm",
    "embedded:4_steps": "embedded/ldm_4",
    "embedded:classifier": "embedded/alignment",
    "embedded:joint": "embedded/mm_diffusion",
}
Source = TypeVar("Source", bound=object)


def found(source: Source) -> Source | Path:
    """Returns the folder of a model of the package; anything else as it is.

    A folder that is called "embedded" too is meant by "./embedded".

    Raises:
      ValueError: "embedded:" with a name that is none.
    """
    if not isinstance(source, str | os.PathLike) or str(source).partition(":")[0] not in NAMES:
        return source
    if str(source) not in NAMES:
        raise ValueError(f"no model {source} in the package; there are {', '.join(NAMES)}")
    return FOLDER / NAMES[str(source)]
