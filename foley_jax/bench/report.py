"""Results as files, as text for a person, and as a table with a column for every kind of device."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import platform
import re
from typing import Any

import jax

from foley_jax.bench import measure, slopes

COLUMNS = ("cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where results were measured.

    Attributes:
      backend: "cpu", "gpu" or "tpu".
      device: its name.
      dtype: of our computation.
      threads: of a CPU; 0 elsewhere.
      peak_flops: FLOP/s of the fastest matrix product there.
      versions: of jax and, where there are peers, of what they are made with.
      no_peers: why there are none; "" if there are.
    """

    backend: str
    device: str
    dtype: str
    threads: int
    peak_flops: float
    versions: Mapping[str, str]
    no_peers: str = ""


def device_name() -> str:
    """Returns what the hardware calls itself."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = cpuinfo.is_file() and re.search(r"model name\s*:\s*(.*)", cpuinfo.read_text())
    return found[1].strip() if found else platform.processor() or platform.machine()


def save(folder: pathlib.Path, place: Place, results: Sequence[measure.Result]) -> pathlib.Path:
    """Writes the results of one suite; those of the same suite, size and place are replaced."""
    first = results[0]
    name = f"{first.suite}-{first.size}-{place.backend}-{place.dtype}"
    if place.threads:
        name += f"-{place.threads}threads"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    text = {
        "place": dataclasses.asdict(place),
        "results": [dataclasses.asdict(result) for result in results],
    }
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(text, indent=1) + "\n")
    temporary.replace(file)
    return file


def read(folder: pathlib.Path) -> list[tuple[Place, measure.Result]]:
    """All results of a folder.

    Raises:
      ValueError: there are none.
    """
    rows = []
    for file in sorted(folder.glob("*.json")):
        text = json.loads(file.read_text())
        place = Place(**text["place"])
        rows += [(place, _result(fields)) for fields in text["results"]]
    if not rows:
        raise ValueError(f"{folder} holds no results; make some: python -m foley_jax.bench all")
    return rows


def _result(fields: Mapping[str, Any]) -> measure.Result:
    peers = {
        name: measure.Beside(**{**beside, "times": measure.Times(**beside["times"])})
        for name, beside in fields["peers"].items()
    }
    return measure.Result(**{**fields, "ours": measure.Times(**fields["ours"]), "peers": peers})


def share_of_peak(place: Place, result: measure.Result, seconds: float) -> float:
    """FLOP/s of a call of so many seconds over the device's best."""
    return result.flops / seconds / place.peak_flops


def seconds_text(seconds: float) -> str:
    """With a unit in which it is easily read."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"


def bytes_text(count: int | None) -> str:
    """In MB; "" if unknown."""
    return "" if count is None else f"{count / 1e6:.0f} MB"


def describe(place: Place, result: measure.Result) -> str:
    """Some lines about one case."""
    ours = result.ours
    lines = [
        f"{result.suite}, {result.name} ({result.size}, {place.dtype}): "
        f"{result.flops / 1e9:.1f} GFLOP, compiled in {result.compile_s:.1f} s",
        f"  {'ours':<14}{_times_text(place, result, ours)}, "
        f"{seconds_text(ours.median_s / result.examples)} per {result.unit}",
    ]
    for name, beside in result.peers.items():
        lines.append(
            f"  {name:<14}{_times_text(place, result, beside.times)}; ours takes "
            f"{beside.ratio:.2f} of that ({beside.ratio_low:.2f} to {beside.ratio_high:.2f}), "
            f"outputs differ by {beside.difference:.0e}"
        )
    if result.note:
        lines.append(f"  {result.note}")
    return "\n".join(lines)


def _times_text(place: Place, result: measure.Result, times: measure.Times) -> str:
    text = f"{seconds_text(times.median_s)} ({seconds_text(times.low_s)} to "
    text += f"{seconds_text(times.high_s)}, {times.calls} calls)"
    if result.flops:
        text += f", {100 * share_of_peak(place, result, times.median_s):.0f} % of peak"
    if times.memory_bytes is not None:
        text += f", {bytes_text(times.memory_bytes)}"
    return text


def markdown(rows: Sequence[tuple[Place, measure.Result]]) -> str:
    """Places, a table of all cases with a column for CPUs and one for GPUs, and what is missing."""
    places = list({_place_key(place): place for place, _ in rows}.values())
    backends = [b for b in COLUMNS if b != "tpu" or any(p.backend == b for p in places)]
    lines = [_place_line(place) for place in places] + [""]
    lines.append("| case | size | dtype | " + " | ".join(b.upper() for b in backends) + " |")
    lines.append("|" + "---|" * (3 + len(backends)))
    cells: dict[tuple[str, str, str, str], dict[str, list[str]]] = {}
    notes = {}
    for place, result in rows:
        key = (result.suite, result.name, result.size, place.dtype)
        cells.setdefault(key, {}).setdefault(place.backend, []).append(_cell(place, result))
        if result.note:
            notes[f"{result.suite}, {result.name}"] = result.note
    for (suite, name, size, dtype), found in cells.items():
        texts = ["<br>".join(found.get(backend, [])) for backend in backends]
        lines.append(f"| {suite}, {name} | {size} | {dtype} | " + " | ".join(texts) + " |")
    lines.append("")
    lines += [f"- {name}: {note}" for name, note in notes.items()]
    lines += [
        f"There was no {backend.upper()}: its column is empty."
        for backend in backends
        if all(place.backend != backend for place in places)
    ]
    lines.append(
        "Ratios are our time over the peer's, the median (and quartiles) over neighbouring calls: "
        "below 1 we are faster. Memory is what one call takes besides weights."
    )
    groups: dict[str, list[measure.Result]] = {}
    for place, result in rows:
        groups.setdefault(f"{place.device}, {place.dtype}, {result.size}", []).append(result)
    for where, results in groups.items():
        lines += slopes.markdown(results, where)
    return "\n".join(lines)


def _place_key(place: Place) -> tuple[Any, ...]:
    return place.backend, place.device, place.threads


def _place_line(place: Place) -> str:
    threads = f", {place.threads} thread{'s' * (place.threads > 1)}" if place.threads else ""
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    line = (
        f"- {place.backend.upper()}: {place.device}{threads}; best matrix product "
        f"{place.peak_flops / 1e9:.0f} GFLOP/s in {place.dtype}; {versions}"
    )
    return f"{line}; {place.no_peers}" if place.no_peers else line


def _cell(place: Place, result: measure.Result) -> str:
    parts = [f"{seconds_text(result.ours.median_s / result.examples)}/{result.unit}"]
    if place.threads:
        parts[0] = f"{place.threads}T: {parts[0]}"
    if result.flops:
        share = share_of_peak(place, result, result.ours.median_s)
        parts.append(f"{100 * share:.0f} % of peak")
    if result.ours.memory_bytes is not None:
        parts.append(bytes_text(result.ours.memory_bytes))
    for name, beside in result.peers.items():
        parts.append(
            f"**{beside.ratio:.2f}** of {name} ({beside.ratio_low:.2f}-{beside.ratio_high:.2f})"
        )
    return ", ".join(parts) if result.peers else ", ".join([*parts, "no peer"])
