"""Fades of audio, in and out and from one to another."""

import numpy as np


def ramp(num_samples: int) -> np.ndarray:
    """Returns the shares of a linear fade-in; turned round, those of the fade-out.

    The two add to one at every sample, so that audio that fades into itself stays as it is.

    Args:
      num_samples: of the fade, 0 or more.
    Returns:
      float32 [num_samples], rising, between 0 and 1 without either.
    """
    return (np.arange(num_samples, dtype=np.float32) + 0.5) / max(1, num_samples)
