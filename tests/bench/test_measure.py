"""Turns, ratios, comparison and memory of a measurement, without any network."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.bench import case, measure, peak


def program(size=8, **options):
    x = jnp.arange(float(size * size)).reshape(size, size)
    return case.Program(jax.jit(lambda x: x @ x), (x,), **options)


def of(peers, ours=None, tolerance=1e-3):
    ours = program() if ours is None else ours
    return case.Case("suite", "name", "tiny", ours, 2, "thing", peers, tolerance)


def peer(change=0.0, seconds=0.0, log=None, name="peer"):
    x = np.arange(64.0).reshape(8, 8)

    def call():
        if log is not None:
            log.append(name)
        time.sleep(seconds)
        return x @ x + change

    return case.Peer(call, lambda output: output)


def test_a_slow_peer_gives_a_small_ratio_and_a_fast_one_a_large():
    slow = measure.run(of({"slow": peer(seconds=0.02)}), repeats=3).peers["slow"]
    assert slow.times.median_s >= 0.02
    assert slow.ratio < 0.5
    assert slow.ratio_low <= slow.ratio <= slow.ratio_high

    class Slow(case.Program):
        def __call__(self):
            time.sleep(0.02)
            return super().__call__()

    ours = Slow(jax.jit(lambda x: x @ x), (jnp.arange(64.0).reshape(8, 8),))
    assert measure.run(of({"fast": peer()}, ours), repeats=3).peers["fast"].ratio > 2


def test_a_ratio_is_of_neighbouring_calls():
    """A machine that becomes ten times slower half-way changes no ratio."""
    clock, speed = [0.0], [1.0]

    class Ours:
        flops = 1.0

        def compile(self):
            return 0.0

        def memory_bytes(self):
            return None

        def __call__(self):
            clock[0] += 1.0 * speed[0]
            return np.ones(2)

    calls = []

    def theirs():
        clock[0] += 2.0 * speed[0]
        calls.append(1)
        if len(calls) == 5:
            speed[0] = 10.0
        return np.ones(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: clock[0])
        found = measure.run(of({"p": case.Peer(theirs, lambda x: x)}, Ours()), repeats=7)
    assert found.peers["p"].ratio == pytest.approx(0.5)
    assert found.ours.high_s > 5 * found.ours.low_s  # and it did become slower


def test_the_order_turns_round(monkeypatch):
    log = []
    ours = program()
    real = case.Program.__call__
    monkeypatch.setattr(case.Program, "__call__", lambda self: (log.append("ours"), real(self))[1])
    measure.run(of({"a": peer(log=log, name="a"), "b": peer(log=log, name="b")}, ours), repeats=2)
    assert log[:3] == ["ours", "a", "b"]  # compared
    assert log[3:] == ["b", "a", "ours", "ours", "a", "b", "b", "a", "ours"]


def test_a_peer_that_computes_something_else_is_not_timed():
    with pytest.raises(measure.Different, match=r"suite, name: the output of other differs .* not"):
        measure.run(of({"other": peer(change=1e5)}), repeats=1)
    with pytest.raises(ValueError, match="repeats is 0"):
        measure.run(of({}), repeats=0)


def test_worst_difference_is_in_deviations_of_ours():
    ours = {"a": np.array([0.0, 10.0]), "b": np.array(4.0)}
    assert case.worst_difference(ours, ours) == 0
    theirs = {"a": np.array([0.0, 11.0]), "b": np.array(4.0)}
    assert case.worst_difference(ours, theirs) == pytest.approx(1 / 5)
    assert case.worst_difference(np.array(4.0), np.array(5.0)) == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match="shapes"):
        case.worst_difference(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="structures"):
        case.worst_difference({"a": np.zeros(2)}, {"b": np.zeros(2)})
    with pytest.raises(ValueError, match="NaN"):
        case.worst_difference(np.zeros(2), np.array([0.0, np.nan]))


def test_a_program_counts_compiles_and_walks_on():
    walking = program(next_args=lambda args, output: (output / jnp.linalg.norm(output),))
    assert walking.compile() > 0
    assert walking.flops == 2 * 8**3
    assert walking.memory_bytes() >= 4 * 64
    first, second = np.asarray(walking()), np.asarray(walking())
    np.testing.assert_allclose(second, (first @ first) / np.linalg.norm(first) ** 2, rtol=1e-5)


def test_memory_that_a_call_takes_is_seen():
    def call():
        return np.ones(8 * 2**20, np.float64)  # 64 MiB, written

    kept, grown = measure.watched(call)
    assert kept.nbytes == 2**26
    if grown is not None:  # Linux
        assert 0.9 * 2**26 < grown < 1.5 * 2**26


def test_quartiles():
    assert measure.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert measure.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_the_peak_is_a_rate(monkeypatch):
    monkeypatch.setattr(peak, "SIDES", {"cpu": (64, 128)})
    rate = peak.matmul_flops("float32")
    assert 1e6 < rate < 1e15
    # a single product takes at least as long as the best one
    x = jnp.ones((128, 128))
    run = jax.jit(jnp.matmul)
    jax.block_until_ready(run(x, x))
    began = time.perf_counter()
    jax.block_until_ready(run(x, x))
    assert 2 * 128**3 / (time.perf_counter() - began) < 20 * rate
