"""Collects what one GPU said in `launch/gpu_report.sh`, and writes it into a README.

  python -m foley_jax.bench.gpu_report device --out=gpu_report          # what it is
  python -m foley_jax.bench.gpu_report write --out=gpu_report --readme=foley_jax/bench/README.md

The section between the two marks is replaced; a README without them gets it before its limits.
"""

import argparse
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from typing import Any

from foley_jax.bench import report

BEGIN, END = "<!-- gpu report -->", "<!-- end of gpu report -->"
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "nvidia-cudnn-cu12", "flax", "torch", "diffusers")
GIB = 2**30


def device() -> dict[str, Any]:
    """Returns the device's name, memory and driver, and the versions of what runs on it."""
    import jax

    first = jax.devices()[0]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    stats = first.memory_stats() or {}
    return {
        "kind": report.device_name(),
        "count": len(jax.devices()),
        "memory_bytes": stats.get("bytes_limit"),
        "driver": _driver(),
        "versions": versions,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout else ""


def section(folder: pathlib.Path) -> str:
    """Returns the Markdown of everything that was measured; what was not is named.

    Raises:
      FileNotFoundError: not even the device is known.
    """
    about = json.loads((folder / "device.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    memory = f", {about['memory_bytes'] / GIB:.1f} GiB for JAX" if about["memory_bytes"] else ""
    driver = f", driver {about['driver']}" if about["driver"] else ""
    lines = [f"On {about['count']} x {about['kind']}{memory}{driver}; {versions}.", ""]
    lines += _goldens(folder / "goldens.json")
    lines += _memory(folder / "memory.json")
    results = folder / "bench"
    if list(results.glob("*.json")):
        lines += [report.markdown(report.read(results))]
    else:
        lines += ["No case was timed."]
    steps = folder / "steps.txt"
    missing = steps.read_text().splitlines() if steps.is_file() else []
    lines += [f"- {line}" for line in missing]
    return "\n".join(lines)


def _goldens(file: pathlib.Path) -> list[str]:
    if not file.is_file():
        return ["Recorded outputs were not compared.", ""]
    lines = ["| network | dtype | worst | mean square | limit | |", "|---|---|---|---|---|---|"]
    for one in json.loads(file.read_text()):
        verdict = "good" if one["good"] else "**beyond**"
        lines.append(
            f"| {one['network']} | {one['dtype']} | {one['worst']:.1e} | {one['mean']:.1e} "
            f"| {one['limit']:.0e} | {verdict} |"
        )
    told = "Differences from the official outputs over their deviation; float32 is held to its "
    return [*lines, "", told + "worst, bfloat16 to its mean square.", ""]


def _memory(file: pathlib.Path) -> list[str]:
    if not file.is_file():
        return ["Memory was not looked at.", ""]
    one = json.loads(file.read_text())
    names = {"predicted": "predicted", "compiler": "compiler here", "seen": "seen"}
    figures = [
        f"{name} {one[key] / GIB:.2f} GiB" if one[key] else f"{name}: not known"
        for key, name in names.items()
    ]
    return [f"Memory of a step, {one['config']}, batch {one['batch']}: {', '.join(figures)}.", ""]


def written(readme: str, text: str) -> str:
    """Returns a README with the section put in its place.

    Args:
      readme: its text.
      text: Markdown of the section.
    Raises:
      ValueError: one of the marks is there without the other.
    """
    block = f"{BEGIN}\n\n## On a GPU\n\n{text}\n\n{END}"
    has = [mark in readme for mark in (BEGIN, END)]
    if all(has):
        head, _, rest = readme.partition(BEGIN)
        return head + block + rest.partition(END)[2]
    if any(has):
        raise ValueError(f"the README has one of {BEGIN} and {END}, expected both or none")
    head, limits, rest = readme.partition("\n## Limits")
    return f"{head.rstrip()}\n\n{block}\n{limits}{rest}"


def main() -> None:
    """Writes device.json, or the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("device", "write"))
    parser.add_argument("--out", default="gpu_report", help="folder of the parts")
    parser.add_argument("--readme", default="", help="file that gets the section")
    asked = parser.parse_args()
    folder = pathlib.Path(asked.out)
    try:
        if asked.what == "device":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "device.json").write_text(json.dumps(device(), indent=1) + "\n")
            return
        readme = pathlib.Path(asked.readme)
        readme.write_text(written(readme.read_text(), section(folder)))
        print(f"wrote the section of {readme}")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
