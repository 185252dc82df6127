"""Costs of a program: memory, arithmetic, traffic, and which of them bounds its speed."""

from collections.abc import Mapping, Sequence
import dataclasses
import re
import time
from typing import Any

import jax

from foley_jax.aot import gpu, gpu_program, hlo, programs
from foley_jax.runtime import chips, flops

HEADROOM = 0.08  # of the memory; below it a program does not count as fitting


@dataclasses.dataclass(frozen=True)
class Cost:
    """Costs of one call of a program, for one chip unless said otherwise.

    Attributes:
      name: of the program.
      chip: its kind.
      num_chips: that the program runs on together.
      examples: of one call, on all chips.
      parts: bytes of every part of the arguments.
      peak_bytes: arguments, results, temporaries and code; of a program that the compiler refused
        for want of memory, what it says it would take.
      hbm_bytes: memory of the chip that programs may use.
      flops: as compiled.
      memory_bytes: read from and written to memory.
      collectives: kind -> (number of operations, bytes that the chip sends).
      compute_s, memory_s, links_s: at the peak rates of the chip.
      compile_s: what the compiler took.
      memory: part -> bytes, as the compiler divides them; of GPUs alone, as all that follow.
      kinds: kernel -> (how many run, bytes they move), the largest traffic first.
      heaviest: (kernel, scope in the traced program, bytes) of those that move the most.
      loops: (scope, how often it is entered, rounds).
      without_library: products that neither a library nor Triton computes -> how many run.
    """

    name: str
    chip: str
    num_chips: int
    examples: int
    parts: Mapping[str, int]
    peak_bytes: float
    hbm_bytes: float
    flops: float = 0.0
    memory_bytes: float = 0.0
    collectives: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    compute_s: float = 0.0
    memory_s: float = 0.0
    links_s: float = 0.0
    compile_s: float = 0.0
    memory: Mapping[str, int] = dataclasses.field(default_factory=dict)
    kinds: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    heaviest: Sequence[tuple[str, str, float]] = ()
    loops: Sequence[tuple[str, int, int]] = ()
    without_library: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def headroom(self) -> float:
        """Share of the memory that stays free; negative if it does not fit."""
        return 1.0 - self.peak_bytes / self.hbm_bytes if self.hbm_bytes else 1.0

    @property
    def fits(self) -> bool:
        return self.headroom >= HEADROOM

    @property
    def roofline_s(self) -> float:
        """The least that a call can take, if everything else hides behind the slowest."""
        return max(self.compute_s, self.memory_s, self.links_s)

    @property
    def bound(self) -> str:
        """Returns what takes the longest."""
        times = {"compute": self.compute_s, "memory": self.memory_s, "links": self.links_s}
        return max(times, key=times.get) if any(times.values()) else "?"


def of(program: programs.Program, *, dtype: str, options: Mapping[str, Any] | None = None) -> Cost:
    """Compiles a program and reads what it costs.

    Args:
      program: of `programs` or `samplers`.
      dtype: the compute type, which decides on the peak rate.
      options: of the compiler.
    """
    device = program.mesh.devices.flat[0]
    chip = chips.find(device.device_kind)
    on_gpu = device.platform in ("gpu", "cuda")
    # what the maker calls 80 GB, CUDA counts otherwise
    hbm_bytes = gpu.memory_bytes(device.device_kind) if on_gpu else 0.0
    about = {
        "name": program.name,
        "chip": chip.name if chip else device.device_kind,
        "num_chips": program.mesh.size,
        "examples": program.examples,
        "parts": program.part_bytes(),
        "hbm_bytes": hbm_bytes or (chip.hbm_bytes if chip else 0.0),
    }
    start = time.monotonic()
    with program.running():
        traced = program.jitted.trace(*program.args)
        try:
            options = {**(gpu.OPTIONS if on_gpu else {}), **(options or {})}
            compiled = traced.lower().compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            peak_bytes = _wanted(error) + sum(about["parts"].values())
            return Cost(**about, peak_bytes=peak_bytes, compile_s=time.monotonic() - start)
    about["compile_s"] = time.monotonic() - start
    read = _of_gpu if on_gpu else _rates
    figures = read(compiled, traced.jaxpr.jaxpr, program.mesh.size)
    return Cost(
        **about,
        peak_bytes=compiled_bytes(compiled),
        **figures,
        **(_times(figures, chip, dtype) if chip else {}),
    )


def _of_gpu(compiled: Any, jaxpr: Any, num_chips: int) -> dict[str, Any]:
    """Figures of a program of which XLA itself says nothing but its memory."""
    program = gpu_program.Program(compiled.as_text())
    told = compiled.memory_analysis()
    memory = {
        "arguments": told.argument_size_in_bytes,
        "outputs": told.output_size_in_bytes,
        "aliased": told.alias_size_in_bytes,
        "temporary": told.temp_size_in_bytes,
        "code": told.generated_code_size_in_bytes,
    }
    return {
        "flops": flops.of_jaxpr(jaxpr) / num_chips,
        "memory_bytes": sum(moved for _, _, moved in program.traffic()),
        "collectives": _collectives(program.module),
        "memory": memory,
        "kinds": program.kinds(),
        "heaviest": program.heaviest(40),
        "loops": program.loops(),
        "without_library": program.without_library(),
    }


def _rates(compiled: Any, jaxpr: Any, num_chips: int) -> dict[str, Any]:
    """Figures of a program that XLA has analysed."""
    module = hlo.Module(compiled.as_text())
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    once, all_ = flops.of_jaxpr(jaxpr, loops=False), flops.of_jaxpr(jaxpr)
    # The compiler counts loops once, and Pallas kernels not at all; the trace does not know of
    # work that chips do twice.
    arithmetic = max(all_ / num_chips, analysis["flops"] * (all_ / once if once else 1.0))
    # XLA looks into fused instructions, we count loops as they run
    unrolled = module.traffic() / max(1.0, module.traffic(loops=False))
    memory = analysis["bytes accessed"] * unrolled
    return {"flops": arithmetic, "memory_bytes": memory, "collectives": _collectives(module)}


def _collectives(module: hlo.Module) -> dict[str, tuple[int, float]]:
    """Kind -> (number of operations, bytes that a chip sends)."""
    sent: dict[str, tuple[int, float]] = {}
    for one in module.collectives():
        number, total = sent.get(one.kind, (0, 0.0))
        sent[one.kind] = (number + one.count, total + one.sent)
    return sent


def _times(figures: Mapping[str, Any], chip: chips.Chip, dtype: str) -> dict[str, float]:
    """Seconds at the peak rates of the chip."""
    links = sum(total for _, total in figures["collectives"].values())
    return {
        "compute_s": figures["flops"] / chip.peak_flops[dtype],
        "memory_s": figures["memory_bytes"] / chip.hbm_bandwidth,
        "links_s": links / chip.link_bandwidth,
    }


def compiled_bytes(compiled: Any) -> float:
    """Returns the memory that a compiled program takes on a device, its code included."""
    told = compiled.memory_analysis()
    return float(
        told.argument_size_in_bytes
        + told.output_size_in_bytes
        - told.alias_size_in_bytes
        + told.temp_size_in_bytes
        + told.generated_code_size_in_bytes
    )


def _wanted(error: Exception) -> float:
    """Bytes of temporaries, from the compiler's refusal of a program; raises any other error."""
    found = re.search(r"required[^()]*\(([\d.]+)([KMGT])\) exceeds available HBM", str(error))
    if found is None:
        raise error
    return float(found[1]) * 1024.0 ** ("KMGT".index(found[2]) + 1)
