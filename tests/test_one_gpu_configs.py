"""Variants for one GPU: the paper's training, in parts that fit, or as much as fits."""

import importlib

import pytest

from foley_jax.aot import cost, gpu, programs, topology

STAGES = ("ldm", "mm_diffusion", "cavp")
CARDS = ("h100", "h200", "rtx4090")
MEMORY = {"accumulate", "batch_size", "model"}  # what memory may ask to be another


def config_of(stage, arg=""):
    return importlib.import_module(f"configs.{stage}").get_config(arg)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("stage", STAGES)
def test_only_what_memory_asks_for_is_another(stage, card):
    paper, one = config_of(stage).to_dict(), config_of(stage, card).to_dict()
    changed = {name for name in paper if paper[name] != one[name]}
    assert changed <= MEMORY and (changed or card == "h200")
    assert one["batch_size"] % one["accumulate"] == 0
    # a card that holds a part of the paper's batch trains with the paper's batch; one that holds
    # all of it has nothing to change
    assert one["accumulate"] == 1 or one["batch_size"] == paper["batch_size"]


@pytest.mark.parametrize("stage", STAGES)
def test_they_are_named_where_a_variant_is_unknown(stage):
    with pytest.raises(ValueError, match="'h100', 'h200', 'rtx4090'"):
        config_of(stage, "b200")


@pytest.mark.slow
@pytest.mark.skipif(not gpu.installed(), reason="XLA's compiler for GPUs is missing")
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("stage", STAGES)
def test_they_fit_their_cards(stage, card):
    """With 8 % to spare, by the compiler's own count; minutes each."""
    config = config_of(stage, card)
    made = cost.of(programs.training(config, topology.devices(f"{card}:1")), dtype=config.dtype)
    assert made.fits, f"{made.peak_bytes / 2**30:.1f} of {made.hbm_bytes / 2**30:.1f} GiB"
