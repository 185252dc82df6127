"""Tests what a clip costs, stage by stage."""

import time

import jax
import jax.numpy as jnp
import pytest

from foley_jax.inference import timing


@pytest.fixture
def sleep(monkeypatch):
    """Passes seconds on a clock that nothing else moves."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_the_first_group_is_left_out_but_for_decoding(sleep):
    clock = timing.Clock()
    with clock.running():
        with clock("decode"), clock("diffusion"):
            sleep(2.0)
        clock.restart()
        with clock("diffusion"):
            sleep(1.0)
    tally = clock.tally(clips=8, warming=6, audio_s=80.0)
    assert (tally.clips, tally.counted, tally.warm) == (8, 2, True)
    assert tally.busy_s == {"diffusion": 1.0, "decode": 2.0 / 4} and tally.wall_s == 1.0


def test_without_another_group_everything_counts(sleep):
    clock = timing.Clock()
    with clock.running():
        with clock("vocoder"):
            sleep(2.0)
        clock.restart()
    tally = clock.tally(clips=3, warming=3, audio_s=1.0)
    assert (tally.counted, tally.warm) == (3, False)
    assert tally.wall_s == tally.busy_s["vocoder"] == 2.0


def test_compilation_is_told():
    clock = timing.Clock()
    with clock.running():
        jax.jit(lambda x: x + 1.0)(jnp.zeros(3))
        compiled = clock.tally(1, 1, 1.0).compile_s
        clock.restart()
        jax.jit(lambda x: x * 3.0)(jnp.zeros(3))
    jax.jit(lambda x: x * 5.0)(jnp.zeros(3))
    assert compiled > 0
    assert 0 < clock.tally(2, 1, 1.0).compile_s < clock._compiled


def test_processes_are_joined():
    tallies = [
        timing.Tally(10, 8, True, 4.0, {"diffusion": 2.0, "mux": 1.0}, 100.0, 0.5),
        timing.Tally(6, 2, True, 5.0, {"features": 1.0, "diffusion": 2.0}, 60.0, 0.0),
    ]
    made = timing.record(tallies, {"devices": "2 x cpu"})
    assert (made["clips"], made["clips_counted"], made["sound_s_per_clip"]) == (16, 10, 10.0)
    assert made["seconds_per_clip"] == {
        "wall": 0.5,
        "features": 0.1,
        "diffusion": 0.4,
        "mux": 0.1,
    }
    sums = made["busy_seconds_per_clip"]
    assert sums["all stages"] == pytest.approx(0.6)
    assert sums["without feature extraction"] == pytest.approx(0.5)
    assert sums["without vocoder"] == pytest.approx(0.6)
    assert sums["without mux"] == pytest.approx(0.5)
    assert sums["diffusion and autoencoder alone"] == pytest.approx(0.4)
    text = timing.table(made)
    assert "10 of 16 clips (first group left out), on 2 x cpu" in text
    assert "without mux" in text and "0.500" in text


def test_stages_have_names():
    with pytest.raises(ValueError, match="no stage 'encode'"), timing.Clock()("encode"):
        pass
