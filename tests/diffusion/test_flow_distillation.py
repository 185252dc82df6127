"""Students of a flow: the loss against closed forms, and learning the walk of a teacher."""

import filled
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import flow, flow_distillation

B = 4
LEVEL_B = jnp.arange(B, dtype=jnp.int32)


def _normal(seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((B, 3, 2)), jnp.float32)


def exact(std):
    """The velocity of data N(0, std^2): linear in x."""

    def velocity(x, t_B):
        t = t_B[:, None, None]
        variance = (1 - t) ** 2 + t**2 * std**2
        return x * (t * std**2 - (1 - t)) / variance

    return velocity


def test_a_student_that_goes_where_its_teacher_goes_has_no_loss():
    teacher = exact(0.5)

    @filled.jit
    def losses(data, noise):
        make = lambda student, substeps: flow_distillation.training_loss(  # noqa: E731
            student, teacher, data, noise, LEVEL_B, num_steps=B, substeps=substeps
        )
        return make(teacher, 1), make(teacher, 6), make(exact(0.9), 1)

    same, finer, worse = losses(_normal(0), _normal(1))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert finer.max() > 1e-3 and worse.max() > 1e-3


def test_the_mean_velocity_takes_one_step_where_the_teacher_takes_six():
    """A student with the wanted velocity lands, in one Euler step, where the solver does in six."""
    teacher, noise, num_steps, substeps = exact(0.3), _normal(2), 4, 6

    @filled.jit
    def both(noise):
        grid = flow.time_grid(num_steps)
        walked = flow.sample(teacher, noise, num_steps=substeps, start=0.0, stop=float(grid[1]))
        wanted = (walked - noise) / grid[1]
        student = lambda x, t_B: wanted  # noqa: E731
        level_B = jnp.zeros(B, jnp.int32)
        return flow_distillation.training_loss(
            student, teacher, noise, noise, level_B, num_steps=num_steps, substeps=substeps
        )

    np.testing.assert_allclose(both(noise), 0, atol=1e-9)


def test_pytrees_and_no_gradient_for_the_teacher():
    data, noise = ({"a": _normal(s), "b": _normal(s + 1)[:, 0]} for s in (3, 5))

    @filled.jit
    @jax.grad
    def slope(scale):
        network = lambda x, t_B: jax.tree.map(lambda a: scale * a, x)  # noqa: E731
        student = lambda x, t_B: jax.tree.map(jnp.zeros_like, x)  # noqa: E731
        return flow_distillation.training_loss(
            student, network, data, noise, LEVEL_B, num_steps=B, substeps=2
        ).sum()

    assert slope(jnp.float32(0.7)) == 0
