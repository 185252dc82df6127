"""NVIDIA GPUs that are not there: what the compiler is told of each card, and how to ask it."""

import functools
import importlib.util
import os
import pathlib
import re

import jax
from jax.experimental import topologies

FOLDER = pathlib.Path(__file__).parent / "gpus"
INSTALL = (
    "pip install --no-deps jax-cuda12-pjrt=={0} jax-cuda12-plugin=={0} nvidia-cuda-nvcc-cu12 "
    "'nvidia-cudnn-cu12<10'"
)
# Nothing can be tried out without a card. Triton's matrix products need that: left alone they fail
# on large shapes ("Couldn't find output tile sizes"); cuBLAS takes them as they are.
OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}
NOT_TUNED = (
    "nothing was autotuned: libraries choose their algorithms, and how much scratch memory these "
    "take, on the card itself"
)


def cards() -> list[str]:
    """Returns the names of the cards that we know."""
    return sorted(file.stem for file in FOLDER.glob("*.txtpb"))


def is_gpu(topology: str) -> bool:
    """Whether a `--topology` means GPUs: "h100:8", and "h1000:8", which does not exist, too."""
    card = topology.split(":")[0]
    return card in cards() or re.match(r"(rtx|gtx|gpu|gb?|[abhlt])\d{1,4}(-|:|$)", card) is not None


def target(card: str) -> str:
    """Returns the compiler's text about one card.

    Raises:
      ValueError: we do not know it.
    """
    if card not in cards():
        raise ValueError(f"no card {card!r} among {', '.join(cards())}, each as CARD:GPUS")
    return (FOLDER / f"{card}.txtpb").read_text()


def device_kind(card: str) -> str:
    """Returns how JAX names such a device."""
    return re.search(r'device_description_str: "(.*)"', target(card))[1]


@functools.cache
def memory_bytes(kind: str) -> float:
    """Returns the memory that CUDA offers on a card; 0 if we do not know it.

    Args:
      kind: as JAX names the device.
    """
    for card in cards():
        if device_kind(card) == kind:
            return float(re.search(r"device_memory_size: (\d+)", target(card))[1])
    return 0.0


def size(name: str) -> tuple[str, int, int]:
    """Returns the card, hosts and GPUs of a host that a name asks for.

    Args:
      name: "h100:8", "h100:2x8" (two hosts of eight).
    Raises:
      ValueError: no such card, or no such number.
    """
    card, _, shape = name.partition(":")
    target(card)
    found = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", shape)
    if found is None:
        raise ValueError(
            f"--topology={name}: expected {card}:GPUS or {card}:HOSTSxGPUS, as {card}:8, {card}:2x8"
        )
    return card, int(found[1] or 1), int(found[2])


def installed() -> bool:
    """Whether XLA's compiler for GPUs is."""
    packages = ("jax_plugins", "jax_plugins.xla_cuda12", "jax_cuda12_plugin")
    return all(importlib.util.find_spec(package) is not None for package in packages)


def devices(name: str) -> list[jax.Device]:
    """The GPUs of one host or several, NVLink between those of a host.

    Args:
      name: see `size`.
    Raises:
      ValueError: see `size`; or XLA's plugin for GPUs is not installed.
    """
    card, hosts, count = size(name)
    install = INSTALL.format(jax.__version__)
    if not installed():
        raise ValueError(f"compiling for {card} takes XLA's plugin for GPUs, no driver: {install}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        found = topologies.get_topology_desc(
            card, platform="cuda", target_config=target(card), topology=f"1x{hosts}x{count}"
        )
    except (ImportError, RuntimeError) as error:  # jax's own errors are RuntimeErrors
        text = str(error).splitlines()[0]
        raise ValueError(
            f"--topology={name}: {text}; the plugin has to be of jax's version: {install}"
        ) from error
    return list(found.devices)
