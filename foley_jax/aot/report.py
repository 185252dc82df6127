"""Costs as files, as text for a person, and as a table."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from foley_jax.aot import cost as cost_lib
from foley_jax.aot import gpu

GIB = 2**30


def save(file: pathlib.Path, request: Mapping[str, Any], costs: Sequence[cost_lib.Cost]) -> None:
    """Writes costs beside what they are of."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = {"request": request, "costs": [dataclasses.asdict(cost) for cost in costs]}
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(text, indent=1, default=str) + "\n")
    temporary.replace(file)


def load(file: pathlib.Path) -> list[cost_lib.Cost]:
    """Reads what `save` wrote."""
    return [cost_lib.Cost(**fields) for fields in json.loads(file.read_text())["costs"]]


def read(folder: pathlib.Path) -> list[tuple[dict[str, Any], cost_lib.Cost]]:
    """(request, cost) of every program in a folder of results.

    Raises:
      ValueError: there are none.
    """
    rows = []
    for file in sorted(folder.glob("*.json")):
        request = json.loads(file.read_text())["request"]
        rows += [(request, cost) for cost in load(file)]
    if not rows:
        raise ValueError(f"{folder} holds no results; make one with --config and --topology")
    return rows


def describe(cost: cost_lib.Cost, *, heaviest: int = 0) -> str:
    """Some lines about one program.

    Args:
      heaviest: so many kernels of a GPU, with their place in the traced program.
    """
    lines = [f"{cost.name} on {cost.num_chips} x {cost.chip}, {cost.examples} examples a call:"]
    lines += [f"  {name:<26}{size / GIB:8.2f} GiB a chip" for name, size in _parts(cost) if size]
    memory = f" of {cost.hbm_bytes / GIB:.2f}" if cost.hbm_bytes else ""
    verdict = "fits" if cost.fits else "does NOT fit"
    lines.append(
        f"  {'in all':<26}{cost.peak_bytes / GIB:8.2f} GiB{memory}: {verdict}, "
        f"{100 * cost.headroom:.0f} % free (wanted {100 * cost_lib.HEADROOM:.0f} %)"
    )
    if not cost.flops:
        return "\n".join([*lines, "  the compiler refused it, so that nothing else is known"])
    lines.append(
        f"  {cost.flops / 1e12:.2f} TFLOP, {cost.memory_bytes / 1e9:.1f} GB of memory moved"
    )
    for kind, (number, sent) in sorted(cost.collectives.items()):
        lines.append(f"  {number} x {kind}: {sent / 1e9:.3f} GB sent by a chip")
    if cost.roofline_s:
        lines.append(
            f"  roofline: compute {1e3 * cost.compute_s:.1f} ms, memory {1e3 * cost.memory_s:.1f} "
            f"ms, links {1e3 * cost.links_s:.1f} ms: {cost.bound}-bound, at most "
            f"{cost.examples / cost.roofline_s:.1f} examples/s"
        )
    return "\n".join(lines + (_kernels(cost, heaviest) if cost.kinds else []))


def _parts(cost: cost_lib.Cost) -> list[tuple[str, float]]:
    """(name, bytes) of a chip's memory: our arguments by name, then the compiler's parts."""
    parts = list(cost.parts.items())
    if not cost.memory:
        rest = cost.peak_bytes - sum(cost.parts.values())
        return [*parts, ("temporary, results, code", max(0.0, rest))]
    told = cost.memory
    return [
        *parts,
        ("= arguments", told["arguments"]),
        ("+ outputs", told["outputs"]),
        ("- of these in arguments", told["aliased"]),
        ("+ temporary", told["temporary"]),
        ("+ code", told["code"]),
    ]


def _kernels(cost: cost_lib.Cost, heaviest: int) -> list[str]:
    """Lines about a GPU's kernels: of libraries all, of others those that move the most."""
    libraries = [name for name in cost.kinds if not _is_ours(name)]
    others = [name for name in cost.kinds if _is_ours(name)][:8]
    lines = ["  kernels of libraries:"] + [_kernel(cost, name) for name in libraries]
    lines += ["  kernels that XLA wrote, the largest traffic first:"]
    lines += [_kernel(cost, name) for name in others]
    loops = sorted(cost.loops, key=lambda loop: -loop[1] * loop[2])
    lines += [
        f"  a loop of {rounds} rounds, entered {times} x: {scope[-70:]}"
        for scope, times, rounds in loops[:8]
    ]
    for name, count in cost.without_library.items():
        lines.append(f"  {count} x {name} in a kernel of XLA's own: no library computes them")
    for name, scope, moved in cost.heaviest[:heaviest]:
        lines.append(f"    {moved / 1e9:9.2f} GB {name}: {scope[-100:]}")
    return [*lines, f"  {gpu.NOT_TUNED}"]


def _kernel(cost: cost_lib.Cost, name: str) -> str:
    count, moved = cost.kinds[name]
    return f"    {count:6d} x {name}: {moved / 1e9:.1f} GB"


def _is_ours(kind: str) -> bool:
    return not kind.startswith(("cu", "triton", "xla."))


def markdown(rows: Sequence[tuple[Mapping[str, Any], cost_lib.Cost]]) -> str:
    """A table of results, by slice and stage; names are those of configs and their variants."""
    lines = [
        "| program | slice | batch | parts | data x fsdp | GiB a chip | free | TFLOP | memory GB "
        "| links GB | compute / memory / links ms | bound | compiled in |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = lambda row: (row[0]["topology"], row[1].name != "train", _program(row[0]))  # noqa: E731
    for request, cost in sorted(rows, key=order):
        lines.append("| " + " | ".join(_cells(request, cost)) + " |")
    return "\n".join(lines)


def _program(request: Mapping[str, Any]) -> str:
    """Returns a config's task, and its variant where it has one: "ldm:h100"."""
    _, _, variant = request.get("file", "").partition(":")
    return ":".join([request["config"]["task"], *([variant] if variant else [])])


def _cells(request: Mapping[str, Any], cost: cost_lib.Cost) -> list[str]:
    config = request["config"]
    train = request["step"] == "train"
    fsdp = config["mesh"]["fsdp"] if train else 1
    sent = sum(total for _, total in cost.collectives.values())
    times = (cost.compute_s, cost.memory_s, cost.links_s)
    refused = not cost.flops
    return [
        f"{_program(request)} {cost.name}",
        f"{request['topology']} ({cost.num_chips} chip{'s' * (cost.num_chips > 1)})",
        str(cost.examples),
        str(config.get("accumulate", 1)) if train else "1",
        f"{cost.num_chips // fsdp} x {fsdp}",
        f"{cost.peak_bytes / GIB:.1f}",
        f"{100 * cost.headroom:.0f} %",
        *(
            ["-"] * 6
            if refused
            else [
                f"{cost.flops / 1e12:.2f}",
                f"{cost.memory_bytes / 1e9:.0f}",
                f"{sent / 1e9:.2f}",
                " / ".join(f"{1e3 * t:.0f}" for t in times),
                cost.bound,
                f"{cost.compile_s:.0f} s",
            ]
        ),
    ]
