"""Reading compiled programs: collectives, loops and traffic, on programs whose costs are known."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import pytest

from foley_jax.aot import hlo
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition

N, K, TIMES, ROWS = 256, 128, 5, 16
WEIGHT = N * K * 4


@pytest.fixture(scope="module")
def looped():
    """A gradient, five times in a loop, on 2 x 4 devices with a weight cut in four."""
    mesh = mesh_lib.make_mesh(2, 4)

    def loop(w, x):
        def body(total, x):
            return total + jax.grad(lambda w: jnp.sin(x @ w).sum())(w), None

        return jax.lax.scan(body, jnp.zeros_like(w), x)[0]

    cut, batch = NamedSharding(mesh, P("fsdp")), NamedSharding(mesh, P(None, partition.AXES))
    w = jax.ShapeDtypeStruct((N, K), jnp.float32, sharding=cut)
    x = jax.ShapeDtypeStruct((TIMES, ROWS, N), jnp.float32, sharding=batch)
    with jax.set_mesh(mesh):
        return jax.jit(loop, out_shardings=cut).lower(w, x).compile()


def test_collectives_count_as_often_as_they_run(looped):
    found = hlo.Module(looped.as_text()).collectives()
    # the weight is gathered before the loop; in it the gradient is summed over the four that
    # share the weight, and, when every one has kept its quarter, over the two groups
    assert {(c.kind, c.bytes, c.group, c.count) for c in found} == {
        ("all-gather", WEIGHT, 4, 1),
        ("all-reduce", WEIGHT, 4, TIMES),
        ("all-reduce", WEIGHT // 4, 2, TIMES),
    }


def test_bytes_of_the_ring():
    def sent(kind, group):
        return hlo.Collective(kind, 1000, group, 3).sent

    assert sent("all-gather", 4) == sent("reduce-scatter", 4) == 3 * 750
    assert sent("all-reduce", 4) == 2 * 3 * 750
    assert sent("collective-permute", 1) == 3000


def test_traffic_is_xlas_but_for_the_loop(looped):
    module = hlo.Module(looped.as_text())
    once = module.traffic(loops=False)
    assert once == pytest.approx(looped.cost_analysis()["bytes accessed"], rel=0.15)
    assert 3 * once < module.traffic() < TIMES * once


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, to_apply=%add", 3),
        ("replica_groups=[4,2]<=[8], dimensions={0}", 2),
        ("replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}", 4),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}", 8),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'a','b'}", 8),
        ("dimensions={0}", 1),
    ],
)
def test_groups_in_every_notation(text, size):
    assert hlo.group_size(text) == size


TPU = """HloModule jit_f

%all-reduce-scatter.1 (input.2: bf16[4096,4096]) -> bf16[512,4096] {
  %input.2 = bf16[4096,4096]{1,0} parameter(0)
  ROOT %all-reduce.5 = bf16[4096,4096]{1,0:T(8,128)(2,1)} all-reduce(%input.2), channel_id=4, \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}

%less (p: (s32[], f32[1024])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %p = (s32[]{:T(128)}, f32[1024]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (p: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %p = (s32[]{:T(128)}, f32[1024]{0}) parameter(0)
  %x = f32[1024]{0} get-tuple-element(%p), index=1
  %y = f32[1024]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %t = (s32[]{:T(128)}, f32[1024]{0}) tuple(%i, %y)
}

ENTRY %main (w: bf16[512,4096]) -> bf16[512,4096] {
  %start = (s32[]{:T(128)}, f32[1024]{0}) parameter(1)
  %loop = (s32[]{:T(128)}, f32[1024]{0}) while(%start), condition=%less, body=%body
  %w = bf16[512,4096]{1,0:T(8,128)(2,1)} parameter(0)
  %gather = bf16[4096,4096]{1,0:T(8,128)(2,1)S(1)} all-gather(%w), \
replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %fusion.27 = bf16[512,4096]{1,0:T(8,128)(2,1)} fusion(%gather), kind=kCustom, \
calls=%all-reduce-scatter.1, metadata={op_name="jit(f)/dot_general"}
}
"""


def test_notations_of_tpus():
    """On-chip memory, a loop's limit, a reduction of which a part is kept as one instruction."""
    module = hlo.Module(TPU)
    whole = 4096 * 4096 * 2
    assert {(c.kind, c.bytes, c.group, c.count) for c in module.collectives()} == {
        ("all-gather", whole, 8, 1),
        ("reduce-scatter", whole, 8, 1),
        ("collective-permute", 4096, 1, 7),
    }
    # read: the own part; written: the result. What is gathered stays on the chip
    assert module.traffic(loops=False) == 2 * whole // 8 + 2 * 4096 + 9
    assert module.traffic() == 2 * whole // 8 + 7 * (2 * 4096 + 9)
    assert "jit(f)/dot_general" in {one.scope for one, _ in module.traffic_by_instruction()}
