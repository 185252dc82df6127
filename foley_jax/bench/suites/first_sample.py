"""How long the first audio takes from the start of the process: `python -m foley_jax.sample`."""

from collections.abc import Iterator, Mapping
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from flax import nnx
import ml_collections
import numpy as np

from configs import alignment as alignment_config
from configs import cavp as cavp_config
from configs import ldm as ldm_config
from foley_jax.bench import case, weights
from foley_jax.media import video
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory

CLIP_S, FPS, SIDE = 8.0, 10, 64
TIMEOUT_S = 3600
NOTE = (
    "times are whole processes that find their programs on disk; the time of compiling is that of "
    "the first process, which finds none, from its start to its end"
)
_NETWORKS = {"cavp": "cavp", "classifier": "alignment"}  # option -> run
# what JAX logs with JAX_LOG_COMPILES -> what it was doing
_PHASES = {
    "trace_s": r"Finished tracing .* in ([\d.e+-]+) sec",
    "lower_s": r"Finished jaxpr to MLIR module conversion .* in ([\d.e+-]+) sec",
    "compile_s": r"Finished XLA compilation of .* in ([\d.e+-]+) sec",
}


@dataclasses.dataclass(frozen=True)
class Start:
    """One process from its start to its end.

    Attributes:
      wall_s, cpu_s: elapsed, and of all its threads.
      trace_s, lower_s, compile_s: of the elapsed spent tracing (functions inside others count
        again), lowering, and compiling or loading what was compiled.
      peak_bytes: most memory it had.
    """

    wall_s: float
    cpu_s: float
    trace_s: float
    lower_s: float
    compile_s: float
    peak_bytes: int


def measure(
    model: str | os.PathLike,
    clip: str | os.PathLike,
    *,
    warm: int = 3,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> tuple[Start, list[Start]]:
    """Starts of `python -m foley_jax.sample CLIP --model=MODEL`, with no program on disk and then.

    Args:
      model: as for that command.
      clip: a video.
      warm: processes after the first.
      options: more of its flags, e.g. ("--classifier=runs/alignment",).
      env: more environment variables.
    Returns:
      The first process; the others.
    Raises:
      ValueError: the command failed; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = _Command(pathlib.Path(scratch), model, clip, options, env or {})
        first = command.start()
        return first, [command.start() for _ in range(warm)]


class _Command:
    """The command with a folder for its programs."""

    def __init__(self, scratch, model, clip, options, env):
        self._arguments = [str(clip), f"--model={model}", *options]
        self._scratch, self._count = scratch, 0
        self._env = {
            **os.environ,
            **env,
            "JAX_ENABLE_COMPILATION_CACHE": "1",
            "JAX_COMPILATION_CACHE_DIR": str(scratch / "programs"),
            "JAX_LOG_COMPILES": "1",
        }

    def start(self) -> Start:
        self._count += 1
        command = [sys.executable, "-m", "foley_jax.sample", *self._arguments]
        command.append(f"--out={self._scratch / f'out{self._count}'}")
        with (self._scratch / "log").open("w+") as log:
            began = time.perf_counter()
            process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)
            _, status, usage = ended(process)
            wall_s = time.perf_counter() - began
            log.seek(0)
            text = log.read()
        if status:
            tail = " ".join(text.split())[-500:]
            raise ValueError(f"{' '.join(command)} failed with exit code {status}: {tail}")
        spent = {
            name: sum(map(float, re.findall(pattern, text))) for name, pattern in _PHASES.items()
        }
        cpu_s = usage.ru_utime + usage.ru_stime
        return Start(wall_s=wall_s, cpu_s=cpu_s, peak_bytes=usage.ru_maxrss * 1024, **spent)


def ended(process: subprocess.Popen):
    """(pid, exit code, resources) of a process' end; it is killed where it does not come."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return pid, process.returncode, usage
        time.sleep(0.01)
    process.kill()
    process.wait()
    raise ValueError(f"{' '.join(process.args)} did not end in {TIMEOUT_S} s")


class Starts:
    """`case.Case.ours`: compiling is the first start, a call is one of the later ones."""

    flops = 0.0

    def __init__(self, size: str, dtype: str):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        write_runs(folder, size)
        frames = np.random.default_rng(0).integers(0, 255, (round(CLIP_S * FPS), SIDE, SIDE, 3))
        video.write_video(folder / "clip.mp4", frames.astype(np.uint8), FPS)
        networks = [f"--{name}={folder / run}" for name, run in _NETWORKS.items()]
        options = (*networks, f"--dtype={dtype}")
        self._command = _Command(folder, folder / "ldm", folder / "clip.mp4", options, {})

    def compile(self) -> float:
        """Seconds of the first process."""
        return self._command.start().wall_s

    def memory_bytes(self) -> int | None:
        """Returns the most memory that a later process had."""
        return self._command.start().peak_bytes

    def __call__(self) -> float:
        """A later process; gives nothing to compare."""
        self._command.start()
        return 0.0


def first_sample(ask: case.Ask) -> Iterator[case.Case]:
    """Audio for one video of 8 s, with networks of random weights."""
    yield case.Case(
        "first_sample",
        "8 s, double guidance, from process start",
        ask.size,
        Starts(ask.size, ask.dtype),
        1,
        "process",
        note=NOTE,
    )


def run_configs(size: str) -> dict[str, ml_collections.ConfigDict]:
    """Name of a run -> config: the demo's networks, the paper's, or very small ones."""
    variant = "" if size == "paper" else "demo"
    modules = {"cavp": cavp_config, "ldm": ldm_config, "alignment": alignment_config}
    configs = {name: module.get_config(variant) for name, module in modules.items()}
    if size == "tiny":
        configs["cavp"].model.video.update({"depths": (0, 1), "width": 4, "inflate": (False, True)})
        for part in (configs["ldm"].model.unet, configs["alignment"].model.classifier):
            part.update({"model_channels": 8, "channel_mult": (1,), "num_groups": 4})
            part.update({"num_heads": 2, "attention_downsamples": (1,)})
    return configs


def write_runs(folder: pathlib.Path, size: str) -> None:
    """Run folders cavp, ldm and alignment, with random weights."""
    save_runs(folder, run_configs(size))


def save_runs(folder: pathlib.Path, configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Run folders of name -> config, with random weights."""
    for seed, (name, config) in enumerate(configs.items()):
        task = task_lib.resolve(config)
        model = weights.network(task.build, seed).module()
        _, params, rest = nnx.split(model, task.trainable, ...)
        run_directory.save_model(
            folder / name,
            config=config.to_dict(),
            params=nnx.to_pure_dict(params),
            rest=nnx.to_pure_dict(rest),
        )
