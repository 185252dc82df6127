"""The features of every metric network, each as a function of a loaded module and a batch.

Every function has the same arguments: the module, the batch as its entry of the registry reads it,
the arrays of the files beside its weights, and the preset. B batch, L audio samples, T frames, H W
C image.
"""

from collections.abc import Mapping
from typing import Literal

from flax import nnx
import jax

from foley_jax.evaluation.networks import i3d, melception, synchformer, yamnet

Features = Mapping[str, jax.Array]
Preset = Literal["default", "official"]


def windows(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside, preset
    return {"embedding": model.embed(audio_BL)}


def tags(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside, preset
    embedding, logits = model(audio_BL)
    return {"embedding": embedding, "logits": logits}


def mels(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del preset
    return model(melception.standard_mels(audio_BL, *beside))


def video(model: nnx.Module, video_BTHWC: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside, preset
    return {"logits": model(i3d.prepare(video_BTHWC))}


def audio(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside
    return {"embedding": model.embed(audio_BL, preset)}


def clap_audio(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside, preset
    return {"embedding": model.embed_audio(audio_BL)}


def clap_text(model: nnx.Module, tokens_B2T: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside, preset
    return {"embedding": model.embed_text(tokens_B2T[:, 0], tokens_B2T[:, 1])}


def scores(model: nnx.Module, audio_BL: jax.Array, beside: tuple, preset: Preset) -> Features:
    del beside
    embedding, logits = model.embed(audio_BL, pad_rest=preset == "official")
    return {"embedding": embedding, "logits": yamnet.log_scores(logits)}


def synchformer_audio(model: nnx.Module, audio_BL: jax.Array, *_: object) -> Features:
    return {"embedding": model.embed(audio_BL)}


def synchformer_video(model: nnx.Module, video_BTHWC: jax.Array, *_: object) -> Features:
    return {"embedding": synchformer.embed_video(model, video_BTHWC)}


def offsets(model: nnx.Module, features: tuple[jax.Array, jax.Array], *_: object) -> Features:
    return {"logits": model(*features)}


def embedded(model: nnx.Module, batch: jax.Array, *_: object) -> Features:
    return {"embedding": model.embed(batch)}
