"""Schedules against their formulas, AdamW against its definition."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from foley_jax.training import optimizer

NUMBERS = json.loads(
    (Path(__file__).parents[1] / "goldens" / "mmaudio" / "numbers.json").read_text()
)


def config(**fields):
    base = {
        "name": "adamw",
        "lr": 0.5,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "b1": 0.9,
        "b2": 0.99,
        "eps": 1e-8,
        "clip_norm": 0.0,
    }
    return ml_collections.ConfigDict({**base, **fields})


def open_clip_cosine(step, lr, warmup, total):
    """`cosine_lr` of open_clip's scheduler.py."""
    if step < warmup:
        return lr * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) * lr


def test_cosine_is_open_clips():
    schedule = optimizer.schedule(config(schedule="cosine", warmup_steps=20), 100)
    expected = [open_clip_cosine(step, 0.5, 20, 100) for step in range(100)]
    np.testing.assert_allclose([schedule(s) for s in range(100)], expected, rtol=1e-5, atol=1e-7)


def test_constant_then_linear():
    schedule = optimizer.schedule(config(schedule="constant_then_linear", warmup_steps=10), 110)
    values = np.array([schedule(step) for step in range(111)])
    np.testing.assert_allclose(values[:10], 0.05 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_allclose(values[10:71], 0.5, rtol=1e-6)  # 60 of the 100 steps after warm-up
    np.testing.assert_allclose(values[90], 0.5 * (1 + 0.05) / 2, rtol=1e-5)
    np.testing.assert_allclose(values[110], 0.5 * 0.05, rtol=1e-5)
    assert np.all(np.diff(values[70:]) < 0)


def test_drops_are_mmaudios():
    rates = NUMBERS["lr, drops at 2400 and 2700"]
    schedule = optimizer.schedule(config(schedule="drops", lr=1e-4, warmup_steps=1001), 3000)
    found = [schedule(int(step)) for step in rates]
    np.testing.assert_allclose(found, list(rates.values()), rtol=1e-6)


def test_constant_and_zero_steps():
    schedule = optimizer.schedule(config(warmup_steps=2), 0)
    np.testing.assert_allclose([schedule(s) for s in range(4)], [0.25, 0.5, 0.5, 0.5])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="schedule is 'step', expected one of constant, "):
        optimizer.schedule(config(schedule="step"), 10)
    with pytest.raises(ValueError, match="name is 'sgd', expected 'adamw'"):
        optimizer.make(config(name="sgd"), 10, {})


def adamw_by_hand(x, grads, c, decay):
    m = v = np.zeros_like(x)
    for i, g in enumerate(grads, 1):
        m, v = c.b1 * m + (1 - c.b1) * g, c.b2 * v + (1 - c.b2) * g * g
        step = m / (1 - c.b1**i) / (np.sqrt(v / (1 - c.b2**i)) + c.eps)
        x = x - c.lr * (step + decay * x)
    return x


def test_adamw_with_mask_is_its_definition():
    c = config(lr=0.1, weight_decay=0.3)
    params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5, 0.1])}
    grads = [{k: jnp.array([s, 2.0 - s]) for k in params} for s in (0.3, 1.5, -0.7)]
    tx = optimizer.make(c, 10, {"kernel": True, "bias": False})
    state, now = tx.init(params), params
    for grad in grads:
        updates, state = jax.jit(tx.update)(grad, state, now)
        now = optax.apply_updates(now, updates)
    for name, decay in (("kernel", 0.3), ("bias", 0.0)):
        expected = adamw_by_hand(np.array(params[name]), [g[name] for g in grads], c, decay)
        np.testing.assert_allclose(now[name], expected, rtol=1e-5)


def test_clipping_scales_by_the_global_norm_and_keeps_the_tree_of_states():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}  # norm 5
    states = {}
    for clip in (0.0, 1.0):
        tx = optimizer.make(config(clip_norm=clip), 10, {"a": True, "b": True})
        _, states[clip] = tx.update(grads, tx.init(params), params)
    moments = [optax.tree.get(state, "mu") for state in states.values()]
    for name in params:
        np.testing.assert_allclose(moments[0][name], 5.0 * moments[1][name], rtol=1e-6)
    leaves = [
        [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(s)] for s in states.values()
    ]
    assert leaves[0] == leaves[1]  # a run may switch clipping on
