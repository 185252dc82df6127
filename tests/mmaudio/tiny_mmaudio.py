"""MMAudio with networks of a few weights, and windows of two seconds."""

import functools

import filled
from flax import nnx
import jax.numpy as jnp
import numpy as np

from foley_jax.media import specs
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import flow_network
from foley_jax.mmaudio.sampling import pipeline, vocoder
from foley_jax.runtime import network

RATES = rates_lib.RATES["16k"]
WINDOW_S = 1.92  # 60 latents, 15 frames of CLIP, 5 segments
TOKENS, TEXT = 5, 16


class Clip(nnx.Module):
    """Features that are the mean colours of images, or the numbers of tokens."""

    def __init__(self, *, rngs):
        self.map = nnx.Linear(3, TEXT, rngs=rngs)

    def encode_image(self, image_BHWC, normalize=True):
        return self.map(image_BHWC.mean((1, 2)))

    def encode_text(self, ids_BT, normalize=True):
        wave = jnp.arange(TEXT, dtype=jnp.float32).reshape(1, 1, -1) / TEXT
        return jnp.sin(ids_BT.astype(jnp.float32)[..., None] * wave)


class Sync(nnx.Module):
    """Features that are the mean colours of every two frames."""

    def __init__(self, *, rngs):
        self.map = nnx.Linear(3, 24, rngs=rngs)

    def __call__(self, x_BFHWC):
        x = x_BFHWC.mean((2, 3))  # [B, 16, 3] -> [B, 8, 3]
        return self.map(x.reshape(x.shape[0], 8, 2, 3).mean(2))


class Decoder(nnx.Module):
    """Mels that are a map of latents, every one twice; and latents that are a map of mels."""

    def __init__(self, *, rngs):
        self.map = nnx.Linear(20, 80, rngs=rngs)
        self.back = nnx.Linear(80, 20, rngs=rngs)

    def encode(self, mel_BFT):
        mean = self.back(jnp.swapaxes(mel_BFT, 1, 2)[:, ::2])
        return mean, jnp.zeros_like(mean)

    def decode(self, latent_BNC):
        return jnp.swapaxes(jnp.repeat(self.map(latent_BNC), 2, axis=1), 1, 2) - 2.0


class Generator(nnx.Module):
    """Audio that is a map of every mel frame."""

    def __init__(self, *, rngs):
        self.map = nnx.Linear(80, RATES.audio.hop, rngs=rngs)

    def __call__(self, mel_BFT):
        x = jnp.tanh(self.map(jnp.swapaxes(mel_BFT, 1, 2)))
        return x.reshape(x.shape[0], -1)


class Tokenizer:
    """A number for every letter."""

    def __call__(self, texts):
        rows = [[*(ord(c) % 97 for c in text[:TOKENS])] for text in texts]
        return np.array([row + [0] * (TOKENS - len(row)) for row in rows], np.int32)


def flow_of(rngs):
    return flow_network.FlowNetwork(
        clip_dim=TEXT,
        sync_dim=24,
        text_dim=TEXT,
        text_length=TOKENS,
        width=32,
        num_heads=1,
        depth=2,
        fused_depth=1,
        rngs=rngs,
    )


@functools.cache
def flow():
    """The flow network, filled, with sane statistics."""
    model = filled.module(flow_of)
    model.latent_std[...] = jnp.abs(model.latent_std[...]) + 0.5
    return model


def networks():
    """Every network under the kind of the official one in its place."""
    kinds = {
        "open_clip/vit_h_14_378": Clip,
        "synchformer/visual": Sync,
        "mmaudio/vae_16k": Decoder,
        "mmaudio/bigvgan_16k": Generator,
    }
    made = {
        kind: network.Network.of(filled.module(lambda rngs, cls=cls: cls(rngs=rngs)))
        for kind, cls in kinds.items()
    }
    return {**made, "mmaudio/small_16k": network.Network.of(flow())}


def make(**options):
    """The whole model."""
    own = networks()
    given = {
        "clip": own["open_clip/vit_h_14_378"],
        "sync": own["synchformer/visual"],
        "tokenizer": Tokenizer(),
        **options,
    }
    return pipeline.MMAudio(
        flow=own["mmaudio/small_16k"],
        autoencoder=own["mmaudio/vae_16k"],
        vocoder=vocoder.MelGenerator(own["mmaudio/bigvgan_16k"].module(), RATES.audio),
        rates=RATES,
        clip_video=specs.VideoSpec(8, 12, 12, "stretch_cubic", pick="nearest"),
        sync_video=specs.VideoSpec(25, 8, 8, "crop", pick="nearest"),
        window_s=WINDOW_S,
        **given,
    )
