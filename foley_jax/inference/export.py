"""A run as a folder that travels: weights, config, hashes, a card, and the CAVP that it needs."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foley_jax.inference import load_foley, model_card, networks
from foley_jax.training.checkpointing import checkpoint, exported, hashes, run_directory


class Exported(NamedTuple):
    """What was written.

    Attributes:
      size: bytes of all weights.
      parts: folders of other networks inside.
      remark: what is missing; "" if nothing is.
    """

    size: int
    parts: tuple[str, ...]
    remark: str


def write(
    run: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    dtype: str | None = None,
    share: str | os.PathLike | None = None,
    figures: str | os.PathLike | None = None,
    licence: str | None = None,
) -> Exported:
    """Writes the model of a run, EMA parameters if there are any, with all that loading it needs.

    Args:
      run: workdir of a run, or a folder that was converted or exported.
      folder: new; `sample.load` reads it.
      dtype: as `exported.write`.
      share: an exported model that keeps what this one, or the CAVP inside it, has in common with
        it.
      figures: file for the card, see `model_card.read_figures`; by default those of the run's own
        newest evaluation.
      licence: for the card.
    Raises:
      OSError, ValueError: as `run_directory.export_model` and `model_card.read_figures`.
    """
    shown = model_card.read_figures(figures) if figures else None  # before anything is written
    step = None if exported.is_one(run) else checkpoint.latest_step(run)
    size = run_directory.export_model(run, folder, dtype=dtype, share=share)
    config = run_directory.load_config(folder)
    parts, remark = [], ""
    if config.get("cavp"):
        try:
            named = run_directory.load_config(run).cavp
            cavp = load_foley.resolve_beside(Path(run), named)
            size += run_directory.export_model(
                cavp, Path(folder) / networks.CAVP, dtype=dtype, share=_inside(share)
            )
            parts = [networks.CAVP]
        except (OSError, ValueError) as error:
            remark = f"without its CAVP, which has to be given with --cavp or beside it: {error}"
    shapes = exported.shapes(folder)
    card = model_card.text(
        config,
        step=None if config.get("kind") else step,
        parameters=sum(int(np.prod(shape)) for shape in shapes.values()),
        figures=shown or model_card.own_figures(run, config),
        licence=licence,
        parts=parts,
        name=Path(folder).name,
    )
    (Path(folder) / model_card.FILE).write_text(card)
    return Exported(size, tuple(parts), remark)


def _inside(share: str | os.PathLike | None) -> Path | None:
    inside = Path(share) / networks.CAVP if share else None
    return inside if inside and exported.is_one(inside) else None


def files(folder: str | os.PathLike) -> dict[str, int]:
    """Returns the files of an exported folder, path below it -> bytes; no others lie in there.

    Raises:
      ValueError: the folder holds something else.
    """
    names = (run_directory.CONFIG, exported.WEIGHTS, hashes.FILE, model_card.FILE)
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            if path.name not in names:
                raise ValueError(f"{path} is no file of an exported model; it is not uploaded")
            found[name] = path.stat().st_size
    return found
