"""Mesh, shape rule, activation pin and host-to-global arrays on eight fake devices."""

import os
import threading
import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.runtime import distributed, network, partition
from foley_jax.runtime import mesh as mesh_lib

P = jax.sharding.PartitionSpec


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((-1, 1), (8, 1)), ((-1, 4), (2, 4)), ((2, -1), (2, 4)), ((8, 1), (8, 1))],
)
def test_mesh_shape(sizes, shape):
    mesh = mesh_lib.make_mesh(*sizes)
    assert tuple(mesh.shape.items()) == (("data", shape[0]), ("fsdp", shape[1]))
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("sizes", [(3, 1), (-1, 3), (-1, -1), (0, 8), (4, 4)])
def test_mesh_that_does_not_fit_is_refused(sizes):
    with pytest.raises(ValueError, match="does not fit 8 devices; use data=-1"):
        mesh_lib.make_mesh(*sizes)


@pytest.mark.parametrize(
    ("shape", "fsdp", "spec"),
    [
        ((3, 3, 1280, 2560), 4, P(None, None, None, "fsdp")),
        ((2560, 1280), 4, P("fsdp", None)),
        ((1300, 1026), 4, P("fsdp", None)),  # 1026 is not divisible
        ((1027, 1301), 4, P()),
        ((1024, 1024), 4, P()),  # exactly 4 MiB stays whole
        ((1024, 1028), 4, P(None, "fsdp")),
        ((4096, 4096), 1, P()),
        ((), 4, P()),
    ],
)
def test_parameter_rule(shape, fsdp, spec):
    assert partition.parameter_spec(shape, 4, fsdp) == spec


def test_state_memory_is_divided():
    mesh = mesh_lib.make_mesh(2, 4)
    tree = {"kernel": jnp.ones((64, 8)), "bias": jnp.ones((8,))}
    shardings = partition.state_shardings(tree, mesh, min_bytes=64)
    placed = jax.device_put(tree, shardings)
    assert placed["kernel"].addressable_shards[0].data.shape == (16, 8)
    assert placed["bias"].addressable_shards[0].data.shape == (8,)


def test_shard_batch_pins_under_a_mesh_and_is_nothing_without():
    x = jnp.ones((16, 3))
    assert jax.jit(partition.shard_batch)(x).sharding.num_devices == 1
    with jax.set_mesh(mesh_lib.make_mesh(2, 4)):
        pinned = jax.jit(lambda x: partition.shard_batch(x * 2))(x)
        odd = jax.jit(lambda x: partition.shard_batch(x * 2))(x[:3])
        gradient = jax.jit(jax.grad(lambda x: partition.shard_batch(x**2).sum()))(x)
    assert pinned.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(pinned, 2 * x)
    np.testing.assert_array_equal(odd, 2 * x[:3])
    np.testing.assert_array_equal(gradient, 2 * x)


@pytest.mark.parametrize(("platform", "fsdp"), [("tpu", 8), ("tpu", 1), ("cpu", 8)])
def test_options_are_for_parameters_cut_over_tpus(platform, fsdp):
    devices = np.array([types.SimpleNamespace(platform=platform)])
    mesh = types.SimpleNamespace(shape={"fsdp": fsdp}, devices=devices)
    assert bool(mesh_lib.compiler_options(mesh)) == (platform == "tpu" and fsdp > 1)


def test_global_batch_keeps_rows_in_order():
    mesh = mesh_lib.make_mesh(4, 2)
    rows = np.arange(48, dtype=np.int16).reshape(16, 3)
    placed = distributed.global_batch({"a": rows, "b": rows[:, 0]}, mesh)
    np.testing.assert_array_equal(placed["a"], rows)
    assert placed["a"].dtype == np.int16
    assert placed["b"].addressable_shards[0].data.shape == (2,)
    with pytest.raises(ValueError, match="batch of 12 cannot be split over 8 devices"):
        distributed.global_batch({"a": rows[:12]}, mesh)


def test_place_gives_every_device_its_part():
    mesh = mesh_lib.make_mesh(2, 4)
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    placed = distributed.make_global(x, jax.sharding.NamedSharding(mesh, P(None, "fsdp")))
    np.testing.assert_array_equal(placed, x)
    assert placed.addressable_shards[0].data.shape == (4, 2)


def test_local_mesh_is_asked_for_on_a_cpu():
    assert mesh_lib.local_mesh() is None and mesh_lib.local_mesh(1) is None
    assert mesh_lib.local_mesh(4).devices.tolist() == [[d] for d in jax.local_devices()[:4]]
    with pytest.raises(ValueError, match="9 devices are asked for, this process has 8"):
        mesh_lib.local_mesh(9)


def test_networks_compute_on_their_mesh_alone():
    linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    alone = network.Network.of(linear)
    shared = alone.on(mesh_lib.local_mesh(4))
    assert alone.on(None) is alone

    def run(model, x):
        return model(partition.shard_batch(x))

    made = shared.jit(run)(x)
    assert made.sharding.num_devices == 4 and made.addressable_shards[0].data.shape == (2, 2)
    np.testing.assert_allclose(made, alone.jit(run)(x), atol=1e-6)
    both = network.jit_pair(lambda one, two, x: run(one, x) + run(two, x), shared, shared)
    np.testing.assert_allclose(both(x), 2 * made, atol=1e-6)


def test_half_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(ValueError, match="is set but 'JAX_NUM_PROCESSES' is not"):
        distributed.join_processes()


@pytest.mark.parametrize("others_come", [True, False])
def test_a_process_that_failed_alone_does_not_wait_for_ever(monkeypatch, others_come):
    ended, free = [], threading.Event()
    monkeypatch.setattr(os, "_exit", ended.append)
    distributed.end_alone(3)  # no other processes
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax.distributed, "shutdown", (lambda: None) if others_come else free.wait)
    distributed.end_alone(3, patience_s=0.05)
    free.set()
    assert ended == ([] if others_come else [3])
