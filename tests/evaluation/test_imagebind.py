"""ImageBind's towers against the official ones, and what they read of files."""

import encoder_goldens
from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import imagebind, imagebind_inputs
from foley_jax.interop import registry

FIRST_AUDIO = r"modality_\w+\.audio\.(?!blocks\.([1-9]|1\d)\.).*"
FIRST_VISION = r"modality_\w+\.vision\.(?!blocks\.([1-9]|[1-3]\d)\.).*"


def _mels(in_place=True):
    _, meta = network_goldens.golden("imagebind")
    mels = []
    for i, seconds in enumerate(meta["seconds"]):
        wave = fill.waveform(f"public/{i}/", seconds, i % 2, sr=imagebind.RATE_HZ)
        clips = imagebind_inputs.audio_clips(wave[None], in_place=in_place)
        mels.append([imagebind_inputs.log_mels(clip) for clip in clips])
    return np.array(mels)


def test_mels_of_overlapping_clips_are_the_official_ones():
    want, _ = network_goldens.golden("imagebind")
    got = _mels()[..., ::3]
    error = network_goldens.distance(got, want["fbank_every_3rd"])
    assert error <= encoder_goldens.LIMIT, error
    # by default no clip changes another: only the second file's later clips differ, which overlap
    apart = _mels(in_place=False)[..., ::3]
    np.testing.assert_array_equal(apart[0], got[0])
    np.testing.assert_array_equal(apart[1, 0], got[1, 0])
    assert (apart[1, 1] != got[1, 1]).any()


def test_first_audio_block_is_the_official_one():
    want, _ = network_goldens.golden("imagebind_g")
    state = encoder_goldens.state_of("imagebind", "_g", FIRST_AUDIO)
    model = registry.from_state_dict("imagebind/audio", state, num_layers=1)

    def parts(model, mels):
        tokens = model.trunk.tokens(model.patches(mels))
        return tokens, model.trunk.blocks[0](tokens), model(mels)

    tokens, block, vectors = network_goldens.run(model, parts, _mels()[0])
    errors = {  # goldens are [token, clip, channel]
        "tokens": network_goldens.distance(tokens[:, :6].swapaxes(0, 1), want["audio_tokens_in"]),
        "block": network_goldens.distance(block[:, :6].swapaxes(0, 1), want["audio_tokens_block0"]),
    }
    assert max(errors.values()) <= encoder_goldens.LIMIT, errors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 20.0, rtol=1e-5)


def test_first_vision_block_is_the_official_one():
    want, _ = network_goldens.golden("imagebind_g")
    state = encoder_goldens.state_of("imagebind", "_g", FIRST_VISION)
    model = registry.from_state_dict("imagebind/vision", state, num_layers=1)
    frames = encoder_goldens.pixels("imagebind_video", (2,), (7, 10), 32)
    frames = (frames - np.float32(imagebind.MEAN)) / np.float32(imagebind.STD)

    def parts(model, clips):
        tokens = model.trunk.tokens(model.stem(clips))
        return tokens, model.trunk.blocks[0](tokens)

    clips = imagebind_inputs.crops(frames)[:1]
    tokens, block = network_goldens.run(model, parts, clips)
    for got, part in ((tokens, "video_tokens_in"), (block, "video_tokens_block0")):
        error = network_goldens.distance(got[:, :4].swapaxes(0, 1), want[part][:, :1])
        assert error <= encoder_goldens.LIMIT, (part, error)


def test_crops_lie_along_the_longer_side():
    wide = np.broadcast_to(np.arange(321)[None, None, :, None], (3, 224, 321, 3))
    got = imagebind_inputs.crops(wide)
    assert got.shape == (6, 2, 224, 224, 3)
    np.testing.assert_array_equal(got[:3, 0, 0, 0, 0], [0, 49, 97])  # 97 / 2 rounded up
    tall = np.swapaxes(wide, 1, 2)
    np.testing.assert_array_equal(imagebind_inputs.crops(tall), np.swapaxes(got, 2, 3))
    with pytest.raises(ValueError, match=r"\(1, 224, 321, 3\)"):
        imagebind_inputs.crops(wide[:1])


def test_clips_of_audio_span_the_file():
    assert imagebind_inputs.spans(128000) == [(0, 32000), (48000, 80000), (96000, 128000)]
    assert imagebind_inputs.spans(20000) == [(0, 32000)] * 3
    # 100007 / 16000 in float64 is a little less than it is: the last begin lies a sample lower
    assert all(end - begin in (32000, 32001) for begin, end in imagebind_inputs.spans(100007))


def test_short_clips_are_filled_up_after_the_logarithm():
    mel = imagebind_inputs.log_mels(np.zeros(8000, np.float32))
    assert mel.shape == (128, 204)
    np.testing.assert_allclose(mel[:, 48:], 4.268 / 9.138, rtol=1e-6)
    with pytest.raises(ValueError, match="399 samples"):
        imagebind_inputs.log_mels(np.zeros(399, np.float32))
