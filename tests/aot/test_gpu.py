"""Programs for NVIDIA GPUs that are not there: every stage and sampler in small, and their texts.

What compiles is skipped without XLA's plugin for GPUs (the extra gpu-aot); CI has an environment
with it.
"""

import re

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import pytest

from foley_jax.aot import cost, gpu, gpu_program, programs, report, samplers, topology
from foley_jax.kernels import dispatch
from foley_jax.kernels.gpu import attention
from foley_jax.runtime import chips, flops
from foley_jax.runtime import mesh as mesh_lib
from tests.mmaudio import flow_records
from tests.training import stage_config

compiles = pytest.mark.skipif(
    not gpu.installed(), reason="XLA's compiler for GPUs is missing; see foley_jax/aot/README.md"
)


@pytest.fixture(autouse=True)
def _no_programs_kept():
    """Those for absent devices can be written to JAX's cache of programs, but not read."""
    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", kept)


@pytest.mark.parametrize("card", gpu.cards())
def test_cards_are_chips_whose_peak_rates_we_know(card):
    """The compiler and the roofline have the same card in mind, though they are told apart."""
    chip = chips.find(gpu.device_kind(card))
    bandwidth = float(re.search(r"memory_bandwidth: (\d+)", gpu.target(card))[1])
    assert bandwidth == pytest.approx(chip.hbm_bandwidth, rel=0.002)
    # makers count 10^9 or 2^30 bytes, and a driver keeps some
    memory = gpu.memory_bytes(gpu.device_kind(card))
    assert 0.96 * chip.hbm_bytes < memory < 1.08 * chip.hbm_bytes


def test_other_cards_have_other_names():
    assert chips.find("NVIDIA L40S") is None
    assert chips.find("NVIDIA L4").name == "L4"
    assert gpu.memory_bytes("NVIDIA L40S") == 0.0


def test_names_of_topologies():
    assert gpu.size("h100:8") == ("h100", 1, 8)
    assert gpu.size("a100-80:2x8") == ("a100-80", 2, 8)
    assert not any(gpu.is_gpu(name) for name in ("v5e:2x4", "v4:2x2x1", "v6e:4x4", "cpu:8"))
    assert topology.one_host("h100:2x8", []) == "h100:8"
    with pytest.raises(ValueError, match="h100:GPUS or h100:HOSTSxGPUS"):
        topology.devices("h100:0x8")
    with pytest.raises(ValueError, match="'b200' among a100-40, .*, rtx4090, each as CARD:GPUS"):
        topology.devices("b200:8")


def test_a_missing_plugin_is_one_line(monkeypatch):
    monkeypatch.setattr(gpu, "installed", lambda: False)
    with pytest.raises(ValueError, match="pip install --no-deps jax-cuda12-pjrt==") as error:
        topology.devices("h100:1")
    assert "\n" not in str(error.value)


