"""Synchformer, PaSST and ImageBind at full depth with tiny weights, which show every epsilon."""

import encoder_goldens
from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import imagebind_inputs, passt, synchformer
from foley_jax.interop import registry

pytestmark = pytest.mark.slow


def _wave(number, seconds, rate_hz):
    return fill.waveform(f"public/{number}/", seconds, number % 2, sr=rate_hz)


def _model(kind, keep=".*"):
    state = encoder_goldens.state_of(kind.split("/")[0], "_e", keep)
    return registry.from_state_dict(kind, state)


def _check(name, got, part, index=slice(None)):
    want, _ = network_goldens.golden(f"{name}_e")
    error = network_goldens.distance(got, want[part][index])
    print(name, part, error)
    assert error <= encoder_goldens.LIMIT, (name, part, error)


def test_synchformers_audio_encoder():
    audio = _wave(0, 8.0, synchformer.RATE_HZ)[None]
    _, meta = network_goldens.golden("synchformer_e")
    segments = np.asarray(synchformer.audio_segments(audio))[0, meta["segments"]]
    model = _model("synchformer/audio", r"afeat_extractor\..*")
    _check("synchformer", network_goldens.run(model, lambda m, x: m(x), segments)[None], "afeat")


def test_synchformers_visual_encoder():
    model = _model("synchformer/visual", r"vfeat_extractor\..*")
    segments = encoder_goldens.synchformer_segments()[:1]
    got = network_goldens.run(model, lambda m, x: m(x), segments)
    _check("synchformer", got, "vfeat", slice(1))


def test_passt():
    audio = np.pad(_wave(1, 3.7, passt.RATE_HZ), (0, passt.NUM_SAMPLES))[: passt.NUM_SAMPLES]
    embedding, logits = network_goldens.run(_model("passt"), lambda m, x: m(x), audio[None])
    _check("passt", embedding, "embedding", slice(1, 2))
    _check("passt", logits, "logits", slice(1, 2))


def test_imagebinds_audio_tower():
    clips = imagebind_inputs.audio_clips(_wave(0, 8.0, 16000)[None], in_place=True)
    mels = np.stack([imagebind_inputs.log_mels(clip) for clip in clips])[None]
    model = _model("imagebind/audio", r"modality_\w+\.audio\..*")
    got = network_goldens.run(model, lambda m, x: m.embed(x), mels)
    _check("imagebind", got, "audio", slice(1))
