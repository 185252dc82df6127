"""FLOPs of a trace, against the textbook and against XLA's own count."""

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from foley_jax.runtime import chips, flops


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]


def test_matrix_products():
    x, y = shapes((5, 7), (7, 3))
    assert flops.count(jnp.dot, x, y) == 2 * 5 * 7 * 3
    x, y = shapes((4, 5, 7), (4, 7, 3))
    assert flops.count(jax.jit(jnp.matmul), x, y) == 4 * 2 * 5 * 7 * 3
    gradient = jax.grad(lambda a, b: jnp.dot(a, b).sum(), argnums=(0, 1))
    x, y = shapes((5, 7), (7, 3))
    assert flops.count(gradient, x, y) == 3 * 2 * 5 * 7 * 3


def test_a_loop_counts_as_often_as_it_runs():
    def loop(x):
        return jax.lax.scan(lambda h, _: (h @ h, None), x, length=11)[0]

    (x,) = shapes((6, 6))
    assert flops.count(loop, x) == 11 * 2 * 6**3
    assert flops.count(lambda x: jax.lax.cond(x[0, 0] > 0, loop, lambda x: x @ x, x), x) == (
        11 * 2 * 6**3
    )
    branches = jax.make_jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, loop, lambda x: x @ x, x))(x)
    assert flops.of_jaxpr(branches.jaxpr, branch=min) == 2 * 6**3


def test_what_platforms_compute_in_their_own_way_counts_as_the_default():
    def product(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    (x,) = shapes((8, 8))
    assert flops.count(product, x) == 2 * 8**3


@pytest.mark.parametrize("groups", [1, 4])
def test_convolution(groups):
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x,
            k,
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    x, k = shapes((2, 16, 16, 8), (3, 3, 8 // groups, 12))
    forward = 2 * (2 * 8 * 8 * 12) * (3 * 3 * 8 / groups)
    assert flops.count(convolve, x, k) == forward
    # each gradient multiplies what the forward pass did, but for paddings
    gradient = jax.grad(lambda x, k: convolve(x, k).sum(), argnums=(0, 1))
    assert flops.count(gradient, x, k) == pytest.approx(3 * forward, rel=0.3)


def test_what_is_computed_twice_counts_twice():
    def block(x):
        return jnp.sin(jnp.sin(x @ x) @ x)

    (x,) = shapes((8, 8))
    plain = flops.count(jax.grad(lambda x: block(x).sum()), x)
    again = flops.count(jax.grad(lambda x: jax.checkpoint(block)(x).sum()), x)
    assert plain == 6 * 2 * 8**3
    assert again == 8 * 2 * 8**3


def test_a_network_as_xla_counts_it():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(16, 32, (3, 3), padding="VALID", rngs=rngs)
            self.out = nnx.Linear(32, 16, rngs=rngs)

        def __call__(self, x):
            return self.out(self.conv(x))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    (x,) = shapes((2, 20, 20, 16))

    def run(state, x):
        return nnx.merge(graph, state)(x)

    ours = flops.count(run, state, x)
    assert ours == 2 * 2 * 18 * 18 * (9 * 16 * 32 + 32 * 16)
    compiled = jax.jit(run).lower(state, x).compile().cost_analysis()["flops"]
    assert ours == pytest.approx(compiled, rel=0.02)  # XLA counts the biases too


def test_known_and_unknown_chips():
    assert chips.find("TPU v5 lite").name == "TPU v5e"
    assert chips.find("TPU v5").name == "TPU v5p"
    assert chips.find("NVIDIA H200").hbm_bytes == 141e9
    assert chips.find("NVIDIA A100-SXM4-80GB").hbm_bytes == 80e9
    assert chips.find("NVIDIA A100-SXM4-40GB").hbm_bytes == 40e9
    assert chips.find("cpu") is None
