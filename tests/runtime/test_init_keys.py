"""Keys of initial weights: those of `nnx.Rngs`, without its cost under a trace."""

from flax import nnx
import jax
import numpy as np
import pytest
import tiny_foley

from foley_jax.layers import dense
from foley_jax.runtime import init_keys, init_rng, network
from foley_jax.training import task as task_lib


def test_weights_are_those_of_flax():
    def build(rngs):
        return nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Embed(4, 5, rngs=rngs)])

    for key in (0, init_rng.key(3)):
        ours, theirs = (build(make(key)) for make in (init_keys.WeightKeys, nnx.Rngs))
        for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (ours, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(ours[0].kernel[...].ravel()[:5], ours[1].embedding[0])


@pytest.mark.slow
def test_shapes_of_a_whole_model_come_without_weights():
    build = task_lib.resolve(tiny_foley.ldm()).build
    ours, theirs = network.shapes(build), nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    assert nnx.graphdef(ours) == nnx.graphdef(theirs)
    described = [
        [(path, leaf.shape, leaf.dtype) for path, leaf in jax.tree.leaves_with_path(nnx.state(m))]
        for m in (ours, theirs)
    ]
    assert described[0] == described[1]
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(nnx.state(ours)))


def test_shapes_draw_nothing_and_weights_do_behind_them():
    """The key that stands for none is asked for within a trace first; it must outlive it."""
    init_keys.no_weights.cache_clear()

    def build(rngs):
        return dense.dense(3, 4, rngs=rngs)

    network.shapes(build)
    traced = jax.make_jaxpr(lambda: nnx.state(build(init_keys.ShapeKeys())))()
    assert not any("random" in str(equation.primitive) for equation in traced.eqns)
    drawn = build(init_keys.WeightKeys(0))
    assert np.abs(drawn.kernel[...]).min() > 0 and np.abs(drawn.bias[...]).min() > 0


def test_tracing_a_network_does_not_read_the_trace_again_and_again(monkeypatch):
    """Returns what makes `nnx.Rngs` slow there: see `WeightKeys`."""
    asked = []
    whole = jax.core.Tracer.sharding.fget
    monkeypatch.setattr(
        jax.core.Tracer, "sharding", property(lambda self: (asked.append(1), whole(self)))
    )
    network.shapes(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    ours = len(asked)
    nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert ours == 0 and len(asked) > 0
