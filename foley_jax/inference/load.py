"""A trained, converted or official model of any system, ready to be called.

What a system needs is imported when one is loaded.
"""

from collections.abc import Sequence
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foley_jax.inference import foley, sounding_video, text_foley

# networks beside the model itself, and their compute type
NETWORKS = ("cavp", "classifier", "vocoder", "super_resolution", "dtype")


def any_system(
    model: str | os.PathLike,
    *,
    cavp: str | os.PathLike | None = None,
    classifier: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    vocoder: str | os.PathLike | None = None,
    super_resolution: str | os.PathLike | None = None,
    dtype: str | None = None,
    devices: int | None = None,
) -> "foley.Foley | sounding_video.SoundingVideo | text_foley.TextFoley":
    """Loads a trained, converted or official model of any system, or one of the package's own.

    "embedded" and the other names of `boxed.MODELS` need no file. A model of Diff-Foley (see
    `load_foley.load`) gives a `Foley`; one of MM-Diffusion, for which `super_resolution` may be
    given (see `load_sounding.load`), a `SoundingVideo`; a folder of MMAudio's released files or a
    run of it (see `load_mmaudio.load`) a `TextFoley`.

    Raises:
      ValueError: a network is given that the model's system does not know.
    """
    from foley_jax.inference import networks

    others = {"cavp": cavp, "classifier": classifier, "vocoder": vocoder}
    name, model = str(model), networks.on_disk(model)
    system = system_of(model)
    if system == "mmaudio":
        from foley_jax.inference import load_mmaudio, text_foley

        _refuse({**others, "super_resolution": super_resolution}, f"{model} is MMAudio's")
        loaded = load_mmaudio.load(model, dtype=dtype, devices=devices)
        return text_foley.TextFoley(loaded, name)
    if system == "mm_diffusion":
        from foley_jax.inference import load_sounding, sounding_video

        _refuse(others, f"{model} is MM-Diffusion's")
        loaded = load_sounding.load(
            model, super_resolution=super_resolution, dtype=dtype, devices=devices
        )
        return sounding_video.SoundingVideo(loaded, name)
    from foley_jax.inference import foley, load_foley

    _refuse({"super_resolution": super_resolution}, f"{model} is Diff-Foley's")
    loaded = load_foley.load(
        model, cavp=cavp, classifier=classifier, vocoder=vocoder, dtype=dtype, devices=devices
    )
    return foley.Foley(loaded, name)


def check_steps(model: str | os.PathLike, steps: int) -> None:
    """Refuses a single step of Diff-Foley's models that are not distilled, before they are loaded.

    Raises:
      ValueError: fewer than two steps, and `model` is not a run of a few-step student.
    """
    from foley_jax.inference import load_foley, networks
    from foley_jax.interop import hub
    from foley_jax.training.checkpointing import run_directory

    if steps >= 2:
        return
    model = networks.on_disk(model)
    official = networks.is_file(model) or hub.is_hub(model)
    official = official or load_foley.official_file(model, load_foley.LDM)
    if official or run_directory.load_config(model).get("task") not in networks.STUDENTS:
        raise ValueError(
            f"steps is {steps}, expected a whole number of at least 2: fewer are for models "
            f"distilled to them (configs/ldm_distilled.py), and {model} is not"
        )


def _refuse(networks: dict[str, object], why: str) -> None:
    given = [name for name, network in networks.items() if network]
    if given:
        raise ValueError(f"{why}, which has no {' and no '.join(given)}; leave it out")


def system_of(model: str | os.PathLike) -> str:
    """Returns whose model a run folder, file or hub source is.

    "diff_foley" (which is also taken for what none knows), "mm_diffusion" or "mmaudio".
    """
    from foley_jax.inference import load_foley, load_mmaudio, load_sounding, networks
    from foley_jax.interop import hub, registry
    from foley_jax.training.checkpointing import run_directory

    model = networks.on_disk(model)
    if networks.is_file(model):
        kind = registry.recognise(model)  # reads the file
        if kind in load_mmaudio.FLOWS:
            return "mmaudio"
        return "mm_diffusion" if kind.startswith("mm_diffusion/") else "diff_foley"
    if load_mmaudio.is_mmaudio(model):
        return "mmaudio"
    if hub.is_hub(model) or load_foley.official_file(model, load_foley.LDM):
        return "diff_foley"
    is_sounding = run_directory.load_config(model).get("task") == load_sounding.STAGE
    return "mm_diffusion" if is_sounding else "diff_foley"
