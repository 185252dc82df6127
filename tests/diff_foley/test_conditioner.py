"""Features to context."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diff_foley.models import conditioner
from foley_jax.runtime import network as network_lib


def _small(**fields):
    return conditioner.from_config(
        {"in_dim": 6, "out_dim": 8, "max_len": 5, **fields}, rngs=nnx.Rngs(0)
    )


def test_default_has_the_official_size():
    abstract = network_lib.shapes(lambda keys: conditioner.from_config({}, rngs=keys))
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(abstract, nnx.Param)))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == 512 * 768 + 768 + 40 * 768


def test_context_is_projection_plus_position():
    model = _small(feature_gain=3.0)
    features = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    want = 3.0 * features @ model.embedder.kernel[...] + model.embedder.bias[...].reshape(1, 1, -1)
    want = want + model.pos_emb.embedding[...][None, :4]
    np.testing.assert_allclose(model(features), want, atol=1e-5)


def test_null_context_is_bias_plus_position():
    model = _small()
    want = model.embedder.bias[...].reshape(1, -1) + model.pos_emb.embedding[...]
    np.testing.assert_allclose(model(jnp.zeros((1, 5, 6)))[0], want, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 4, 7)])
def test_rows_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="at most 5 features of width 6"):
        _small()(jnp.zeros(shape))
