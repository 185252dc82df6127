"""The toy networks of the golden vectors: closed-form denoisers that no wrong sampler survives."""

import dataclasses
from pathlib import Path

from goldens import fill
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import gaussian, schedule

GOLDENS = Path(__file__).parents[1] / "goldens"
DIFF_FOLEY = np.load(GOLDENS / "diff_foley" / "sampler_toy.npz")
MM_DIFFUSION = np.load(GOLDENS / "mm_diffusion" / "samplers.npz")

_PREFIX = "public/"
CONTEXT = np.float32(0.5) + np.float32(0.5) * fill.inp("toy_cond", (1, 32, 8), _PREFIX)
NULL = np.zeros_like(CONTEXT)
SHAPES = {"video": (2, 4, 3, 8, 8), "audio": (2, 1, 64)}


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Data N(0, std^2), whose ODE has a known end: it keeps x / spread constant."""

    table: schedule.Schedule
    std: float = 0.5

    def denoise(self, x, t_B):
        """The exact noise."""
        alpha, sigma = self.table.alpha_sigma_at(t_B)
        return gaussian.combine(sigma / (alpha**2 * self.std**2 + sigma**2), x, 0 * sigma, x)

    def spread(self, time):
        """Standard deviation of the data noised to this time."""
        alpha, sigma = self.table.alpha_sigma_at(jnp.float32(time))
        return float(jnp.sqrt(alpha**2 * self.std**2 + sigma**2))


def latent_eps(x, t_B, context):
    """eps(x, t, c) = (0.3 + 0.1 m) x + 0.1 sin(t) + 0.05 m, m the mean of c."""
    m = context.mean((1, 2)).reshape(-1, 1, 1, 1)
    return (0.3 + 0.1 * m) * x + 0.1 * jnp.sin(t_B).reshape(-1, 1, 1, 1) + 0.05 * m


def latent_log_prob(x, t_B):
    """log sigmoid(20 mean(w x) + 0.1 cos(t / 100) + mean(features))."""
    weight = fill.inp("toy_w", (4, 16, 64), _PREFIX)[None]
    features = fill.inp("toy_feat", (1, 32, 8), _PREFIX)
    logit = 20 * jnp.mean(weight * x, axis=(1, 2, 3)) + 0.1 * jnp.cos(t_B / 100)
    return jax.nn.log_sigmoid(logit + features.mean((1, 2)))


def pair_eps(x, t_B):
    """MM-Diffusion's toy: video and audio each see their own and the other's mean."""
    video, audio = x["video"], x["audio"]
    batch, num_frames = video.shape[:2]
    u = (t_B + 1) / 1000
    log_alpha = -0.25 * 19.9 * u**2 - 0.05 * u
    alpha, sigma = jnp.exp(log_alpha), jnp.sqrt(1 - jnp.exp(2 * log_alpha))
    k = sigma / (0.25 * alpha**2 + sigma**2)

    def wide(values, rank):
        return values.reshape(values.shape + (1,) * (rank - values.ndim))

    audio_mean = audio[:, 0].reshape(batch, num_frames, -1).mean(-1)  # [B, F]
    video_mean = jnp.repeat(video.mean((2, 3, 4)), audio.shape[-1] // num_frames, axis=1)
    alpha_BF = alpha.reshape(-1, 1)
    return {
        "video": wide(k, 5) * video
        + 0.3 * wide(alpha, 5) * jnp.sin(2 * video)
        + wide(0.8 * alpha_BF * audio_mean, 5),
        "audio": wide(k, 3) * audio
        + 0.2 * wide(alpha, 3) * jnp.sin(3 * audio)
        + (1.5 * alpha_BF * video_mean)[:, None],
    }


def pair_start():
    """Where MM-Diffusion's solver runs start."""
    return {k: jnp.asarray(fill.inp(f"dpm.{k}", s, _PREFIX)) for k, s in SHAPES.items()}


def pair_noises(run):
    """Yields the golden's noise pairs in the order the official loop draws them."""
    count = 0
    while True:
        pair = {}
        for name in ("video", "audio"):
            pair[name] = jnp.asarray(fill.inp(f"{run}.noise{count}", SHAPES[name], _PREFIX))
            count += 1
        yield pair


def relative(got, want):
    """L2 distance relative to the wanted array."""
    return float(np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want))


def image_output(x, low, t_B):
    """MM-Diffusion's super-resolution toy, channels last: noise, then variance values."""
    u = ((t_B + 1) / 1000).reshape(-1, 1, 1, 1)
    log_alpha = -0.25 * 19.9 * u**2 - 0.05 * u
    alpha, sigma = jnp.exp(log_alpha), jnp.sqrt(1 - jnp.exp(2 * log_alpha))
    k = sigma / (0.25 * alpha**2 + sigma**2)
    large = jax.image.resize(low, x.shape, "bilinear", antialias=False)
    eps = k * (x - alpha * large) + 0.1 * jnp.sin(2 * x)
    return jnp.concatenate([eps, jnp.tanh(0.5 * x + 0.2 * large)], axis=-1)


def drawn(name, side):
    """Input of the super-resolution goldens, [4, side, side, 3]."""
    return jnp.asarray(np.moveaxis(fill.inp(name, (4, 3, side, side), _PREFIX), 1, -1))
