"""Suites of measurements, by name; a suite's file is imported when it is asked for."""

from collections.abc import Iterator
import importlib

from foley_jax.bench import case

# suite -> module with `cases(ask) -> Iterator[case.Case]`
MODULES = {
    "unet_forward": "latent_diffusion",
    "vae_decode": "latent_diffusion",
    "griffin_lim": "griffin_lim",
    "ldm_sample": "windows",
    "ldm_cached": "windows",
    "ldm_train": "windows",
    "cavp_encode": "cavp",
    "cavp_train": "cavp",
    "mm_forward": "mm_diffusion",
    "mm_sample": "mm_diffusion",
    "mm_train": "mm_diffusion",
    "sr_sample": "super_resolution",
    "mmaudio_forward": "mmaudio",
    "loader": "loader",
    "first_sample": "first_sample",
    "scaling": "scaling",
    "long_inputs": "long_inputs",
}
SUITES = tuple(MODULES)


def cases(suite: str, ask: case.Ask) -> Iterator[case.Case]:
    """The cases of a suite, each built when the one before it has been measured.

    Raises:
      ValueError: no such suite.
    """
    if suite not in MODULES:
        raise ValueError(f"no suite {suite!r}; there are {', '.join(SUITES)}")
    module = importlib.import_module(f"{__name__}.{MODULES[suite]}")
    yield from getattr(module, suite)(ask)
