"""Runs of the toy task: in this process and in others."""

import json
import os
from pathlib import Path
import socket
import subprocess
import sys
import time

import toy_config

from foley_jax.training import loop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def config(data, **fields):
    """The toy config with `section__field=value` changed."""
    result = toy_config.get_config(str(data))
    for name, value in fields.items():
        *sections, last = name.split("__")
        node = result
        for section in sections:
            node = node[section]
        node[last] = value
    return result


def train(data, workdir, **fields):
    """Trains here, on the session's devices; returns the final state."""
    return loop.train(config(data, **fields), workdir)


def lines(workdir, split="train"):
    """Lines of metrics.jsonl by step; a step logged twice would show as a wrong count."""
    text = (Path(workdir) / "metrics.jsonl").read_text()
    whole = text[: text.rfind("\n") + 1]  # a killed process may leave half a line
    rows = [json.loads(line) for line in whole.splitlines()]
    rows = [row for row in rows if row["split"] == split]
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row for row in rows}


def losses(workdir):
    """Step -> training loss."""
    return {step: row["loss"] for step, row in lines(workdir).items()}


def spawn(data, workdir, *args, env=None, devices=1, config="toy_config"):
    """Starts `python -m foley_jax.main` on the toy task."""
    command = [sys.executable, "-m", "foley_jax.main", f"--workdir={workdir}"]
    command += [f"--config={HERE / config}.py:{data}", *args]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # processes of one run must not share it
        **(env or {}),
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(*processes, timeout=120, code=0):
    """Waits for processes; returns their outputs, and fails if one exits with another code.

    All are killed if one fails or time is up: it may be the others that it waits for.
    """
    deadline, outputs = time.monotonic() + timeout, []
    try:
        for process in processes:
            left = max(0.1, deadline - time.monotonic())
            outputs.append(process.communicate(timeout=left)[0].decode())
            assert process.returncode == code, outputs[-1]
    except subprocess.TimeoutExpired:
        kill(*processes)
        shown = [process.communicate(timeout=30)[0].decode()[-3000:] for process in processes]
        raise AssertionError(f"not done in {timeout} s:\n" + "\n---\n".join(shown)) from None
    finally:
        kill(*processes)
    return outputs


def kill(*processes):
    """Kills those that still run."""
    for process in processes:
        if process.poll() is None:
            process.kill()


def wait_for(condition, processes, timeout=120):
    """Waits until `condition()`; fails, and kills all, if one ends before or time is up."""
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            for process in processes:
                assert process.poll() is None, process.communicate(timeout=30)[0].decode()
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)
    except BaseException:
        kill(*processes)
        raise


def free_port():
    """A TCP port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
