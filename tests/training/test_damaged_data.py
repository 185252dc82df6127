"""A run over damaged shards: it goes on and can be continued, or says which shard stops it."""

import shutil

import pytest
import runs

from foley_jax.data import records


@pytest.fixture
def damaged(toy_data, tmp_path):
    """The toy data with the second training shard cut short."""
    folder = tmp_path / "shards"
    shutil.copytree(toy_data, folder)
    path = folder / records.shard_name("train", 1)
    path.write_bytes(path.read_bytes()[:-1000])
    return folder


@pytest.mark.slow
def test_run_on_damaged_data_resumes_bit_exact(damaged, tmp_path, caplog):
    whole, late = tmp_path / "whole", tmp_path / "late"
    runs.train(damaged, whole)
    assert "train-00001.arrayrecord cannot be read" in caplog.text
    shutil.copytree(whole, late)
    for path in (late / "checkpoints").iterdir():
        if path.name in ("8", "12"):
            shutil.rmtree(path)
    (late / "metrics.jsonl").unlink()
    runs.train(damaged, late)
    losses = runs.losses(late)
    assert min(losses) == 5 and max(losses) == 12
    everything = runs.losses(whole)
    assert losses == {step: everything[step] for step in losses}


def test_run_that_tolerates_nothing_names_the_shard(damaged, tmp_path):
    config = runs.config(damaged)
    with config.unlocked():
        config.data.max_damaged = 0
    with pytest.raises(ValueError, match="train-00001.arrayrecord has .* the index says"):
        runs.loop.train(config, tmp_path / "run")
