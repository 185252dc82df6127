"""Costs of small stages' real programs on made-up devices, and the command that prints them."""

import functools
import json

import jax
import pytest

from foley_jax.aot import __main__ as command
from foley_jax.aot import cost, programs, report, seen, topology
from foley_jax.runtime import partition
from tests.training import stage_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


def config_of(stage, *, devices, fsdp=1):
    config = stage_config.get_config(f"{stage},nowhere")
    config.batch_size = 2 * devices
    config.mesh.fsdp = fsdp
    return config


@functools.cache  # both tests of a stage want the whole parameters on eight devices
def sent(stage, devices, fsdp=1):
    """Bytes that a device sends in one training step, and what the step costs."""
    config = config_of(stage, devices=devices, fsdp=fsdp)
    program = programs.training(config, topology.devices(f"cpu:{devices}"))
    made = cost.of(program, dtype="float32")
    return sum(total for _, total in made.collectives.values()), made


@pytest.mark.slow
@pytest.mark.parametrize("stage", stage_config.MODELS)
def test_what_a_device_sends_does_not_grow_with_their_number(stage):
    """Twice the devices and the batch: gradients are summed in a ring, 2 (n - 1) / n of them."""
    alone, _ = sent(stage, 1)
    two, made = sent(stage, 2)
    eight, _ = sent(stage, 8)
    assert alone == 0 and two > 0
    gradients = made.parts["parameters"]
    # CAVP compares all clips with each other, and its norms all examples: rows of the whole batch
    # come to every device, in proportion to their number
    contrastive = stage == "cavp"
    assert 0.9 * gradients < two < (1.5 if contrastive else 1.3) * gradients  # 2 / 2 of them
    assert eight <= (4.0 if contrastive else 1.8) * two


@pytest.mark.slow
@pytest.mark.parametrize("stage", stage_config.MODELS)
def test_cut_parameters_take_less_memory_and_nothing_is_laid_out_anew(stage, capfd, monkeypatch):
    monkeypatch.setattr(partition, "FSDP_MIN_BYTES", 256)
    _, whole = sent(stage, 8)
    capfd.readouterr()
    _, cut = sent(stage, 8, fsdp=4)
    assert cut.parts["parameters"] + cut.parts["optimizer"] < 0.6 * (
        whole.parts["parameters"] + whole.parts["optimizer"]
    )
    said = capfd.readouterr().err
    assert "nvoluntary" not in said, said  # XLA: "Involuntary full rematerialization"


def test_sizes_of_parts():
    config = config_of("autoencoder", devices=4)
    program = programs.training(config, topology.devices("cpu:4"))
    state, batch = program.args
    parts = program.part_bytes()
    assert parts["parameters"] == sum(4 * x.size for x in jax.tree.leaves(state.params))
    assert parts["batch"] == sum(x.size * x.dtype.itemsize for x in batch.values()) // 4
    assert program.examples == 8


def test_batches_have_the_shapes_of_the_loop():
    config = config_of("ldm", devices=2)
    batch = programs.training(config, topology.devices("cpu:2")).args[1]
    assert batch["cavp_BLD"].shape == (4, 4, 5) and batch["audio_BPL"].shape[:2] == (4, 2)


def test_a_batch_that_does_not_divide():
    config = config_of("autoencoder", devices=4)
    config.batch_size = 6
    with pytest.raises(ValueError, match="batch_size 6 is no multiple of the 4 chips"):
        programs.training(config, topology.devices("cpu:4"))


def test_unknown_slices():
    with pytest.raises(ValueError, match="JAX_NUM_CPU_DEVICES=64"):
        topology.devices("cpu:64")
    with pytest.raises(ValueError, match="topology=v5e"):
        topology.devices("v5e-8")


