"""lambda = log(alpha / sigma): the clock in which DPM-Solvers divide their steps."""

import numpy as np

from foley_jax.diffusion.schedule import Schedule


class LogSnr:
    """lambda as a function of model time and back, float64 on the host."""

    def __init__(self, schedule: Schedule):
        # the official tables are float32; the rounding decides which integer a time becomes
        abar = np.asarray(schedule.alphas_cumprod, np.float64)
        self.log_alpha = 0.5 * np.log(abar)
        self.steps = np.arange(len(abar), dtype=np.float64)

    def alpha_sigma(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma at fractional model times."""
        log_alpha = np.interp(time, self.steps, self.log_alpha)
        return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))

    def __call__(self, time: np.ndarray) -> np.ndarray:
        alpha, sigma = self.alpha_sigma(time)
        return np.log(alpha) - np.log(sigma)

    def inverse(self, value: np.ndarray) -> np.ndarray:
        """Model time of a lambda."""
        log_alpha = -0.5 * np.logaddexp(0.0, -2.0 * np.asarray(value))
        return np.interp(log_alpha, self.log_alpha[::-1], self.steps[::-1])
