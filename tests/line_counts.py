"""Prints how many lines of our own code a reader, or an import, has to take in.

python tests/line_counts.py
"""

from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[1]
# module -> lines of ours that importing it may bring in
IMPORTED = {
    "foley_jax.diff_foley.models.unet": 1_200,
    "foley_jax.sample": 9_000,
    "foley_jax.training.loop": 2_800,
}
WRITTEN = {"foley_jax + data_prep + configs": 38_500}
_FILES = """
import importlib, sys
importlib.import_module(sys.argv[1])
for module in list(sys.modules.values()):
    if module.__name__.split(".")[0] in ("foley_jax", "data_prep", "configs"):
        print(module.__file__ or "")
"""


def lines_of(files: list[Path]) -> int:
    """Returns how many lines some files have."""
    return sum(len(file.read_text().splitlines()) for file in files)


def imported_with(module: str) -> list[Path]:
    """Returns our own files that a fresh process reads to import a module."""
    run = subprocess.run(
        [sys.executable, "-c", _FILES, module], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return [Path(line) for line in run.stdout.splitlines() if line]


def written() -> list[Path]:
    """Returns all files of the package, of data_prep and of the configs."""
    folders = ("foley_jax", "data_prep", "configs")
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def main() -> None:
    """Prints every figure beside its aim."""
    for module, most in IMPORTED.items():
        files = imported_with(module)
        print(f"{lines_of(files):7,} lines in {len(files):3} files (aim {most:,}): import {module}")
    for name, most in WRITTEN.items():
        files = written()
        print(f"{lines_of(files):7,} lines in {len(files):3} files (aim {most:,}): {name}")


if __name__ == "__main__":
    main()
