"""Compiled programs on disk: where they go, when there are none, and what a damaged one does."""

import os
from pathlib import Path
import subprocess
import sys

import jax
import pytest

from data_prep import features
from foley_jax import generate, main, sample
from foley_jax.evaluation import __main__ as evaluation
from foley_jax.evaluation.memorisation import __main__ as memorisation
from foley_jax.runtime import compile_cache

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)
# compiles one program; prints its result and how many programs were found and were not
PROGRAM = """
import collections, jax, numpy as np
from foley_jax.runtime import compile_cache
events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
print(compile_cache.turn_on())
run = jax.jit(lambda x: (x @ x + 1).sum())
print(float(run(np.ones((8, 8), np.float32))))
print(*(events["/jax/compilation_cache/cache_" + what] for what in ("hits", "misses")))
"""


@pytest.fixture(autouse=True)
def as_jax_starts():
    """The session's own choices are put back."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name, value in zip(OPTIONS, (True, None, 1.0)):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run_program(folder):
    """(folder, result, found, not found, stderr) of `PROGRAM` in a process of its own."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    where, result, counts = done.stdout.splitlines()
    return where, float(result), *map(int, counts.split()), done.stderr


def test_the_users_cache_folder_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = compile_cache.turn_on()
    assert folder.parent == tmp_path / "cache" / "foley_jax" / "programs" and folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0  # programs of others would be run
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    jax.config.update("jax_compilation_cache_dir", None)
    assert compile_cache.turn_on().parent == tmp_path / "home/.cache/foley_jax/programs"


def test_what_jax_was_told_stays(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 3.0)
    folder = compile_cache.turn_on()
    assert folder.parent == tmp_path / "mine"
    assert compile_cache.turn_on() == folder  # not one inside the other
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 3.0
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
    assert compile_cache.turn_on() is None
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/programs"


def test_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", False)
    assert compile_cache.turn_on() is None
    assert not list(tmp_path.iterdir()) and jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize(("processes", "kept"), [(1, True), (2, False)])
def test_processes_of_one_run_on_cpus_share_nothing(tmp_path, monkeypatch, processes, kept):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert (compile_cache.turn_on() is not None) == kept
    assert jax.config.jax_enable_compilation_cache == kept


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "programs"))
    assert compile_cache.turn_on() is None
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and error.count("\n") == 1 and "file" in error
    assert not jax.config.jax_enable_compilation_cache


@pytest.mark.slow
def test_a_second_process_finds_programs_and_damaged_ones_end_nothing(tmp_path):
    where, first, found, missing, _ = run_program(tmp_path)
    folder = Path(where)
    assert folder.parent == tmp_path and first == 576 and found == 0 and missing > 0
    _, again, found, compiled, _ = run_program(tmp_path)
    assert again == first and found == missing and compiled == 0

    entries = sorted(folder.glob("*-cache"))
    whole = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, whole):
        middle = len(content) // 2
        entry.write_bytes(content[:middle] + b"damage" + content[middle + 6 :])
        os.utime(entry, (0, 0))  # older than the last look: only JAX will see it
    _, result, found, _, error = run_program(tmp_path)
    assert result == first and found == 0
    assert error.count("warning: ") == 1 and "is compiled again (" in error
    assert "Error reading" not in error and len(error.splitlines()) == 1
    assert run_program(tmp_path)[2:4] == (len(entries), 0)  # they were written again

    for entry, content in zip(entries, whole):
        entry.write_bytes(content[:-100])  # as a process leaves it that was killed
    _, result, found, missing, error = run_program(tmp_path)
    assert result == first and found == 0 and missing == len(entries)
    assert "Error reading" not in error
    assert run_program(tmp_path)[2:4] == (len(entries), 0)  # they were written again


@pytest.mark.parametrize(
    "command",
    [
        lambda: sample.main(["x.mp4", "--model=none"]),
        lambda: generate.main(["x", "--model=none"]),
        lambda: main.run(["main"]),
        lambda: features.main(["shards", "out", "--model=none"]),
        lambda: evaluation.main(["--protocol=onsets", "--reference=x", "--out=y"]),
        lambda: memorisation.main(["--training=x", "--held_out=x", "--generated=x", "--out=x"]),
    ],
    ids=["sample", "generate", "main", "features", "evaluation", "memorisation"],
)
def test_every_command_keeps_its_programs(monkeypatch, command):
    class Called(Exception):
        pass

    def turn_on():
        raise Called

    monkeypatch.setattr(compile_cache, "turn_on", turn_on)
    with pytest.raises(Called):
        command()
