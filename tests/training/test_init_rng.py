"""Initial weights: distribution, independence of draws, same values on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.runtime import init_rng
from foley_jax.runtime import mesh as mesh_lib

NUM = 1 << 18


def test_uniform_and_normal_have_their_distributions():
    uniform = np.asarray(jax.random.uniform(init_rng.key(0), (NUM,)))
    counts = np.bincount((uniform * 256).astype(int), minlength=256)
    chi2 = ((counts - NUM / 256) ** 2 / (NUM / 256)).sum()
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)  # five standard deviations
    normal = np.asarray(jax.random.normal(init_rng.key(1), (NUM,)), np.float64)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = np.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[power] / NUM)
        assert abs((normal**power).mean() - moment) < 5 * spread


def test_neighbours_keys_and_seeds_are_uncorrelated():
    keys = [
        init_rng.key(0),
        init_rng.key(1),
        *(jax.random.fold_in(init_rng.key(0), i) for i in range(6)),
        *jax.random.split(init_rng.key(0), 6),
    ]
    draws = np.stack([np.asarray(jax.random.normal(k, (NUM,)), np.float64) for k in keys])
    correlation = draws @ draws.T / NUM
    np.testing.assert_allclose(correlation, np.eye(len(keys)), atol=5 * np.sqrt(2 / NUM))
    for lag in (1, 2, 64, 512):
        lagged = (draws[0, lag:] * draws[0, :-lag]).mean()
        assert abs(lagged) < 5 / np.sqrt(NUM)


def test_every_bit_is_fair_and_flips_with_every_bit_of_the_key():
    def bits(key):
        x = np.asarray(jax.random.bits(key, (1 << 14,)))
        return (x[:, None] >> np.arange(32, dtype=np.uint32)) & 1  # [draws, 32]

    base = bits(init_rng.key(0))
    np.testing.assert_allclose(base.mean(0), 0.5, atol=5 * 0.5 / np.sqrt(1 << 14))
    for i in range(32):
        flipped = bits(jax.random.fold_in(init_rng.key(0), 1 << i if i < 31 else 3))
        np.testing.assert_allclose((flipped ^ base).mean(0), 0.5, atol=5 * 0.5 / np.sqrt(1 << 14))


def test_same_values_on_every_mesh():
    def draw():
        return jax.random.normal(init_rng.key(5), (64, 24))

    mesh = mesh_lib.make_mesh(2, 4)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", "fsdp"))
    one = jax.jit(lambda: jax.random.bits(init_rng.key(5), (64, 24)))()
    many = jax.jit(lambda: jax.random.bits(init_rng.key(5), (64, 24)), out_shardings=split)()
    np.testing.assert_array_equal(one, many)
    np.testing.assert_allclose(
        jax.jit(draw)(), jax.jit(draw, out_shardings=split)(), rtol=1e-6, atol=1e-7
    )


def test_pinned_values():
    """Another jax must not change what a seed means."""
    bits = jax.random.bits(jax.random.fold_in(init_rng.key(7), 3), (4,))
    assert bits.dtype == jnp.uint32
    np.testing.assert_array_equal(bits, PINNED)


PINNED = [4174244865, 3588869636, 2967407499, 2066919583]
