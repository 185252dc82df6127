"""How costs grow: slopes of the suite `scaling` in a table."""

from collections.abc import Sequence

import numpy as np

from foley_jax.bench import measure

SUITE = "scaling"


def case_name(axis: str, value: int, unit: str) -> str:
    """The name of a case of that suite: what is doubled, and how much of it there is."""
    return f"{axis}, {value} {unit}"


def of(results: Sequence[measure.Result]) -> dict[str, dict[str, float]]:
    """Returns what is doubled -> cost -> slope of log cost over log size; 1 is linear.

    Args:
      results: of one place and size, of any suites.
    """
    own: dict[str, list[tuple[int, measure.Result]]] = {}
    for result in results:
        if result.suite == SUITE:
            axis, _, size = result.name.partition(", ")
            own.setdefault(axis, []).append((int(size.split()[0]), result))
    found = {}
    for axis, pairs in own.items():
        if len(pairs) < 2:
            continue
        sizes, measured = zip(*sorted(pairs, key=lambda pair: pair[0]))
        costs = {
            "time": [result.ours.median_s for result in measured],
            "memory": [result.ours.memory_bytes for result in measured],
            "FLOPs": [result.flops for result in measured],
        }
        found[axis] = {name: _slope(sizes, c) for name, c in costs.items() if all(c)}
    return found


def _slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def markdown(results: Sequence[measure.Result], where: str) -> list[str]:
    """Lines of a table; none where nothing was doubled. `where` is said above it."""
    found = of(results)
    if not found:
        return []
    head = "| doubled | time | memory | FLOPs |"
    lines = ["", f"Slopes of log cost over log size on {where}; 1 is linear.", "", head]
    lines.append("|---|---|---|---|")
    for axis, own in found.items():
        cells = (f"{own[name]:.2f}" if name in own else "" for name in ("time", "memory", "FLOPs"))
        lines.append(f"| {axis} | {' | '.join(cells)} |")
    return lines
