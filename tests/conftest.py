"""Test session: 8 CPU devices, exact matmuls, no silent broadcasting."""

from absl import flags
import filled
import jax
import pytest

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
