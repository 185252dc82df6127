"""Synchformer's audio encoder and joint transformer against the official ones."""

import encoder_goldens
from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import synchformer
from foley_jax.evaluation.statistics import desync
from foley_jax.interop import fill as fill_lib
from foley_jax.interop import registry

FIRST_LAYER = r"afeat_extractor\.(?!ast\.encoder\.layer\.([1-9]|1\d)\.).*"
JOINT = r"[av]proj\..*|transformer\..*"


def _segments(count):
    wave = fill.waveform("public/0/", 8.0, 0, sr=synchformer.RATE_HZ)[None]
    return np.asarray(synchformer.audio_segments(wave))[0, :count]


def test_eight_seconds_are_24_segments_of_audio():
    audio = np.arange(16000 * 8, dtype=np.float32)[None]
    got = np.asarray(synchformer.audio_segments(audio))
    assert got.shape == (1, 24, 10240)
    np.testing.assert_array_equal(got[0, :, 0], 5120 * np.arange(24))
    with pytest.raises(ValueError, match="10239 samples.*10240"):
        synchformer.audio_segments(audio[:, :10239])


def test_mels_tokens_and_first_layer_are_the_official_ones():
    plain, _ = network_goldens.golden("synchformer")
    want, _ = network_goldens.golden("synchformer_g")
    state = encoder_goldens.state_of("synchformer", "_g", FIRST_LAYER)
    model = registry.from_state_dict("synchformer/audio", state, num_layers=1)

    def parts(model, segments):
        mels = synchformer.log_mels(segments)
        tokens = model.tokens(mels)
        return mels, tokens, model.layers[0](tokens)

    mels, tokens, layer = network_goldens.run(model, parts, _segments(2))
    errors = {
        "mel": network_goldens.distance(mels, plain["mel"]),
        "tokens": network_goldens.distance(tokens[:, :6], want["audio_tokens_in"]),
        "layer": network_goldens.distance(layer[:, :6], want["audio_tokens_layer0"]),
    }
    assert max(errors.values()) <= encoder_goldens.LIMIT, errors


@pytest.mark.slow
def test_offsets_of_features_are_the_official_ones():
    want, _ = network_goldens.golden("synchformer_g")
    state = encoder_goldens.state_of("synchformer", "_g", JOINT)
    model = registry.from_state_dict("synchformer/joint", state)
    video = fill.inp("synch_vfeat", (3, 24, 8, 768), "public/")
    audio = fill.inp("synch_afeat", (3, 24, 6, 768), "public/")

    def both(model, video, audio):
        return model(video[:, :14], audio[:, :14]), model(video[:, -14:], audio[:, -14:])

    first, last = network_goldens.run(model, both, video, audio)
    errors = [
        network_goldens.distance(first, want["logits_first"]),
        network_goldens.distance(last, want["logits_last"]),
    ]
    assert max(errors) <= encoder_goldens.LIMIT, errors
    offsets = desync.desync_from_logits(first, last)
    np.testing.assert_allclose(offsets.mean(), want["desync"][0], atol=1e-6)
    with pytest.raises(ValueError, match="13.*14 segments"):
        model(video[:, :13], audio[:, :13])


def test_an_incomplete_file_is_refused():
    state = encoder_goldens.state_of("synchformer", "", JOINT)
    del state["transformer.MOD_tok"]
    state["transformer.more"] = np.ones(1, np.float32)
    with pytest.raises(fill_lib.ConversionError, match="(?s)transformer.more.*MOD_tok"):
        registry.from_state_dict("synchformer/joint", state)
