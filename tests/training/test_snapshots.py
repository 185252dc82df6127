"""Averages kept by the loop: they go on bit for bit, and others are made of them afterwards."""

import jax
import numpy as np
import pytest
import runs

from foley_jax.training import loop, paths, power_ema, snapshots
from foley_jax.training.checkpointing import checkpoint, run_directory

SIGMAS = power_ema.SIGMAS


def config(data, **fields):
    made = runs.config(data, ema_decay=0.0, eval_batches=0, **fields)
    made.power_ema = {"sigmas": SIGMAS, "snapshot_steps": 3}
    return made


@pytest.mark.slow
def test_averages_go_on_and_give_others(toy_data, tmp_path, one_device, monkeypatch):
    weights = [None]  # after every update
    update = loop.Run._update

    def noted(run, number):
        update(run, number)
        weights.append(jax.device_get(paths.flatten(run.state.params)))

    monkeypatch.setattr(loop.Run, "_update", noted)
    whole = jax.device_get(loop.train(config(toy_data), tmp_path / "whole"))

    def average(sigma, end=12):
        mean = weights[1]
        for u in range(2, end + 1):
            share = power_ema.taken(u, power_ema.gamma_of(sigma))
            mean = power_ema.updated(mean, weights[u], share)
        return mean

    for sigma, kept in zip(SIGMAS, (whole.ema, *whole.averages), strict=True):
        for name, leaf in paths.flatten(kept).items():
            np.testing.assert_allclose(leaf, average(sigma)[name], atol=1e-6)

    # stopped behind a snapshot that is later than the newest checkpoint
    parts = tmp_path / "parts"
    first = config(toy_data, checkpoint__every_steps=4)
    monkeypatch.setattr(loop.Run, "_update", _stopping(update, 8))
    with pytest.raises(KeyboardInterrupt):
        loop.train(first, parts)
    monkeypatch.setattr(loop.Run, "_update", update)
    again = jax.device_get(loop.train(first, parts))
    for name, leaf in paths.flatten(whole).items():
        np.testing.assert_array_equal(leaf, paths.flatten(again)[name], err_msg=name)
    for run in ("whole", "parts"):
        folder = tmp_path / run / snapshots.FOLDER
        store = checkpoint.Checkpoints(folder, read_only=True)
        assert store.steps() == [3, 6, 9, 12]
        store.close()

    # what was kept comes out as it is; a new length is their sum by weights that have goldens
    for end in (9, 12):
        made = snapshots.synthesise(parts, 0.05, step=end)
        for name, leaf in made.items():
            np.testing.assert_allclose(leaf, average(0.05, end)[name], atol=1e-6)
    snapshots.main([str(parts), str(tmp_path / "out"), "--sigma_rel=0.08"])
    _, params, rest = run_directory.load_model_state(tmp_path / "out")
    which = [(end, sigma) for end in (3, 6, 9, 12) for sigma in SIGMAS]
    gammas = [power_ema.gamma_of(sigma) for _, sigma in which]
    shares = power_ema.synthesis_weights(
        [t for t, _ in which], gammas, 12, power_ema.gamma_of(0.08)
    )
    for name, leaf in paths.flatten(params).items():
        want = sum(w * average(sigma, end)[name] for w, (end, sigma) in zip(shares, which))
        np.testing.assert_allclose(leaf, want, atol=3e-6, err_msg=name)
    assert rest["frozen"]["kernel"].shape == (4, 4)


def _stopping(update, last):
    def stopping(run, number):
        if number == last:
            run.checkpoints.wait()
            run.snapshots.wait()
            raise KeyboardInterrupt
        update(run, number)

    return stopping


def test_averages_of_two_kinds_are_refused(toy_data, tmp_path):
    both = config(toy_data)
    both.ema_decay = 0.9
    with pytest.raises(ValueError, match="power_ema.sigmas is .* and config.ema_decay 0.9"):
        power_ema.sigmas_of(both)
    with pytest.raises(FileNotFoundError, match="no snapshots of averages; train with --config"):
        snapshots.synthesise(tmp_path, 0.05)
