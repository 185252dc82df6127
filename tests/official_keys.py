"""Names, shapes and types of what the official containers hold."""

import json
import pathlib

_FOLDER = pathlib.Path(__file__).parent / "goldens"
# kind of the registry -> golden, of two systems; MMAudio's have one name
KINDS = {
    "diff_foley/cavp": "diff_foley/cavp",
    "diff_foley/ldm": "diff_foley/ldm",
    "diff_foley/guidance_classifier": "diff_foley/classifier",
    "diff_foley/eval_classifier": "diff_foley/eval_classifier",
    "mm_diffusion/base": "mm_diffusion/base",
    "mm_diffusion/super_resolution": "mm_diffusion/sr",
}


def of(kind):
    """Name -> (shape, type) of a kind's official container."""
    return read(KINDS.get(kind, kind))


def read(golden):
    """The same by the golden's name."""
    return json.loads((_FOLDER / f"{golden}_keys.json").read_text())
