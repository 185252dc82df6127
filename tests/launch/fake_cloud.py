"""Programs of a cloud that only write down what they are asked, and answer as a test says."""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[2]
PROGRAMS = ("gcloud", "docker", "xpk", "srun", "sbatch", "scontrol", "sleep")
_FAKE = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
call = [{name!r}, *sys.argv[1:]]
with (folder / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\\n")
path = folder / "answers.json"
answers = json.loads(path.read_text())
for words, replies in answers.items():
    if replies and all(word in " ".join(call) for word in words.split()):
        text, code = replies.pop(0)
        path.write_text(json.dumps(answers))
        print(text)
        sys.exit(code)
"""


class Cloud:
    """Fake programs in a folder of their own, first on PATH."""

    def __init__(self, folder: Path, answers: Mapping[str, Sequence[tuple[str, int]]]):
        """Args:
        folder: for the programs and what they write.
        answers: words of a call -> (output, exit code) of its first, second, ... occurrence; later
          ones, and other calls, print nothing and succeed.
        """
        self.folder = folder
        folder.mkdir()
        (folder / "answers.json").write_text(json.dumps(answers))
        for name in PROGRAMS:
            text = _FAKE.format(python=sys.executable, folder=str(folder), name=name)
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Runs a script of launch/ in the checkout."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "TMPDIR": str(self.folder), **variables}
        command = ["bash", f"launch/{script}", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
        )

    def calls(self) -> list[list[str]]:
        """Returns what was asked, in order."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def verbs(self) -> list[str]:
        """The calls in short: program and its words before the first option."""
        found = []
        for call in self.calls():
            words = [word for word in call[1:] if not word.startswith("-")]
            found.append(" ".join([call[0], *words][:5]))
        return found
