"""The models that the package holds: trained on the embedded set, loaded by name.

`sample.load("embedded")` needs no download. How they were trained, what they reach and what they
cannot do says `foley_jax/assets/embedded/README.md`.
"""

import os
from pathlib import Path

import foley_jax

# name -> folder; each is a model that `python -m foley_jax.convert export` wrote
MODELS = {
    "embedded": "ldm",
    "embedded:4_steps": "ldm_4",
    "embedded:cavp": "ldm/cavp",
    "embedded:classifier": "alignment",
    "embedded:joint": "joint",
}
FOLDER = Path(foley_jax.__file__).parent / "assets" / "embedded"


def is_boxed(source: str | os.PathLike) -> bool:
    """Returns whether a source names a model of the package; a folder of that name is preferred."""
    return str(source).partition(":")[0] == "embedded" and not Path(source).exists()


def found(source: str | os.PathLike) -> str | os.PathLike:
    """Returns the folder of a model in the package; any other source as it is.

    Raises:
      ValueError: "embedded:" with a name that none has.
    """
    if not is_boxed(source):
        return source
    if str(source) not in MODELS:
        raise ValueError(f"{source} is none of the package's models: {', '.join(MODELS)}")
    return FOLDER / MODELS[str(source)]
