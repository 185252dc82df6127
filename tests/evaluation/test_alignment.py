"""Align Acc as the official script defines it, on a tiny classifier."""

import functools

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from foley_jax.diff_foley.models import alignment as networks
from foley_jax.evaluation import alignment

SMALL = {
    "classifier": tiny.TRUNK,
    "conditioner": tiny.CONDITIONER,
    "autoencoder": tiny.AUTOENCODER,
    "latent_scale": 0.5,
}
SIZES = {"num_frames": 8, "num_features": 4, "batch_size": 2}


BIAS = 6.0


@functools.cache
def _model():
    model = filled.module(lambda keys: networks.from_config(SMALL, rngs=keys))
    model.latent_scale[...] = jnp.float32(0.5)
    model.classifier.head.kernel[...] = 20 * model.classifier.head.kernel[...]  # clear opinions
    model.classifier.head.bias[...] = jnp.full(1, BIAS)  # on both sides
    return model


def _items(count=5, frames=8, features=4):
    rng = np.random.default_rng(0)
    mels = [rng.random((4, frames)).astype(np.float32) for _ in range(count)]
    return mels, [rng.standard_normal((features, 5)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("prob", "want"),
    [([0.5, 0.5, 0.5, 0.5], 0.0), ([0.4999, 0.5, 0.5001, 0.9], 0.5), ([1.0], 1.0), ([0.0], 0.0)],
)
def test_exactly_one_half_counts_as_no(prob, want):
    assert alignment.accuracy(np.float32(prob)) == want


@pytest.mark.slow
def test_the_definition_step_by_step():
    mels, features = _items()
    got = alignment.align_acc(_model(), mels, features, seed=3, **SIZES)
    graphdef, state = nnx.split(_model())

    @filled.jit
    def judge(state, mel, row, item):
        model, key = nnx.merge(graphdef, state), jax.random.fold_in(jax.random.key(3), item)
        image = jnp.repeat(mel[None, ..., None], 3, axis=-1)
        mean, logvar = model.autoencoder.encode(image)
        noise = jax.random.normal(key, mean.shape)
        z = 0.5 * (mean + jnp.exp(0.5 * logvar) * noise)
        return model.classifier(z, jnp.zeros(1), model.conditioner(row[None]))[0]

    logits = [judge(state, mels[i], features[i], i) for i in range(len(mels))]
    want = 1 / (1 + np.exp(-np.array(logits)))
    np.testing.assert_allclose(got.prob_N, want, atol=2e-5)
    assert got.accuracy == np.mean(np.array(want) > 0.5)
    assert 0 < got.accuracy < 1


def test_only_the_first_frames_and_rows_count():
    mels, features = _items()
    first = alignment.align_acc(_model(), mels, features, **SIZES)
    longer = [np.pad(mel, ((0, 0), (0, 3)), constant_values=0.7) for mel in mels]
    more = [np.pad(row, ((0, 2), (0, 0)), constant_values=9.0) for row in features]
    again = alignment.align_acc(_model(), longer, more, **SIZES)
    np.testing.assert_array_equal(first.prob_N, again.prob_N)


def test_the_seed_decides_and_the_batch_size_does_not():
    mels, features = _items()
    run = functools.partial(alignment.align_acc, _model(), mels, features)
    first, other = run(seed=0, **SIZES), run(seed=1, **SIZES)
    batched = run(seed=0, **SIZES | {"batch_size": 3})
    # float32 sums in another order
    np.testing.assert_allclose(first.prob_N, batched.prob_N, atol=1e-5)
    assert np.abs(first.prob_N - other.prob_N).max() > 1e-3
    assert first.prob_N.shape == (5,) and first.prob_N.dtype == np.float32


def test_items_that_do_not_fit_are_refused():
    mels, features = _items()
    with pytest.raises(ValueError, match=r"mel of item 0: shape \(4, 8\).* at least 512"):
        alignment.align_acc(_model(), mels, features, num_features=4)
    with pytest.raises(ValueError, match="features of item 0.* at least 32"):
        alignment.align_acc(_model(), mels, features, num_frames=8)
    with pytest.raises(ValueError, match="5 mels and 4 sets"):
        alignment.align_acc(_model(), mels, features[:4], **SIZES)
    with pytest.raises(ValueError, match="0 mels"):
        alignment.align_acc(_model(), [], [], **SIZES)
    guide = networks.AlignmentModel(
        classifier=_model().classifier, conditioner=_model().conditioner
    )
    with pytest.raises(ValueError, match="no autoencoder"):
        alignment.align_acc(guide, mels, features, **SIZES)
