"""A small U-Net with no layer zero, and what it is called with."""

import filled
from flax import nnx
import numpy as np

from foley_jax.diff_foley.models import unet

SMALL = {
    "model_channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_downsamples": (),  # the middle has attention in any case
    "num_heads": 2,
    "context_dim": 6,
    "num_groups": 4,
}


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def definition(**fields):
    """Definition and parameters of a small U-Net, no layer zero."""
    model = filled.module(lambda keys: unet.from_config({**SMALL, **fields}, rngs=keys))
    graphdef, params = nnx.split(model)
    return graphdef, nnx.to_pure_dict(params)


def inputs():
    """Latents, steps and a context."""
    return _normal(2, 4, 8, 4), np.float32([3.0, 500.25]), _normal(2, 8, 6, seed=1)
