"""Variants for one large GPU: the paper's training, in parts that fit, or as much as fits."""

import importlib

import pytest

STAGES = {"ldm": {"accumulate"}, "mm_diffusion": {"accumulate"}, "cavp": {"batch_size", "model"}}


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_memory_asks_for_is_another(stage):
    get_config = importlib.import_module(f"configs.{stage}").get_config
    paper, one = get_config().to_dict(), get_config("h200").to_dict()
    assert {name for name in paper if paper[name] != one[name]} == STAGES[stage]
    assert one["batch_size"] % one["accumulate"] == 0


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_named_where_a_variant_is_unknown(stage):
    with pytest.raises(ValueError, match="h200"):
        importlib.import_module(f"configs.{stage}").get_config("h100")
