"""The command as people run it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from foley_jax.bench import case, report, suites

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT_S = 120


def command(*args, without=(), path=None):
    """Runs it in a process of its own, as if some packages were not installed."""
    hidden = f"for name in {list(without)!r}: sys.modules[name] = None\n"
    code = (
        f"import sys\n{hidden}sys.argv = ['bench', *{list(args)!r}]\n"
        "import runpy; runpy.run_module('foley_jax.bench', run_name='__main__', alter_sys=False)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=path or ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.slow
def test_measured_without_torch_and_shown_as_a_table(tmp_path):
    out = tmp_path / "results"
    options = ["--size=tiny", "--repeats=2", "--threads=1", f"--out={out}"]
    made = command("griffin_lim", *options, without=["torch"])
    assert made.returncode == 0, made.stderr[-2000:]
    assert "torch is not installed" in made.stdout
    assert "griffin_lim, batch 2 (tiny, float32)" in made.stdout
    ((place, result),) = report.read(out)
    assert (place.backend, place.threads, result.suite) == ("cpu", 1, "griffin_lim")
    assert result.ours.calls == 2 and not result.peers
    assert result.compile_s > 0 and place.peak_flops > 0
    table = (out / "table.md").read_text()
    assert "no peer" in table and "There was no GPU" in table
    json.loads(next(out.glob("*.json")).read_text())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name a suite"),
        (("nothing",), "no suite 'nothing'"),
        (("griffin_lim", "--threads=999"), "--threads=999"),
        (("griffin_lim", "--size=huge"), "huge"),
        (("griffin_lim", "--repeats=0"), "repeats"),
        (("--nonsense",), "nonsense"),
    ],
)
def test_wrong_arguments_are_one_line(args, message, monkeypatch, capsys):
    found, text = _parsed(args, monkeypatch, capsys)
    assert found == 2
    assert text.err.startswith("error: ") and message in text.err
    assert text.err.count("\n") == 1


def test_help_teaches(monkeypatch, capsys):
    found, text = _parsed(("--help",), monkeypatch, capsys)
    assert found == 0
    for word in ("--size", "--no_peer", "suites: unet_forward", "python -m foley_jax.bench"):
        assert word in text.out


def test_an_empty_folder_is_one_line(tmp_path):
    made = command("--table", f"--out={tmp_path}")
    assert made.returncode == 1
    assert made.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "holds no results" in made.stderr


def test_a_refused_case_keeps_no_other_from_its_turn(tmp_path, monkeypatch, capsys):
    from foley_jax.bench import __main__ as main

    x = np.ones((4, 4), np.float32)
    wrong = case.Peer(lambda: x, lambda output: output)

    def cases(suite, ask):
        for name, peers in (("bad", {"torch": wrong}), ("good", {})):
            program = case.Program(jax.jit(lambda x: x @ x), (x,))
            yield case.Case(suite, name, ask.size, program, 1, "thing", peers)

    monkeypatch.setattr(suites, "cases", cases)
    place = report.Place("cpu", "a processor", "float32", 1, 1e11, {})
    assert not main._suite("griffin_lim", place, tmp_path)
    assert "griffin_lim, bad: the output of torch differs" in capsys.readouterr().err
    assert [result.name for _, result in report.read(tmp_path)] == ["good"]
    assert "griffin_lim, good" in (tmp_path / "table.md").read_text()


def _parsed(args, monkeypatch, capsys):
    """Exit code and text of parsing alone, with flags as they were afterwards."""
    from foley_jax.bench import __main__ as main

    saved = {name: main._FLAGS[name].value for name in main._OURS}
    try:
        with pytest.raises(SystemExit) as stop:
            main.parse(["bench", *args])
    finally:
        for name, value in saved.items():
            main._FLAGS[name].value = value
    return stop.value.code, capsys.readouterr()
