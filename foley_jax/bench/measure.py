"""Times a case: ours and the peers by turns, after their outputs have been compared."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import ctypes
import dataclasses
import pathlib
import statistics
import time
from typing import Any

import jax

from foley_jax.bench import case as case_lib

_CLEAR = pathlib.Path("/proc/self/clear_refs")  # "5" sets the peak of resident memory back
_STATUS = pathlib.Path("/proc/self/status")


class Different(ValueError):
    """A peer computes something else, so that its time means nothing."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one call.

    Attributes:
      median_s, low_s, high_s: median and quartiles.
      calls: how many.
      memory_bytes: at the worst moment of a call, beyond what was held before: of ours what the
        compiler set aside, of a peer on a CPU how much the process grew. None: unknown.
    """

    median_s: float
    low_s: float
    high_s: float
    calls: int
    memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Beside:
    """A peer's times.

    Attributes:
      ratio: our time over the peer's, the median over neighbouring pairs; below 1 we are faster.
      ratio_low, ratio_high: quartiles of the same.
      difference: of the outputs, see `case.worst_difference`.
    """

    times: Times
    ratio: float
    ratio_low: float
    ratio_high: float
    difference: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of one case; see `case.Case` for the first fields."""

    suite: str
    name: str
    size: str
    examples: int
    unit: str
    note: str
    flops: float
    compile_s: float
    ours: Times
    peers: Mapping[str, Beside]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of a single value three times that."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def run(case: case_lib.Case, *, repeats: int) -> Result:
    """Compiles, compares, warms up, and measures by turns.

    Args:
      case: what to measure.
      repeats: calls of ours and of every peer that count.
    Raises:
      Different: a peer's output is not ours.
      ValueError: repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    compile_s = case.ours.compile()
    memory, differences = _first_calls(case)
    seconds = _by_turns({"": case.ours, **{k: p.call for k, p in case.peers.items()}}, repeats)
    times = {name: _times(values, memory[name]) for name, values in seconds.items()}
    peers = {}
    for name in case.peers:
        ratios = [a / b for a, b in zip(seconds[""], seconds[name])]
        low, middle, high = quartiles(ratios)
        peers[name] = Beside(times[name], middle, low, high, differences[name])
    return Result(
        suite=case.suite,
        name=case.name,
        size=case.size,
        examples=case.examples,
        unit=case.unit,
        note=case.note,
        flops=case.ours.flops,
        compile_s=compile_s,
        ours=times[""],
        peers=peers,
    )


def _first_calls(case: case_lib.Case) -> tuple[dict[str, int | None], dict[str, float]]:
    """Memory of the first calls, which find nothing left by earlier ones, and what they differ."""
    memory = {"": case.ours.memory_bytes()}
    ours = jax.device_get(case.output(case.ours()))
    differences = {}
    for name, peer in case.peers.items():
        output, grown = watched(peer.call)
        memory[name] = grown if peer.peak_bytes is None else peer.peak_bytes()
        worst = case_lib.worst_difference(ours, peer.output(output))
        if worst > case.tolerance:
            raise Different(
                f"{case.suite}, {case.name}: the output of {name} differs from ours by {worst:.1e} "
                f"of a standard deviation, allowed are {case.tolerance:.1e}; not timed"
            )
        differences[name] = worst
    return memory, differences


def _by_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call; the order turns round every time, so that no one always follows."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        names = list(calls) if number % 2 else list(reversed(calls))
        for name in names:
            began = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}  # the first round warms up


def _times(seconds: Sequence[float], memory_bytes: int | None) -> Times:
    low, middle, high = quartiles(seconds)
    return Times(middle, low, high, len(seconds), memory_bytes)


def watched(call: Callable[[], Any]) -> tuple[Any, int | None]:
    """A call's output, and how much the process' memory grew at most; None off Linux."""
    try:
        with contextlib.suppress(AttributeError):  # other C libraries keep nothing back
            ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
        before = _resident("VmRSS")
    except OSError:
        return call(), None
    output = call()
    return output, max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
