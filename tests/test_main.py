"""The front door: help that teaches, and one clear line for every mistake."""

import os
from pathlib import Path
import subprocess
import sys
import time

import pytest

ROOT = Path(__file__).parents[1]
DEMO = "--config=configs/cavp.py:demo"


def run(*args):
    """Runs `python -m foley_jax.main`; returns (exit code, stdout, stderr)."""
    result = subprocess.run(
        [sys.executable, "-m", "foley_jax.main", *args],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("flag", ["--help", pytest.param("-h", marks=pytest.mark.slow)])
def test_help_teaches_examples_first(flag):
    begin = time.monotonic()
    code, out, err = run(flag)
    assert code == 0 and not err
    assert out.index("--config=configs/cavp.py --workdir=runs/cavp") < out.index("flags:")
    assert "xprof --logdir=WORKDIR/profile" in out
    for name in ("--config", "--workdir", "--mode", "--distributed", "--profile"):
        assert f"  {name}: " in out
    assert time.monotonic() - begin < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((DEMO, "--config.optimzer.lr=1"), 'Did you mean "optimizer" instead of "optimzer"?'),
        ((DEMO, "--config.batch_size=many"), "flag --config.batch_size=many: invalid literal"),
        (("--config=configs/cavp.py:dem",), "configs/cavp.py has no variant 'dem'"),
        pytest.param(
            ("--config=configs/cap.py",), "no config file configs/cap.py", marks=pytest.mark.slow
        ),
        ((), "--config is missing"),
        ((DEMO, "--wrkdir=x"), "Unknown command line flag 'wrkdir'"),
        pytest.param(
            (DEMO, "--mode=test"), "value should be one of <train|evaluate>", marks=pytest.mark.slow
        ),
        ((DEMO, "train"), "unexpected argument 'train'"),
        ((DEMO, "--profile=5"), "--profile is '5', expected START:STOP"),
        pytest.param(
            (DEMO, "--profile=7:5"), "with 1 <= START <= STOP, e.g. 20:25", marks=pytest.mark.slow
        ),
        pytest.param(
            (DEMO, "--profile=1:2", "--mode=evaluate"),
            "--profile records training; --mode is eval",
            marks=pytest.mark.slow,
        ),
        ((DEMO, "--config.data.dir=nowhere"), "python -m data_prep.prepare"),
        ((DEMO, "--mode=evaluate"), "train one with `python -m foley_jax.main --config=configs/"),
        (
            (DEMO, "--mode=evaluate", "--", "--protocol=onsets", "--reference", "nowhere"),
            "nowhere holds no audio clips: there is no such folder",
        ),
        pytest.param(
            (DEMO, "--", "--protocol=onsets"),
            "unexpected argument '--protocol=onsets'",
            marks=pytest.mark.slow,
        ),
        ((DEMO, "--config.mesh.data=3"), "does not fit 1 devices"),
        pytest.param(
            (DEMO, "--config.init_from.audio"),
            "init_from.audio names no source; write",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, args, message):
    code, out, err = run(f"--workdir={tmp_path / 'cavp'}", *args)
    assert code == 1, (out, err)
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert not out
    assert not (tmp_path / "cavp").exists()


@pytest.mark.slow
def test_traceback_can_be_asked_for(tmp_path):
    code, _, err = run(f"--workdir={tmp_path}", DEMO, "--config.data.dir=nowhere", "--traceback")
    assert code == 1
    assert "Traceback" in err


def test_missing_workdir_is_one_clear_line():
    code, _, err = run(DEMO)
    assert (code, err) == (1, "error: --workdir is missing (see --help)\n")
