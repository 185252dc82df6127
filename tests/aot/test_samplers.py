"""Costs of sampling programs on made-up devices: each device makes its own share, alone."""

import jax
import pytest

from foley_jax.aot import cost, samplers, topology
from foley_jax.runtime import flops
from tests.mmaudio import flow_records
from tests.training import stage_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


def config_of(stage):
    return stage_config.get_config(f"{stage},nowhere")


def of(stage, devices, **options):
    return samplers.of(config_of(stage), topology.devices(f"cpu:{devices}"), **options)


def traced_flops(program):
    with program.running():
        return flops.of_jaxpr(program.jitted.trace(*program.args).jaxpr.jaxpr)


@pytest.mark.slow
def test_latent_diffusion_samples_and_decodes_alone_on_every_device():
    two = of("ldm", 2, per_chip=2, guide=config_of("alignment"))
    assert [p.name for p in two] == ["sample", "decode"]
    assert all(p.examples == 4 for p in two)
    sample = cost.of(two[0], dtype="float32")
    assert sample.parts["parameters"] > 0 and sample.num_chips == 2
    # windows do not look at each other: what devices tell each other is the finished canvas
    latents = sum(x.size * 4 for x in jax.tree.leaves(jax.eval_shape(two[0].jitted, *two[0].args)))
    sent = sum(total for _, total in sample.collectives.values())
    assert sent < 100 * latents < sample.memory_bytes


@pytest.mark.slow
def test_work_grows_with_windows_and_guidance():
    one, two, guided = (
        traced_flops(of("ldm", 1, **options)[0])
        for options in (
            {"per_chip": 2},
            {"per_chip": 4},
            {"per_chip": 2, "guide": config_of("alignment")},
        )
    )
    assert 1.9 * one < two <= 2 * one
    assert 1.5 * one < guided


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["mm_super_resolution", pytest.param("mm_diffusion", marks=pytest.mark.slow)]
)
def test_the_other_samplers(stage):
    made = cost.of(of(stage, 2, per_chip=1)[0], dtype="float32")
    assert made.examples == 2 and made.flops > 0 and made.peak_bytes > made.parts["parameters"]


@pytest.mark.slow
def test_mmaudio_follows_its_flow_alone_on_every_device():
    config = flow_records.config("nowhere")
    (program,) = samplers.of(config, topology.devices("cpu:2"), per_chip=2)
    made = cost.of(program, dtype="float32")
    assert made.examples == 4 and made.parts["parameters"] > 0
    (more,) = samplers.of(config, topology.devices("cpu:1"), per_chip=8)
    assert 1.5 * traced_flops(program) < traced_flops(more) <= 2.2 * traced_flops(program)


def test_stages_that_make_nothing():
    with pytest.raises(ValueError, match="nothing is sampled with 'cavp'; with ldm, mm_diffusion"):
        of("cavp", 1)
