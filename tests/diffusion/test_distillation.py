"""Students' grid, steps, loss and walk against closed forms."""

import filled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foley_jax.diffusion import distillation, gaussian, schedule
from foley_jax.diffusion.samplers import few_step

TABLE = schedule.scaled_linear()
B = 4


def _normal(seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((B, 3, 2)), jnp.float32)


def gaussian_denoiser(std, prediction):
    """The exact prediction for data N(0, std^2)."""

    def denoise(x, t_B):
        alpha_B, sigma_B = TABLE.alpha_sigma_at(t_B)
        share_B = alpha_B * std**2 / (alpha_B**2 * std**2 + sigma_B**2)
        clean = gaussian.combine(share_B, x, 0 * share_B, x)
        eps = gaussian.combine(1 / sigma_B, x, -alpha_B / sigma_B, clean)
        v = gaussian.combine(alpha_B, eps, -sigma_B, clean)
        return {"x0": clean, "eps": eps, "v": v}[prediction]

    return denoise


def test_the_grid_begins_with_noise_ends_clean_and_holds_coarser_ones():
    fine, coarse = distillation.levels(TABLE, 8), distillation.levels(TABLE, 4)
    np.testing.assert_array_equal(coarse.times, [999, 749, 499, 249])
    for name in ("alphas", "sigmas"):
        np.testing.assert_array_equal(getattr(fine, name)[::2], getattr(coarse, name))
    assert (fine.alphas[-1], fine.sigmas[-1]) == (1, 0)
    with pytest.raises(ValueError, match="num_steps is 0, expected 1 to 1000"):
        distillation.levels(TABLE, 0)


@pytest.mark.parametrize("level", range(4))
def test_landing_is_the_inverse_of_a_move(level):
    walk, at_B = distillation.levels(TABLE, 4), jnp.full((B,), level)
    x, clean = _normal(0), _normal(1)
    reached = distillation.move(x, clean, walk, at_B)
    np.testing.assert_allclose(
        distillation.landing_x0(x, reached, walk, at_B), clean, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_a_student_that_lands_with_its_teacher_has_no_loss(prediction):
    """One substep: teacher and student take the same step."""
    teacher = gaussian_denoiser(0.5, prediction)
    level_B = jnp.arange(B, dtype=jnp.int32)

    @filled.jit
    def losses(x0, noise):
        make = lambda student, substeps: distillation.training_loss(  # noqa: E731
            TABLE,
            student,
            teacher,
            x0,
            noise,
            level_B,
            num_steps=B,
            substeps=substeps,
            prediction=prediction,
        )
        worse = gaussian_denoiser(0.9, prediction)
        return make(teacher, 1), make(teacher, 6), make(worse, 1)

    same, finer, worse = losses(_normal(0), _normal(1))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    # a coarse step is not six fine ones; eps hardly differs at the noisiest level
    assert finer.max() > 1e-3 and worse.max() > 1e-3


def test_the_walk_of_a_student_is_that_of_the_exact_jumps():
    """A student of exact jumps ends where the fine walk does, in any number of evaluations."""
    exact = gaussian.as_eps(gaussian_denoiser(0.5, "v"), TABLE, "v")
    fine = filled.jit(lambda x: few_step.sample(exact, TABLE, x, num_steps=200))(_normal(0))
    # DDIM keeps the ray of a Gaussian: x scales by the ratio of standard deviations
    alpha, sigma = TABLE.sqrt_alphas_cumprod[-1], TABLE.sqrt_one_minus_alphas_cumprod[-1]
    ratio = 0.5 / np.sqrt(alpha**2 * 0.25 + sigma**2)
    np.testing.assert_allclose(fine, ratio * _normal(0), rtol=0.03)

    def jump(x, t_B):
        """The eps whose one DDIM step over everything lands at `ratio` x."""
        walk = distillation.levels(TABLE, 1)
        at_B = jnp.zeros((B,), jnp.int32)
        clean = distillation.landing_x0(x, ratio * x, walk, at_B)
        alpha_B, sigma_B = TABLE.alpha_sigma_at(t_B)
        return gaussian.combine(1 / sigma_B, x, -alpha_B / sigma_B, clean)

    one = few_step.sample(jump, TABLE, _normal(0), num_steps=1)
    np.testing.assert_allclose(one, ratio * _normal(0), rtol=1e-3)


def test_the_teacher_gets_no_gradient():
    def loss(scales):
        scaled = lambda scale: lambda x, t_B: scale * gaussian_denoiser(0.5, "v")(x, t_B)  # noqa: E731
        return distillation.training_loss(
            TABLE,
            scaled(scales[0]),
            scaled(scales[1]),
            _normal(0),
            _normal(1),
            jnp.arange(B, dtype=jnp.int32),
            num_steps=B,
            substeps=2,
            prediction="v",
        ).sum()

    student, teacher = filled.jit(jax.grad(loss))(jnp.array([0.9, 1.0]))
    assert student != 0 and teacher == 0
