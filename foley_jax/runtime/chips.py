"""Peak rates and memory of the accelerators we know; nobody else writes such a number down.

Rates are what the maker states for one chip, without sparsity. Sources: the pages on system
architecture in Cloud TPU's documentation, NVIDIA's data sheets.
"""

from collections.abc import Mapping
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
      name: as people call it.
      peak_flops: dtype -> FLOP/s of matrix units. "float32" is what JAX's default precision runs
        for float32 arguments: one bfloat16 pass on TPUs, TF32 on GPUs.
      hbm_bytes: memory, as the maker states it; of TPUs what the compiler lets programs use.
      hbm_bandwidth: bytes/s.
      link_bandwidth: bytes/s that a chip can send to its neighbours in one ring: by two links of
        a TPU's torus, by all NVLinks of a GPU.
      rings: axes of the torus; 1 for a GPU.
    """

    name: str
    peak_flops: Mapping[str, float]
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    rings: int = 1


def _tpu(name: str, tflops: float, gibibytes: float, gbps: float, ring_gbps: float, rings: int):
    peak = {"bfloat16": tflops * 1e12, "float32": tflops * 1e12}
    return Chip(name, peak, gibibytes * 2**30, gbps * 1e9, ring_gbps * 1e9, rings)


def _gpu(name: str, tflops: float, gigabytes: float, gbps: float, nvlink_gbps: float):
    peak = {"bfloat16": tflops * 1e12, "float16": tflops * 1e12, "float32": tflops * 1e12 / 2}
    return Chip(name, peak, gigabytes * 1e9, gbps * 1e9, nvlink_gbps * 1e9)


# part of jax's `device_kind`, in lower case -> chip; the first that fits
CHIPS = {
    "tpu v5 lite": _tpu("TPU v5e", 197, 15.75, 819, 100, 2),
    "tpu v5e": _tpu("TPU v5e", 197, 15.75, 819, 100, 2),
    "tpu v5": _tpu("TPU v5p", 459, 95.74, 2765, 200, 3),
    "tpu v6 lite": _tpu("TPU v6e", 918, 31.25, 1638, 200, 2),
    "tpu v6e": _tpu("TPU v6e", 918, 31.25, 1638, 200, 2),
    "h200": _gpu("H200", 989.4, 141, 4800, 450),
    "h100 pcie": _gpu("H100 PCIe", 756, 80, 2000, 300),
    "h100": _gpu("H100", 989.4, 80, 3350, 450),
    "a100-sxm4-80gb": _gpu("A100 80 GB", 312, 80, 2039, 300),
    "a100": _gpu("A100 40 GB", 312, 40, 1555, 300),
    # by PCIe 4.0 x16: they have no NVLink
    "nvidia l4": _gpu("L4", 121, 24, 300, 32),
    "rtx 4090": _gpu("RTX 4090", 165.2, 24, 1008, 32),
}


def find(device_kind: str) -> Chip | None:
    """The chip that jax calls `device_kind` ("TPU v5 lite", "NVIDIA H200"); None if unknown."""
    kind = device_kind.lower()
    # "NVIDIA L40" is no L4
    fits = (chip for part, chip in CHIPS.items() if re.search(rf"{re.escape(part)}(?!\d)", kind))
    return next(fits, None)