def test_what_a_person_reads():
    made = cost.Cost(
        name="train",
        chip="TPU v5e",
        num_chips=8,
        examples=64,
        parts={"parameters": 2**30, "average": 0},
        peak_bytes=4 * 2**30,
        hbm_bytes=16 * 2**30,
        flops=2e12,
        memory_bytes=4e9,
        collectives={"all-reduce": (3, 1e9)},
        compute_s=0.01,
        memory_s=0.005,
        links_s=0.02,
    )
    text = report.describe(made)
    assert "parameters                    1.00 GiB a chip" in text and "average" not in text
    assert "fits, 75 % free" in text and "3 x all-reduce: 1.000 GB" in text
    assert "links-bound, at most 3200.0 examples/s" in text
    full = cost.Cost("train", "TPU v5e", 8, 64, {}, 15.5 * 2**30, 16 * 2**30)
    assert "does NOT fit, 3 % free" in report.describe(full)
    assert "the compiler refused it" in report.describe(full)


def test_refusals_of_the_compiler_are_read():
    text = "the total memory required for HLO temporaries (36.00G) exceeds available HBM (15.75G)."
    assert cost._wanted(ValueError(text)) == 36 * 2**30
    with pytest.raises(ValueError, match="another"):
        cost._wanted(ValueError("another error"))


@pytest.mark.slow
def test_results_are_kept_and_shown(tmp_path):
    costs = [cost.of(_program(), dtype="float32")]
    request = {"config": config_of("autoencoder", devices=2).to_dict(), "step": "train"}
    report.save(tmp_path / "a.json", {**request, "topology": "cpu:2"}, costs)
    of_a_size = {"file": "configs/autoencoder.py:demo", "topology": "cpu:4"}
    report.save(tmp_path / "b.json", {**request, **of_a_size}, costs)
    assert json.loads((tmp_path / "a.json").read_text())["costs"][0]["num_chips"] == 2
    table = report.markdown(report.read(tmp_path))
    assert "| autoencoder train | cpu:2 (2 chips) | 4 | 1 | 2 x 1 |" in table
    assert "| autoencoder:demo train | cpu:4 (2 chips) |" in table
    with pytest.raises(ValueError, match="holds no results"):
        report.read(tmp_path / "nowhere")


def _program():
    return programs.training(config_of("autoencoder", devices=2), topology.devices("cpu:2"))


def test_help_and_wrong_flags(capsys):
    for argv, code, shown in (
        (["aot", "--help"], 0, "--topology"),
        (["aot", "--config=configs/ldm.py:demo"], 2, "--topology is missing"),
        (["aot", "--table", "--compiler_options=fast"], 2, "'fast', expected NAME=VALUE"),
    ):
        with pytest.raises(SystemExit) as end:
            command.parse(argv)
        assert end.value.code == code
        said = capsys.readouterr()
        assert shown in said.out + said.err


@pytest.mark.slow
def test_a_step_is_run_once_where_devices_are():
    """CPUs keep no count of their memory; what the compiler says is known."""
    program = programs.training(config_of("autoencoder", devices=1), topology.devices("cpu:1"))
    says, used = seen.peak_bytes(program)
    assert says >= sum(program.part_bytes().values()) and used is None


def test_predictions_are_found_by_config_and_device(tmp_path):
    config = config_of("autoencoder", devices=1)
    made = cost.Cost("train", "H100", 1, 2, {}, 123.0, 80e9, flops=1.0)
    request = {"config": config.to_dict(), "topology": "h100:1", "step": "train"}
    report.save(tmp_path / "a.json", request, [made])
    kind = "NVIDIA H100 80GB HBM3"
    assert seen.predicted(str(tmp_path), config.to_dict(), kind) == 123.0
    assert seen.predicted(str(tmp_path), config.to_dict(), "NVIDIA H200") is None
    config.batch_size = 64
    assert seen.predicted(str(tmp_path), config.to_dict(), kind) is None
    assert seen.predicted(str(tmp_path / "nothing"), config.to_dict(), kind) is None