TEXT = """HloModule jit_f

%fused_slice (p0: f32[8,1024], p1: s32[], p2: f32[1024]) -> f32[1024] {
  %p0 = f32[8,1024]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[1024]{0} parameter(2)
  %slice.1 = f32[1,1024]{1,0} dynamic-slice(%p0, %p1), dynamic_slice_sizes={1,1024}
  %flat.1 = f32[1024]{0} bitcast(%slice.1)
  ROOT %sum.1 = f32[1024]{0} add(%flat.1, %p2)
}

%fused_update (q0: f32[8,1024], q1: f32[1024], q2: s32[]) -> f32[8,1024] {
  %q0 = f32[8,1024]{1,0} parameter(0)
  %q1 = f32[1024]{0} parameter(1)
  %q2 = s32[] parameter(2)
  %row.1 = f32[1,1024]{1,0} bitcast(%q1)
  ROOT %update.1 = f32[8,1024]{1,0} dynamic-update-slice(%q0, %row.1, %q2)
}

%naive (r0: f32[32,32]) -> f32[32,32] {
  %r0 = f32[32,32]{1,0} parameter(0)
  ROOT %dot.1 = f32[32,32]{1,0} dot(%r0, %r0), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (p: (s32[], f32[8,1024], f32[1024])) -> (s32[], f32[8,1024], f32[1024]) {
  %p = (s32[], f32[8,1024]{1,0}, f32[1024]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %all = f32[8,1024]{1,0} get-tuple-element(%p), index=1
  %x = f32[1024]{0} get-tuple-element(%p), index=2
  %loop_add_fusion.3 = f32[1024]{0} fusion(%all, %i, %x), kind=kLoop, calls=%fused_slice
  %loop_update_fusion = f32[8,1024]{1,0} fusion(%all, %loop_add_fusion.3, %i), kind=kLoop, \
calls=%fused_update
  ROOT %t = (s32[], f32[8,1024]{1,0}, f32[1024]{0}) tuple(%i, %loop_update_fusion, \
%loop_add_fusion.3)
}

%less (p.1: (s32[], f32[8,1024], f32[1024])) -> pred[] {
  %p.1 = (s32[], f32[8,1024]{1,0}, f32[1024]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (start: (s32[], f32[8,1024], f32[1024]), w: f32[32,32]) -> f32[32,32] {
  %start = (s32[], f32[8,1024]{1,0}, f32[1024]{0}) parameter(0)
  %loop = (s32[], f32[8,1024]{1,0}, f32[1024]{0}) while(%start), condition=%less, body=%body, \
metadata={op_name="jit(f)/while"}, backend_config={"known_trip_count":{"n":"8"}}
  %w = f32[32,32]{1,0} parameter(1)
  %gemm = (f32[32,32]{1,0}, s8[4194304]{0}) custom-call(%w, %w), \
custom_call_target="__cublas$lt$matmul"
  %y = f32[32,32]{1,0} get-tuple-element(%gemm), index=0
  ROOT %loop_dot_fusion = f32[32,32]{1,0} fusion(%y), kind=kLoop, calls=%naive
}
"""


def test_traffic_of_a_text():
    """Of stacked arrays a loop moves one slice at a time; scratch memory is nobody's traffic."""
    program = gpu_program.Program(TEXT)
    row, weight = 4 * 1024, 4 * 32 * 32
    assert program.kinds() == {
        "fusion loop_add": (8, 8 * (3 * row + 4)),
        "fusion loop_update": (8, 8 * (2 * row + 4)),
        "cublas lt matmul": (1, 3 * weight),
        "fusion loop_dot": (1, 2 * weight),
    }
    assert program.loops() == [("jit(f)/while", 1, 8)]
    assert program.without_library() == {"dot": 1}
    assert program.heaviest(1) == [("fusion loop_add", "", 8 * (3 * row + 4))]


def shape(devices, *sizes):
    mesh = Mesh(devices, ("data",))
    place = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(sizes, jnp.bfloat16, sharding=place)


@compiles
def test_traffic_of_a_known_program():
    """One matrix product and a sum: cuBLAS reads both operands and writes the result, no more."""
    devices = topology.devices("h100:1")
    x, w = shape(devices, 512, 256), shape(devices, 256, 1024)
    compiled = jax.jit(lambda x, w: x @ w).lower(x, w).compile(compiler_options=gpu.OPTIONS)
    kinds = gpu_program.Program(compiled.as_text()).kinds()
    assert kinds == {"cublas lt matmul": (1, 2.0 * (512 * 256 + 256 * 1024 + 512 * 1024))}


