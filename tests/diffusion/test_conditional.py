"""Zero-shot conditions against MM-Diffusion's loop, step by step, and against a known posterior."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import gaussian, schedule
from foley_jax.diffusion.samplers import ddpm, zero_shot

LINEAR = schedule.linear()
GOLDEN = np.load(toys.GOLDENS / "mm_diffusion" / "conditional.npz")


def _known(name):
    return {name: jnp.clip(toys.fill.inp(f"cond.{name}", toys.SHAPES[name], "public/"), -1, 1)}


def _walk(run, name, table, guidance):
    """Yields the official loop's states: (step, all parts)."""
    noises = toys.pair_noises(run)
    x = next(noises)
    known, fixed = _known(name), {name: x[name]}

    @jax.jit
    def step(x, index, noise):
        return zero_shot.step(
            toys.pair_eps,
            table,
            x,
            known,
            index,
            known_noise=fixed,
            known_noise_next=fixed,
            noise=noise,
            guidance=guidance,
        )

    for count in itertools.count():
        x = step(x, table.num_steps - 1 - count, next(noises))
        yield count, x


@pytest.mark.parametrize("name", ["video", "audio"])
@pytest.mark.parametrize(
    ("tag", "scale", "fp16", "steps"),
    [
        ("scale0.0", 0.0, False, (0, 1, 9)),
        ("scale3.0", 3.0, False, (0, 1, 9)),
        ("scale3.0_fp16flag", 3.0, True, (0, 1)),
        ("scale3.0_T1000", 3.0, False, (0, 1, 2)),
    ],
)
def test_steps_equal_mm_diffusion(name, tag, scale, fp16, steps):
    run = f"{name}cond_{tag}"
    table = LINEAR
    if not tag.endswith("T1000"):
        table = schedule.respace(LINEAR, ddpm.even_steps(LINEAR, 10))
    shape = toys.SHAPES[name]
    guidance = zero_shot.Guidance.official(
        scale, batch=shape[0], elements=int(np.prod(shape[1:])), fp16=fp16
    )
    target = {"video": "audio", "audio": "video"}[name]
    for count, x in itertools.islice(_walk(run, name, table, guidance), steps[-1] + 1):
        if count in steps:
            np.testing.assert_allclose(
                x[target], GOLDEN[f"{run}/step{count}/{target}"], atol=2e-5, rtol=1e-5
            )
            if not scale:  # the model's own prediction of the known part
                np.testing.assert_allclose(x[name], GOLDEN[f"{run}/step{count}/{name}"], atol=2e-5)


def test_the_official_strength_is_eight_for_the_papers_script():
    strength = zero_shot.official_strength(3.0, batch=2, elements=16 * 3 * 64 * 64, fp16=True)
    assert strength == pytest.approx(8.0)


def _joint_gaussian(x, t_B):
    """Exact eps of two unit Gaussians with correlation 0.9, whose first part is `a`."""
    alpha, sigma = LINEAR.alpha_sigma_at(t_B)
    rho, var = 0.9 * alpha**2, alpha**2 + sigma**2  # = 1, written out
    a, b = x["a"], x["b"]
    det = (var**2 - rho**2)[:, None]
    first = (var[:, None] * a - rho[:, None] * b) / det
    second = (var[:, None] * b - rho[:, None] * a) / det
    return {"a": sigma[:, None] * first, "b": sigma[:, None] * second}


@pytest.mark.slow
@pytest.mark.parametrize(
    "guidance",
    [zero_shot.Guidance(), zero_shot.Guidance(strength=0.5)],
    ids=["replacement", "guided"],
)
def test_the_sampled_part_follows_the_known_one(guidance):
    """Correlation 0.9: given a = +-0.6 the other part has the same sign on average."""
    sign = np.sign(np.arange(400) % 2 - 0.5)[:, None]
    known = {"a": jnp.asarray(0.6 * sign, jnp.float32)}
    x_T = gaussian.noise_like(
        {"a": jnp.zeros((400, 1)), "b": jnp.zeros((400, 1))}, key=jax.random.key(0)
    )
    made = zero_shot.sample(
        _joint_gaussian, LINEAR, x_T, known, key=jax.random.key(1), num_steps=100, guidance=guidance
    )
    np.testing.assert_array_equal(made["a"], known["a"])
    assert float((made["b"] * sign).mean()) > 0.2  # 400 draws of deviation below 1: 0.05


@pytest.mark.slow
def test_guidance_pulls_the_model_towards_the_known_part():
    known = {"a": jnp.full((200, 1), 0.6)}
    x_T = gaussian.noise_like(
        {"a": jnp.zeros((200, 1)), "b": jnp.zeros((200, 1))}, key=jax.random.key(0)
    )
    means = [
        float(
            zero_shot.sample(
                _joint_gaussian,
                LINEAR,
                x_T,
                known,
                key=jax.random.key(1),
                num_steps=100,
                guidance=zero_shot.Guidance(strength=strength),
            )["b"].mean()
        )
        for strength in (0.0, 2.0)
    ]
    assert means[1] > means[0]


def test_errors_say_what_came():
    x_T = {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 2))}
    run = lambda known: zero_shot.sample(  # noqa: E731
        lambda x, t: x, LINEAR, x_T, known, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="expected some but not all"):
        run({})
    with pytest.raises(ValueError, match="expected some but not all"):
        run({"c": jnp.ones((1, 2))})
    with pytest.raises(ValueError, match="has shape"):
        run({"a": jnp.ones((1, 3))})
    with pytest.raises(ValueError, match="weight is 'loud'"):
        zero_shot.Guidance(weight="loud")
