"""PaSST against the official network: front end, tokens, first block, classes."""

import encoder_goldens
from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import passt
from foley_jax.interop import registry
from foley_jax.media import mel_banks

FIRST_BLOCK = r"(?!blocks\.([1-9]|1\d)\.).*"


def _audio():
    _, meta = network_goldens.golden("passt")
    audio = np.zeros((2, passt.NUM_SAMPLES), np.float32)
    for i, seconds in enumerate(meta["seconds"]):
        wave = fill.waveform(f"public/{i}/", seconds, i % 2, sr=passt.RATE_HZ)
        audio[i, : len(wave)] = wave
    return audio


def test_mels_tokens_and_first_block_are_the_official_ones():
    plain, _ = network_goldens.golden("passt")
    want, _ = network_goldens.golden("passt_g")
    state = encoder_goldens.state_of("passt", "_g", FIRST_BLOCK)
    model = registry.from_state_dict("passt", state, num_layers=1)

    def parts(model, audio):
        mels = passt.log_mels(audio)
        tokens = model.tokens(mels)
        return mels, tokens, model.blocks[0](tokens)

    mels, tokens, block = network_goldens.run(model, parts, _audio()[1:])
    errors = {
        "mel": network_goldens.distance(mels[:, :, ::5], plain["mel_every_5th"][1:]),
        "tokens": network_goldens.distance(tokens[:, :6], want["tokens_in"][1:]),
        "block": network_goldens.distance(block[:, :6], want["tokens_block0"][1:]),
    }
    assert max(errors.values()) <= encoder_goldens.LIMIT, errors


def test_classes_come_of_the_embedding_alone():
    state = encoder_goldens.state_of("passt", "", FIRST_BLOCK)
    model = registry.from_state_dict("passt", state, num_layers=1)
    embedding, logits = network_goldens.run(model, lambda m, x: m(x), _audio()[1:, :64000])
    assert (embedding.shape, logits.shape) == ((1, 768), (1, 527))
    centred = embedding - embedding.mean()
    normed = centred / np.sqrt(np.square(centred).mean() + 1e-5)
    normed = normed * state["head.0.weight"] + state["head.0.bias"]
    want = normed @ state["head.1.weight"].T + state["head.1.bias"]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-5)


def test_more_than_ten_seconds_are_refused():
    state = encoder_goldens.state_of("passt", "", FIRST_BLOCK)
    model = registry.from_state_dict("passt", state, num_layers=1)
    with pytest.raises(ValueError, match="100 columns.*99"):
        model.tokens(np.zeros((1, 128, 1006), np.float32))


def test_kaldis_filters_have_straight_sides_in_mel():
    bank = mel_banks.kaldi(16000, 512, 128, 20.0, 8000.0)
    assert bank.shape == (257, 128) and bank.max() <= 1.0
    assert not bank[-1].any() and not bank[:, 3].any()  # half the rate; a filter between bins
    # of two neighbouring filters the sides add up to 1 wherever both reach
    inner = bank[20:250].sum(axis=1)
    np.testing.assert_allclose(inner, 1.0, atol=1e-5)
