"""Noising, conversions between predictions, and the training loss."""

from pathlib import Path

from goldens import fill
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from foley_jax.diffusion import gaussian, schedule

GOLDENS = Path(__file__).parents[1] / "goldens"
SCHEDULE = schedule.scaled_linear()


@pytest.fixture(scope="module")
def data():
    keys = iter(jax.random.split(jax.random.key(0), 4))

    def draw():
        return {
            "video": jax.random.normal(next(keys), (4, 2, 3)),
            "audio": jax.random.normal(next(keys), (4, 5)),
        }

    return draw(), draw(), jnp.array([0, 12, 500, 999])


def close(a, b, **limits):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **limits), a, b)


def test_training_draws_steps_and_evaluation_spreads_them():
    key = jax.random.key(0)
    drawn = gaussian.draw_steps(SCHEDULE, 4000, key, train=True)
    assert drawn.dtype == jnp.int32 and drawn.min() >= 0 and drawn.max() < 1000
    np.testing.assert_allclose(jnp.mean(drawn), 499.5, atol=5 * 1000 / 12**0.5 / 4000**0.5)
    other = gaussian.draw_steps(SCHEDULE, 4000, jax.random.key(1), train=True)
    assert (np.asarray(drawn) != np.asarray(other)).mean() > 0.99
    even = gaussian.draw_steps(SCHEDULE, 4, key, train=False)
    assert even.dtype == jnp.int32 and even.tolist() == [125, 375, 625, 875]


def test_q_sample_equals_diff_foley():
    golden = np.load(GOLDENS / "diff_foley" / "diffusion_loss.npz")
    x0, noise = (fill.inp(n, (1, 4, 16, 64), "public/") for n in ("loss_x0", "loss_noise"))
    got = gaussian.q_sample(SCHEDULE, jnp.asarray(x0), jnp.array([500]), jnp.asarray(noise))
    np.testing.assert_allclose(got, golden["q_sample"], atol=1e-6)