@compiles
@pytest.mark.skipif(
    not attention.installed(), reason="cuDNN is missing, whose version JAX asks for"
)
@pytest.mark.parametrize("count", [1, 8])
def test_attention_keeps_its_logits_on_the_chip(count):
    """cuDNN computes it, on every GPU for its own examples, forwards and backwards."""
    mesh = mesh_lib.make_mesh(devices=topology.devices(f"h100:{count}"))
    q = jax.ShapeDtypeStruct((8, 256, 4, 40), jnp.bfloat16, sharding=mesh_lib.batch(mesh))

    def loss(q, k, v):
        return dispatch.attention(q, k, v).astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, q, q)
        text = traced.lower().compile(compiler_options=gpu.OPTIONS).as_text()
    kinds = gpu_program.Program(text).kinds()
    assert kinds["cudnn fmhaSoftmax"][0] == kinds["cudnn fmhaSoftmaxBackward"][0] == 1
    moved, each = sum(total for _, total in kinds.values()), 2 * 256 * 4 * 40 * 8 // count
    assert moved < 16 * each  # logits alone would be 256 / 40 of it each time
    assert not gpu_program.Program(text).module.collectives()
    # two products forwards; backwards four, and the logits again
    assert flops.of_jaxpr(traced.jaxpr.jaxpr) == 7 * 2 * 8 * 4 * 256 * 256 * 40


@compiles
@pytest.mark.skipif(
    not attention.installed(), reason="cuDNN is missing, whose version JAX asks for"
)
@pytest.mark.parametrize("lengths", [(391, 391), (256, 77)])
def test_attention_of_odd_lengths_has_gradients(lengths):
    """MMAudio's 250 latents, 64 frames and 77 tokens: JAX refuses these where it trains."""
    mesh = mesh_lib.make_mesh(devices=topology.devices("h100:1"))
    q, k = (
        jax.ShapeDtypeStruct((8, length, 7, 64), jnp.bfloat16, sharding=mesh_lib.batch(mesh))
        for length in lengths
    )

    def loss(q, k, v):
        return dispatch.attention(q, k, v).astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        for fn, calls in ((loss, (1, 0)), (jax.grad(loss, (0, 1, 2)), (1, 1))):
            traced = jax.jit(fn).trace(q, k, k)
            text = traced.lower().compile(compiler_options=gpu.OPTIONS).as_text()
            kinds = gpu_program.Program(text).kinds()
            found = (kinds.get(f"cudnn fmhaSoftmax{way}", (0,))[0] for way in ("", "Backward"))
            assert tuple(found) == calls


def compiled(program):
    made = cost.of(program, dtype="bfloat16")
    assert made.chip == "H100" and made.flops > 0 and made.memory_bytes > 0
    told = made.memory
    assert told["temporary"] > 0 and told["arguments"] > 0
    assert made.peak_bytes == sum(told.values()) - 2 * told["aliased"]
    text = report.describe(made, heaviest=2)
    assert "nothing was autotuned" in text and "+ temporary" in text
    return made


@compiles
@pytest.mark.parametrize("stage", stage_config.MODELS)
def test_every_stage_compiles(stage):
    config = stage_config.get_config(f"{stage},nowhere")
    config.dtype = "bfloat16"
    made = compiled(programs.training(config, topology.devices("h100:1")))
    assert made.memory["arguments"] >= sum(made.parts.values())
    assert any(kind.startswith("cudnn conv") for kind in made.kinds)
    assert not made.collectives


@compiles
def test_two_hosts_of_gpus_sum_their_gradients():
    config = stage_config.get_config("autoencoder,nowhere")
    config.batch_size = 16
    made = compiled(programs.training(config, topology.devices("h100:2x8")))
    assert made.num_chips == 16
    sent = sum(total for _, total in made.collectives.values())
    assert sent > 1.8 * made.parts["parameters"]  # a ring of 16


@compiles
def test_mmaudio_trains_and_samples():
    config, devices = flow_records.config("nowhere", dtype="bfloat16"), topology.devices("h100:1")
    for program in (programs.training(config, devices), *samplers.of(config, devices, per_chip=2)):
        compiled(program)


@compiles
@pytest.mark.parametrize("stage", sorted(samplers.PER_CHIP.keys() - {"mmaudio"}))
def test_every_sampler_compiles(stage):
    guide = stage_config.get_config("alignment,nowhere") if stage == "ldm" else None
    config = stage_config.get_config(f"{stage},nowhere")
    config.dtype = "bfloat16"
    for program in samplers.of(config, topology.devices("h100:1"), guide=guide, per_chip=2):
        compiled(program)
