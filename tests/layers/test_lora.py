"""Adapters: they begin as nothing, and merged they compute the same."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.layers import conv, dense, lora, transformer
from foley_jax.training import paths


class Net(nnx.Module):
    """Every kind of layer that is adapted, and a list of them."""

    def __init__(self, *, rngs, dtype=jnp.float32):
        self.first = conv.Conv1d(3, 8, 5, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([dense.dense(8, 8, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.ff = transformer.GatedFeedForward(8, dtype=dtype, rngs=rngs)
        self.last = dense.dense(8, 2, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = jax.nn.silu(block(x))
        return self.last(self.ff(x))


X = np.random.default_rng(0).standard_normal((2, 9, 3)).astype(np.float32)


def adapted(targets=("*",), **options):
    """Filled, the factors too; and the names of the adapted layers."""
    names = []

    def build(rngs):
        model = Net(rngs=rngs, **options)
        names[:] = lora.adapt(model, targets, rank=2, alpha=3.0, rngs=rngs)
        return model

    return filled.module(build), names


def leaves_of(model):
    return paths.flatten(nnx.to_pure_dict(nnx.state(model)))


def output(model, leaves):
    """Of a model with other leaves."""
    graphdef, _ = nnx.split(model)
    made = filled.jit(lambda leaves: nnx.merge(graphdef, paths.nest(leaves))(X))(leaves)
    return np.asarray(made, np.float64)


def test_new_adapters_change_nothing_and_leave_the_paths():
    base, (model, names) = filled.module(lambda rngs: Net(rngs=rngs)), adapted()
    assert names == ["blocks.0", "blocks.1", "ff.proj_in", "ff.proj_out", "first", "last"]
    had, has = leaves_of(base), leaves_of(model)
    assert {path for path in has if not lora.is_adapter(path)} == set(had)
    assert {path.rpartition("/")[0].replace("/", ".") for path in set(has) - set(had)} == set(names)
    assert has["first/lora_a"].shape == (5, 3, 2) and has["first/lora_b"].shape == (2, 8)
    new = {
        path: 0 * leaf if path.endswith(lora.B) else leaf for path, leaf in {**has, **had}.items()
    }
    np.testing.assert_array_equal(output(model, new), output(base, had))


def test_b_begins_as_zeros_and_a_does_not():
    layer = nnx.Dict(one=nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    lora.adapt(layer, "one", rank=2, alpha=1.0, rngs=nnx.Rngs(1))
    assert not layer.one.lora_b[...].any() and layer.one.lora_a[...].all()


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)])
def test_merged_equals_unmerged(dtype, bound):
    """To the rounding of the compute type; the factors change the output as much as it is."""
    model = adapted(dtype=dtype)[0]
    leaves = leaves_of(model)
    base = filled.module(lambda rngs: Net(rngs=rngs, dtype=dtype))
    want, got = output(model, leaves), output(base, lora.merged(leaves, 1.5))
    plain = output(base, {path: leaves[path] for path in leaves_of(base)})
    assert np.linalg.norm(got - want) < bound * np.linalg.norm(want)
    assert np.linalg.norm(got - plain) > 0.5 * np.linalg.norm(plain)


def test_factors_have_gradients_all_of_them():
    graphdef, params, rest = nnx.split(adapted()[0], lora.Adapter, ...)
    loss = lambda params: jnp.square(nnx.merge(graphdef, params, rest)(X)).mean()  # noqa: E731
    grads = paths.flatten(nnx.to_pure_dict(filled.jit(jax.grad(loss))(params)))
    assert all(map(lora.is_adapter, grads)) and len(grads) == 12
    assert all(np.isfinite(g).all() and np.any(g) for g in grads.values())


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("blocks.*, last", ["blocks.0", "blocks.1", "last"]),
        (("*.proj_in",), ["ff.proj_in"]),
        (("f*",), ["ff.proj_in", "ff.proj_out", "first"]),
    ],
)
def test_targets_are_globs_of_whole_paths(targets, names):
    assert adapted(targets)[1] == names


def test_what_cannot_be_adapted_is_refused():
    def adapt(targets, rank=1, chosen=lambda path, kernel: True):
        def build(rngs):
            model = Net(rngs=rngs)
            lora.adapt(model, targets, rank=rank, alpha=1.0, rngs=rngs, chosen=chosen)
            return model

        filled.module(build)

    with pytest.raises(ValueError, match="'block' names no linear layer.*it has blocks.0, blocks"):
        adapt(("*", "block"))
    with pytest.raises(ValueError, match="rank of an adapter is 0"):
        adapt("*", rank=0)
    with pytest.raises(ValueError, match="names no linear layer"):
        adapt("last", chosen=lambda path, kernel: path[0] != "last")
