"""Test session: 8 CPU devices, exact matmuls, no silent broadcasting, programs kept for next time.

The first run compiles, later ones find the programs. Processes that tests start do not: two of one
run that shared them once waited for ever for each other.
"""

from pathlib import Path

from absl import flags
import filled
import jax
import pytest

_CACHE = str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# grain's worker processes read absl flags, which pytest never parses
flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    """A test must never reach for a model hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def quick_compilation():
    """Programs of the whole file without XLA's optimisations: tests compile more than they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", filled.jit)
        yield
