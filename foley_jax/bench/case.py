"""One thing to measure: our program, what others would run instead, and when the two are equal."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from foley_jax.runtime import flops

SIZES = ("tiny", "small", "paper")


@dataclasses.dataclass(frozen=True)
class Ask:
    """Requests of the command line.

    Attributes:
      size: "tiny" (seconds, for tests), "small" (a minute or two on a CPU) or "paper".
      dtype: of our computation, "float32" or "bfloat16"; peers take theirs from it.
      peers: make peers, too.
    """

    size: str = "small"
    dtype: str = "float32"
    peers: bool = True

    def of(self, **by_size: Any) -> Any:
        """The value for this size: `ask.of(tiny=1, small=2, paper=4)`."""
        return by_size[self.size]

    def tolerance(self, exact: float, half: float) -> float:
        """How far outputs may lie apart: `exact` in full float32, `half` with fewer digits.

        GPUs multiply float32 by TF32, which has the digits of float16, in JAX and in our peers.
        """
        full = self.dtype == "float32" and jax.default_backend() == "cpu"
        return exact if full else half


class Program:
    """A jitted function with its arguments, compiled once and called again and again.

    Attributes:
      flops: of one call, see `foley_jax.runtime.flops`; known once it is compiled.
    """

    def __init__(
        self,
        jitted: Callable,
        args: tuple[Any, ...],
        *,
        mesh: jax.sharding.Mesh | None = None,
        next_args: Callable[[tuple[Any, ...], Any], tuple[Any, ...]] | None = None,
    ):
        """Args:
        jitted: what `jax.jit` gave.
        args: its arguments, pytrees of arrays.
        mesh: devices, for programs that are divided over them.
        next_args: (arguments, output) -> arguments of the next call: a training step's state. By
          default the same again.
        """
        self._jitted, self._args, self._next = jitted, args, next_args
        self._mesh = mesh
        self._compiled = None
        self.flops = 0.0

    def _running(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh)

    def compile(self) -> float:
        """Traces, counts and compiles; returns the seconds of tracing and compiling."""
        with self._running():
            began = time.perf_counter()
            traced = self._jitted.trace(*self._args)
            self._compiled = traced.lower().compile()
            seconds = time.perf_counter() - began
            self.flops = flops.of_jaxpr(traced.jaxpr.jaxpr)
        return seconds

    def memory_bytes(self) -> int | None:
        """Returns what the compiler sets aside besides the arguments.

        None where it does not say.
        """
        analysis = self._compiled.memory_analysis()
        if analysis is None:
            return None
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    def __call__(self) -> Any:
        """One call, to its end."""
        with self._running():
            output = jax.block_until_ready(self._compiled(*self._args))
        if self._next is not None:
            self._args = self._next(self._args, output)
        return output


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer: the program that others would run.

    Attributes:
      call: one call, to its end; returns its output.
      output: that output as NumPy arrays in the structure and layout of ours; not timed.
      peak_bytes: call -> its peak memory beyond what was held before; None: as the CPU's.
    """

    call: Callable[[], Any]
    output: Callable[[Any], Any]
    peak_bytes: Callable[[], int] | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
      suite, name, size: `unet_forward`, "batch 4", "paper".
      ours: our program, or for suites without a device program any callable with `compile`.
      peers: name -> what is timed beside it.
      tolerance: most that an output may differ from ours, in standard deviations of ours.
      examples: made in one call.
      unit: what an example is.
      output: of our output the part that peers have, too.
      note: what the table should say besides.
    """

    suite: str
    name: str
    size: str
    ours: Program
    examples: int
    unit: str
    peers: Mapping[str, Peer] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-3
    output: Callable[[Any], Any] = lambda output: output
    note: str = ""


def worst_difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two outputs, in standard deviations of ours (never less than 1e-6).

    A number alone is compared in shares of itself.

    Raises:
      ValueError: other structure or shapes, or a value that is no number.
    """
    left, right = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        raise ValueError(
            f"outputs have structures {jax.tree.structure(ours)} and "
            f"{jax.tree.structure(theirs)}; Peer.output must give ours"
        )
    worst = 0.0
    for a, b in zip(left, right):
        a, b = (np.asarray(x).astype(np.float64) for x in (a, b))
        if a.shape != b.shape:
            raise ValueError(f"outputs have shapes {a.shape} and {b.shape}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("an output holds infinite values, or none at all: NaN")
        scale = float(a.std()) if a.size > 1 else float(np.abs(a).max())
        worst = max(worst, float(np.abs(a - b).max()) / max(scale, 1e-6))
    return worst
