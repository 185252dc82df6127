"""Runs in real processes that start fast: forked from one that has imported everything.

That one has touched no device yet, so that every child chooses its own. A child can be killed like
any process, dies with the test session, and shares no compiled programs with others.
"""

import contextlib
import ctypes
import multiprocessing
import os
from pathlib import Path
import signal
import sys
import time

import runs

HERE = Path(__file__).parent
PATIENCE_S = 240
# most of a small run is compilation; the same for all runs that are compared bit for bit
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["forked_imports"])


class Run:
    """`python -m foley_jax.main` with these arguments, in a process of its own.

    Args:
      arguments: of the command line, without the program.
      log: file that receives what it prints.
      devices: number of fake devices.
      env: environment variables on top.
    """

    def __init__(self, arguments, log, *, devices=1, env=None, limit_file_bytes=None):
        self.log = Path(log)
        self.log.write_bytes(b"")
        env = {name: str(value) for name, value in (env or {}).items()}
        self.process = _CONTEXT.Process(
            target=_child,
            args=([str(a) for a in arguments], str(self.log), devices, env, limit_file_bytes),
            daemon=True,
        )
        with _search_path():
            self.process.start()

    @property
    def output(self):
        """All that it printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def code(self):
        """Exit code, negative for a signal; None while it runs."""
        return self.process.exitcode

    def kill(self):
        """kill -9; returns when it is gone."""
        self.process.kill()
        self.process.join(30)
        assert self.code is not None, "a killed process is still there"

    def send(self, number):
        """Sends a signal."""
        os.kill(self.process.pid, number)

    def wait_end(self, timeout=PATIENCE_S):
        """Waits; returns the exit code."""
        self.process.join(timeout)
        assert self.code is not None, f"did not end in {timeout} s:\n{self.output[-5000:]}"
        return self.code


@contextlib.contextmanager
def _search_path():
    """Returns what the process that forks can import; it is started with the first run."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _child(arguments, log, devices, env, limit_file_bytes):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the one that forked
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(handle, number)
    os.environ.update({"XLA_FLAGS": _QUICK, **env})
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    if limit_file_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_file_bytes, limit_file_bytes))
    sys.argv = ["foley_jax.main", *arguments]
    from foley_jax import main

    main.main()


@contextlib.contextmanager
def ended(*started):
    """Kills what still runs of these at the end, whatever happens."""
    try:
        yield started
    finally:
        for run in started:
            if run.code is None:
                run.kill()


def start_together(arguments, folder, *, count, devices, name="run", env=None):
    """Starts `count` processes of one run, `devices` each; logs in `folder`.

    Args:
      arguments: of the command line; or a list of `count` such lists.
    """
    own = [arguments] * count if isinstance(arguments[0], str) else arguments
    address = f"127.0.0.1:{runs.free_port()}"
    result = []
    for index in range(count):
        joined = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": count,
            "JAX_PROCESS_ID": index,
            **(env or {}),
        }
        result.append(
            Run(
                [*own[index], *(["--distributed"] if count > 1 else [])],
                Path(folder) / f"{name}_{index}.log",
                devices=devices,
                env=joined if count > 1 else env,
            )
        )
    return result


def finish(started, timeout=PATIENCE_S, code=0):
    """Waits until all end; returns what the first one printed. Kills all if one fails."""
    deadline = time.monotonic() + timeout
    with ended(*started):
        for run in started:
            got = run.wait_end(max(1.0, deadline - time.monotonic()))
            assert got == code, f"exit code {got}, expected {code}:\n{run.output[-5000:]}"
    return started[0].output


def wait_for(condition, started, timeout=PATIENCE_S):
    """Waits until `condition()`; fails, and kills all, if one ends before or time is up."""
    deadline = time.monotonic() + timeout
    try:
        while not condition():
            for run in started:
                assert run.code is None, f"ended too soon:\n{run.output[-5000:]}"
            assert time.monotonic() < deadline, f"waited {timeout} s:\n{started[0].output[-5000:]}"
            time.sleep(0.002)
    except BaseException:
        for run in started:
            run.kill()
        raise
