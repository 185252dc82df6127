"""PLMS against latent diffusion's sampler and a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import guidance, schedule
from foley_jax.diffusion.samplers import ddim, plms

SCHEDULE = schedule.scaled_linear()


def test_equals_official():
    denoise = guidance.classifier_free(toys.latent_eps, toys.CONTEXT, toys.NULL, 4.5)
    x_T = jnp.asarray(toys.DIFF_FOLEY["xT"])
    got = jax.jit(lambda x: plms.sample(denoise, SCHEDULE, x, num_steps=25))(x_T)
    assert toys.relative(got, toys.DIFF_FOLEY["plms25_cfg4.5/x0"]) < 1e-5


def test_looks_where_the_official_sampler_looks():
    times = []

    def spy(x, t_B):
        jax.debug.callback(lambda t: times.append(float(t[0])), t_B, ordered=True)
        return 0.5 * x

    plms.sample(spy, SCHEDULE, jnp.ones((1, 2)), num_steps=25)
    jax.effects_barrier()
    np.testing.assert_array_equal(times, toys.DIFF_FOLEY["plms25_cfg4.5/model_times"])


def test_is_nearer_to_the_flow_than_ddim_at_equal_steps():
    def denoise(x, t_B):
        alpha, sigma = SCHEDULE.alpha_sigma_at(t_B)
        factor = sigma / (alpha**2 * 0.25 + sigma**2)  # data N(0, 0.5^2)
        return factor.reshape(-1, 1) * x

    def error(sampler, num_steps):
        made = sampler.sample(denoise, SCHEDULE, jnp.ones((1, 1)), num_steps=num_steps)
        fine = ddim.sample(denoise, SCHEDULE, jnp.ones((1, 1)), num_steps=500)
        return abs(float((made - fine)[0, 0]))

    assert error(plms, 25) < 0.5 * error(ddim, 25)


def test_pytree_and_short_runs():
    tree = {"a": jnp.ones((2, 3)), "b": jnp.full((2, 4, 1), 0.5)}

    def denoise(x, t_B):
        return jax.tree.map(lambda a: 0.4 * jnp.tanh(a), x)

    for num_steps in (1, 3):
        both = plms.sample(denoise, SCHEDULE, tree, num_steps=num_steps)
        alone = plms.sample(denoise, SCHEDULE, tree["b"], num_steps=num_steps)
        np.testing.assert_allclose(both["b"], alone, rtol=1e-6)
        assert np.isfinite(both["a"]).all()


def test_steps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit a schedule"):
        plms.sample(lambda x, t: x, SCHEDULE, jnp.ones((1, 2)), num_steps=1000)
