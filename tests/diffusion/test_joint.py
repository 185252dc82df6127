"""Windows on one canvas: alone they change nothing, together their joins cannot be heard."""

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion import gaussian, multidiffusion, schedule, windows
from foley_jax.diffusion.samplers import dpm_multistep

SCHEDULE = schedule.scaled_linear()
WIDTH = 16
STARTS = [0, 10, 20, 30, 44]
PADDED = 8


def _cover(starts, padded):
    share = np.zeros((padded, WIDTH), np.float32)
    share[: len(starts)] = windows.weights(starts, WIDTH)
    first = np.array([*starts, *[starts[-1]] * (padded - len(starts))], np.int32)
    return multidiffusion.WindowLayout(
        jnp.asarray(first), jnp.asarray(share), jnp.int32(len(starts))
    )


def _eps_of_x0(x0_BHVC):
    return gaussian.as_eps(lambda x, t_B: x0_BHVC, SCHEDULE, "x0")


def _run(predict, cover, batch, noise_HWC, num_steps=4):
    denoise = multidiffusion.denoiser(predict, cover, batch=batch)
    run = filled.jit(lambda x: dpm_multistep.sample(denoise, SCHEDULE, x, num_steps=num_steps))
    return np.asarray(run(noise_HWC[None]))[0]


def _noise(width):
    return jax.random.normal(jax.random.key(0), (4, width, 2))


def _tanh(x_BHVC, t_B, index_B):
    del index_B
    return jnp.tanh(x_BHVC) * 0.5 + 0.1 * x_BHVC.mean((1, 2, 3), keepdims=True)


def test_one_window_is_the_plain_sampler():
    noise = _noise(WIDTH)
    got = _run(_tanh, _cover([0], 1), 1, noise)

    def plain(x, t_B):
        return _tanh(x, t_B, None)

    want = filled.jit(lambda x: dpm_multistep.sample(plain, SCHEDULE, x, num_steps=4))(noise[None])
    np.testing.assert_allclose(got, want[0], rtol=2e-6, atol=1e-6)  # values up to 13


@pytest.mark.parametrize(("batch", "loops"), [(PADDED, 0), (4, 1)])
def test_one_batch_needs_no_loop(batch, loops):
    """GPUs ask the host about every round of a loop whose length they do not know."""
    denoise = multidiffusion.denoiser(_tanh, _cover(STARTS, PADDED), batch=batch)
    traced = jax.make_jaxpr(denoise)(_noise(60)[None], jnp.zeros(1))
    assert str(traced).count("while[") == loops


@pytest.mark.slow
def test_neighbours_on_the_tape_and_the_batch_size_do_not_matter():
    noise = _noise(4 * WIDTH)
    both = _run(_tanh, _cover([0, 2 * WIDTH, 3 * WIDTH], 4), 2, noise)
    alone = _run(_tanh, _cover([0], 1), 1, noise[:, :WIDTH])
    np.testing.assert_allclose(both[:, :WIDTH], alone, atol=1e-6)
    overlapping = [_run(_tanh, _cover(STARTS, PADDED), n, _noise(60)) for n in (1, 4)]
    np.testing.assert_allclose(*overlapping, atol=1e-5)


def _disagreeing_windows():
    """Content that depends on the absolute column, and a view of its own for every window."""
    rng = np.random.default_rng(0)
    content_HWC = rng.standard_normal((4, 60, 2)).astype(np.float32)
    views_N11C = 3.0 * rng.standard_normal((PADDED, 1, 1, 2)).astype(np.float32)

    def x0(index):
        return content_HWC[:, STARTS[index] : STARTS[index] + WIDTH] + views_N11C[index]

    targets = jnp.asarray(np.stack([x0(min(i, len(STARTS) - 1)) for i in range(PADDED)]))

    def predict(x_BHVC, t_B, index_B):
        return _eps_of_x0(targets[index_B])(x_BHVC, t_B)

    return predict


def _flux(x_HWC):
    return np.abs(np.diff(x_HWC, axis=1)).sum((0, 2))  # between column c and c + 1


def _joins(starts):
    """Where a window begins, ends, or would be cut in the middle of what it shares."""
    ends = [s + WIDTH for s in starts[:-1]]
    middles = [(a + b) // 2 for a, b in zip(starts[1:], ends)]
    return {"borders": np.array([*starts[1:], *ends]) - 1, "middles": np.array(middles) - 1}


@pytest.mark.slow
def test_joins_cannot_be_told_from_the_rest_and_hard_ones_can():
    predict, joins = _disagreeing_windows(), _joins(STARTS)
    flux = _flux(_run(predict, _cover(STARTS, PADDED), 4, _noise(60)))
    rest = np.delete(flux, joins["borders"])
    assert flux[joins["borders"]].max() <= np.percentile(rest, 95)

    hard = np.zeros((4, 60, 2), np.float32)
    for i, start in enumerate(STARTS):
        share = np.zeros((PADDED, WIDTH), np.float32)
        share[i] = 1.0  # this window alone
        alone = _cover(STARTS, PADDED)._replace(weight_NV=jnp.asarray(share))
        made = _run(predict, alone, 4, _noise(60))
        begin = 0 if i == 0 else joins["middles"][i - 1] + 1
        hard[:, begin : start + WIDTH] = made[:, begin : start + WIDTH]
    flux = _flux(hard)
    rest = np.delete(flux, joins["middles"])
    assert np.median(flux[joins["middles"]]) > np.percentile(rest, 95)


def test_batches_must_divide_the_windows():
    with pytest.raises(ValueError, match="pad them to a multiple"):
        multidiffusion.denoiser(_tanh, _cover([0], 3), batch=2)
