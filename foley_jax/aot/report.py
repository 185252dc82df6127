"""Costs as files, as text for a person, and as a table."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from foley_jax.aot import cost as cost_lib

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


def describe(cost: cost_lib.Cost) -> str:
    """Some lines about one program."""
    lines = [f"{cost.name} on {cost.num_chips} x {cost.chip}, {cost.examples} examples a call:"]
    known = sum(cost.parts.values())
    parts = {**cost.parts, "temporary, results, code": max(0.0, cost.peak_bytes - known)}
    for name, size in parts.items():
        if size:
            lines.append(f"  {name:<26}{size / GIB:8.2f} GiB a chip")
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
    return "\n".join(lines)


def markdown(rows: Sequence[tuple[Mapping[str, Any], cost_lib.Cost]]) -> str:
    """A table of results, by stage and slice."""
    lines = [
        "| program | slice | batch | parts | data x fsdp | GiB a chip | free | TFLOP | memory GB "
        "| links GB | compute / memory / links ms | bound |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = lambda row: (row[0]["config"]["task"], row[1].name != "train", row[0]["topology"])  # noqa: E731
    for request, cost in sorted(rows, key=order):
        lines.append("| " + " | ".join(_cells(request, cost)) + " |")
    return "\n".join(lines)


def _cells(request: Mapping[str, Any], cost: cost_lib.Cost) -> list[str]:
    config = request["config"]
    train = request["step"] == "train"
    fsdp = config["mesh"]["fsdp"] if train else 1
    sent = sum(total for _, total in cost.collectives.values())
    times = (cost.compute_s, cost.memory_s, cost.links_s)
    refused = not cost.flops
    return [
        f"{config['task']} {cost.name}",
        f"{request['topology']} ({cost.num_chips} chips)",
        str(cost.examples),
        str(config.get("accumulate", 1)) if train else "1",
        f"{cost.num_chips // fsdp} x {fsdp}",
        f"{cost.peak_bytes / GIB:.1f}",
        f"{100 * cost.headroom:.0f} %",
        *(
            ["-"] * 5
            if refused
            else [
                f"{cost.flops / 1e12:.2f}",
                f"{cost.memory_bytes / 1e9:.0f}",
                f"{sent / 1e9:.2f}",
                " / ".join(f"{1e3 * t:.0f}" for t in times),
                cost.bound,
            ]
        ),
    ]
