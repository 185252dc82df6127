"""Test session: 8 CPU devices, exact matmuls, no silent broadcasting, programs kept for next time.

Most tests compile far longer than they run: XLA leaves its optimisations out, also in processes
that they start. Full-size ones (`-m slow tests/slow`) run what it makes of a program for everybody
else.

The first run compiles, later ones find the programs. Processes that tests start do not: two of one
run that shared them once waited for ever for each other. Numba's programs, of librosa, are kept for
every worker apart: two that wrote them at the same time have crashed.
"""

import os
from pathlib import Path

from absl import flags
import filled
import jax
import pytest

from foley_jax.runtime import mesh as mesh_lib

_CACHE = Path(__file__).parents[1] / ".pytest_cache"
os.environ["NUMBA_CACHE_DIR"] = str(
    _CACHE / "numba" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)
os.environ["NUMBA_OPT"] = "0"  # librosa's programs are many, and run for moments
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # of processes that tests start
os.environ["FOLEY_JAX_KEEP_TRACES"] = "0"  # tests put other functions into what is traced
jax.config.update("jax_enable_compilation_cache", True)
jax.config.update("jax_compilation_cache_dir", str(_CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# grain's worker processes read absl flags, which pytest never parses
flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    """No device has been asked for yet: flags of XLA are read when the first one is."""
    # asked for with all others, or alone
    full_size = config.option.markexpr == "slow" and not config.option.ignore
    if not full_size:
        quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
        # in one piece: cutting programs for parallel compilation costs a fifth more CPU time
        quick += " --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    """A test must never reach for a model hub, nor find what a user has fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FOLEY_JAX_WEIGHTS", os.devnull)


@pytest.fixture(autouse=True)
def _same_scheduling():
    """Encoders have left the process with real-time priority, which starves all others."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="module")
def quick_compilation():
    """Programs of the whole file without XLA's optimisations: tests compile more than they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", filled.jit)
        yield


@pytest.fixture
def one_device(monkeypatch):
    """Training sees the first device only."""
    make = mesh_lib.make_mesh
    monkeypatch.setattr(
        mesh_lib, "make_mesh", lambda **sizes: make(**sizes, devices=jax.devices()[:1])
    )