@pytest.mark.slow
def test_q_sample_and_loss_equal_mm_diffusion_on_a_dict():
    shapes = {"video": (4, 4, 3, 8, 8), "audio": (4, 1, 64)}
    x0 = {k: jnp.clip(fill.inp(f"loss.{k}", s, "public/"), -1, 1) for k, s in shapes.items()}
    noise = {k: jnp.asarray(fill.inp(f"loss.noise_{k}", s, "public/")) for k, s in shapes.items()}
    t_B = jnp.array([0, 250, 999, 1])
    got = gaussian.q_sample(schedule.linear(), x0, t_B, noise)
    for k in shapes:
        np.testing.assert_allclose(got[k], toys.MM_DIFFUSION[f"loss_base/x_t_{k}"], atol=1e-6)
    loss_B = gaussian.training_loss(schedule.linear(), toys.pair_eps, x0, t_B, noise)
    np.testing.assert_allclose(loss_B, toys.MM_DIFFUSION["loss_base/loss"], rtol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_right_prediction_gives_back_noise_and_data(data, prediction):
    x0, noise, t_B = data
    x_t = gaussian.q_sample(SCHEDULE, x0, t_B, noise)
    right = gaussian.target(SCHEDULE, x0, t_B, noise, prediction)
    times = t_B.astype(jnp.float32)
    # alpha and sigma go down to 0.03 and 0.07, which multiplies rounding by up to 30
    close(gaussian.to_x0(SCHEDULE, x_t, times, right, prediction), x0, atol=2e-5)
    close(gaussian.to_eps(SCHEDULE, x_t, times, right, prediction), noise, atol=2e-5)
    denoise = gaussian.as_eps(lambda x, t: right, SCHEDULE, prediction)
    close(denoise(x_t, times), noise, atol=2e-5)


def test_v_has_the_closed_form(data):
    x0, noise, t_B = data
    v = gaussian.v_target(SCHEDULE, x0, t_B, noise)
    alpha, sigma = np.sqrt(SCHEDULE.alphas_cumprod[500]), np.sqrt(1 - SCHEDULE.alphas_cumprod[500])
    want = alpha * noise["audio"][2] - sigma * x0["audio"][2]
    np.testing.assert_allclose(v["audio"][2], want, atol=1e-6)


def test_loss_adds_leaves_with_equal_weight(data):
    x0, noise, t_B = data
    seen = []

    def network(x_t, times):
        seen.append(times)
        return jax.tree.map(lambda n: n + 0.5, noise)

    loss = gaussian.training_loss(SCHEDULE, network, x0, t_B, noise)
    np.testing.assert_allclose(loss, np.full(4, 0.5), rtol=1e-5)  # 0.25 of each leaf
    assert seen[0].dtype == jnp.float32 and seen[0].tolist() == [0.0, 12.0, 500.0, 999.0]


def test_eps_loss_over_alpha2_equals_v_loss(data):
    x0, noise, t_B = data

    def eps_network(x_t, t_B):
        return jax.tree.map(lambda x: 0.3 * x - 0.1, x_t)

    def v_network(x_t, t_B):
        # the v that stands for the same eps: (eps - sigma x) / alpha
        alpha, sigma = SCHEDULE.alpha_sigma_at(t_B)
        return gaussian.combine(1 / alpha, eps_network(x_t, t_B), -sigma / alpha, x_t)

    weighted = gaussian.training_loss(
        SCHEDULE, eps_network, x0, t_B, noise, "eps", "inverse_alpha2"
    )
    plain = gaussian.training_loss(SCHEDULE, v_network, x0, t_B, noise, "v")
    np.testing.assert_allclose(weighted, plain, rtol=2e-4)


def test_loss_is_float32_with_finite_gradient_for_bfloat16_networks(data):
    x0, noise, t_B = data

    def loss(scale):
        def network(x, t):
            return jax.tree.map(lambda a: (scale * a).astype(jnp.bfloat16), x)

        return gaussian.training_loss(SCHEDULE, network, x0, t_B, noise, "v").mean()

    value, gradient = jax.value_and_grad(loss)(jnp.float32(0.5))
    assert value.dtype == jnp.float32
    assert bool(jnp.isfinite(gradient)) and float(gradient) != 0


def test_noise_leaves_are_independent(data):
    drawn = gaussian.noise_like({"a": jnp.zeros(1000), "b": jnp.zeros(1000)}, key=jax.random.key(0))
    assert abs(float(jnp.corrcoef(drawn["a"], drawn["b"])[0, 1])) < 0.1
    assert abs(float(drawn["a"].std()) - 1) < 0.1


def test_inverse_sigma2_makes_the_x0_loss_a_v_loss_but_for_clean_steps(data):
    x0, noise, _ = data
    t_B = jnp.asarray([400, 600, 800, 900])

    def losses(t_B, weighting):
        """Takes one and the same denoiser, as data and as v prediction."""
        truth = lambda x, _: jax.tree.map(lambda a: 0.3 * a, x)  # noqa: E731

        def as_v(x, time_B):
            alpha_B, sigma_B = SCHEDULE.alpha_sigma_at(time_B)
            return gaussian.combine(alpha_B / sigma_B, x, -1.0 / sigma_B, truth(x, time_B))

        return (
            gaussian.training_loss(SCHEDULE, truth, x0, t_B, noise, "x0", weighting),
            gaussian.training_loss(SCHEDULE, as_v, x0, t_B, noise, "v"),
        )

    first, second = losses(t_B, "inverse_sigma2")
    np.testing.assert_allclose(first, second, rtol=1e-4)
    weight = gaussian.loss_weight(SCHEDULE, jnp.asarray([0, 999]), "inverse_sigma2")
    noisiest = 1.0 / (1.0 - float(SCHEDULE.alphas_cumprod[999]))
    np.testing.assert_allclose(weight, [10.0, noisiest], rtol=1e-5)


def test_errors_name_the_choices(data):
    x0, noise, t_B = data
    with pytest.raises(ValueError, match="prediction is 'noise', expected 'eps', 'v' or 'x0'"):
        gaussian.as_eps(lambda x, t: x, SCHEDULE, "noise")
    with pytest.raises(ValueError, match="weighting is 'snr'"):
        gaussian.training_loss(SCHEDULE, lambda x, t: x, x0, t_B, noise, "eps", "snr")
