"""Tests that every stage has the same losses on 1, 2 and 4 processes.

Real processes, fake devices. Two stages stand for all in CI; `-m by_hand` runs the others.
"""

import forked
import numpy as np
import pytest
import runs
import stage_config

from foley_jax.data import records

DEVICES = 4  # in all
# the loss that compares the whole batch, and one of the others; test_kills.py and test_resume.py do
# the same for the toy task
IN_CI = {"cavp": (1, 2, 4), "ldm": (1, 2)}


def make_set(folder, fps, side, rate):
    """40 records of three seconds of noise, with rows as if of an encoder."""
    rng = np.random.default_rng(0)
    frames = round(3 * fps)
    with records.ShardWriter(folder, "train", 0) as writer:
        for number in range(40):
            images = rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
            writer.add(
                records.Clip(
                    id=f"train/{number}",
                    split="train",
                    labels=[],
                    source=f"{number}.mp4",
                    start_s=0.0,
                    end_s=3.0,
                    fps=fps,
                    frames=records.encode_frames(images),
                    audio=rng.integers(-9000, 9000, 3 * rate).astype(np.int16),
                    sample_rate_hz=rate,
                    cavp_TD=rng.standard_normal((frames, 5)).astype(np.float16),
                )
            )
    index = records.Index(fps, side, side, rate, (writer.info,), cavp_dim=5)
    records.write_index(folder, index)


def differences(stage, folder, counts):
    """Largest relative difference of a loss from one process's, by number of processes."""
    data = folder / "data"
    data.mkdir()
    make_set(data, *stage_config.sets(stage))
    losses = {}
    for count in counts:
        workdir = folder / f"of_{count}"
        workdir.mkdir()
        config = forked.HERE / "stage_config.py"
        command = [f"--config={config}:{stage},{data}", f"--workdir={workdir}"]
        forked.finish(
            forked.start_together(command, workdir, count=count, devices=DEVICES // count),
            timeout=600,
        )
        losses[count] = runs.losses(workdir)
        assert sorted(losses[count]) == list(range(1, stage_config.STEPS + 1))
    one = losses[1]
    assert len(set(one.values())) == len(one) and np.isfinite(list(one.values())).all()
    return {
        count: max(abs(losses[count][step] - one[step]) / abs(one[step]) for step in one)
        for count in counts
    }


def assert_same_losses(stage, folder, counts):
    worst = differences(stage, folder, counts)
    print(f"{stage}: " + ", ".join(f"{n} processes {value:.1e}" for n, value in worst.items()))
    assert max(worst.values()) <= 1e-5, worst


@pytest.mark.slow
@pytest.mark.parametrize("stage", sorted(IN_CI))
def test_losses_do_not_depend_on_the_processes(stage, tmp_path):
    assert_same_losses(stage, tmp_path, IN_CI[stage])


@pytest.mark.by_hand
@pytest.mark.parametrize("stage", sorted(stage_config.MODELS))
def test_losses_of_every_stage_do_not_depend_on_the_processes(stage, tmp_path):
    assert_same_losses(stage, tmp_path, (1, 2, 4))
