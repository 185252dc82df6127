"""Rotary positions: the official table, distances in any unit, one angle for every example."""

import pathlib

from goldens import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.layers import rotary

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "mmaudio"


def test_turned_queries_match_the_official_ones():
    want = np.load(GOLDENS / "tiny_more.npz")["rope"]  # [B, N, T, D]
    x = fill.inp("mmaudio_tiny_rope", (2, 2, 20, 32), "public/")
    angles = rotary.angles(jnp.arange(20), 32)
    got = np.swapaxes(rotary.rotate(np.swapaxes(x, 1, 2), angles), 1, 2)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_tables_match_the_official_ones():
    table = np.load(GOLDENS / "tiny.npz")
    for name, scale in (("latent_rot", 1.0), ("clip_rot", 2.5)):
        want = table[name][0]  # [T, D/2, 2, 2] of cos, -sin, sin, cos
        angles = rotary.angles(scale * jnp.arange(len(want)), 32)
        np.testing.assert_allclose(jnp.cos(angles), want[..., 0, 0], atol=2e-6)
        np.testing.assert_allclose(jnp.sin(angles), want[..., 1, 0], atol=2e-6)


def test_only_distances_count():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(at_q, at_k):
        turned = (
            rotary.rotate(x, rotary.angles(jnp.asarray([at]), 8))
            for x, at in ((q, at_q), (k, at_k))
        )
        return float(jnp.vdot(*turned))

    assert score(0.3, 1.7) == pytest.approx(score(100.3, 101.7), abs=1e-4)
    assert score(0.3, 1.7) != pytest.approx(score(0.3, 2.7), abs=1e-2)


@pytest.mark.slow
def test_examples_may_have_positions_of_their_own():
    x = jax.random.normal(jax.random.key(1), (2, 3, 1, 4))
    times = jnp.asarray([[0.0, 0.5, 1.0], [2.0, 2.25, 2.5]])
    both = rotary.rotate(x, rotary.angles(times, 4))
    for i in range(2):
        alone = rotary.rotate(x[i : i + 1], rotary.angles(times[i], 4))
        np.testing.assert_allclose(both[i : i + 1], alone, atol=1e-6)


def test_bfloat16_is_turned_in_float32():
    x = jax.random.normal(jax.random.key(2), (1, 3, 1, 4)).astype(jnp.bfloat16)
    angles = rotary.angles(jnp.asarray([0.0, 1000.3, 9000.7]), 4)
    got, want = rotary.rotate(x, angles), rotary.rotate(x.astype(jnp.float32), angles)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width of 5"):
        rotary.angles(jnp.arange(2), 5)
