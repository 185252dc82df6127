"""VGGish against the public PyTorch module, and its front end against the TensorFlow one."""

from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax import convert
from foley_jax.evaluation.networks import vggish
from foley_jax.layers import strict_fill

PREFIX = "public/vggish:"


def _outputs(model, audio_BL, log_mel_B1TF):
    embedding = model.embed(audio_BL)
    model.last_relu = False
    return embedding, model(log_mel_B1TF[:, 0])


@pytest.mark.parametrize("case", ["vggish", "vggish_g"])
def test_network_matches_the_public_module(case):
    want, meta = network_goldens.golden(case)
    assert meta["fill_prefix"] == PREFIX
    state = network_goldens.plain("vggish", PREFIX)
    model = convert.from_state_dict(
        "vggish", network_goldens.gained(state) if case.endswith("_g") else state
    )
    audio = fill.waveform("public/", 3.2, 0)[None]
    log_mel = fill.inp("vggish.logmel", (3, 1, 96, 64), "public/")
    wave, raw = network_goldens.run(model, _outputs, audio, log_mel)
    figures = {
        "wave_embedding": wave[0],
        "random_embedding": np.maximum(raw, 0.0),
        "random_embedding_no_last_relu": raw,
    }
    for name, got in figures.items():
        error = network_goldens.distance(got, want[name])
        print(case, name, f"{error:.1e}")
        assert error <= network_goldens.NETWORK_LIMIT, (name, error)


def test_front_end_matches_the_public_one():
    want, _ = network_goldens.golden("vggish")
    got = np.asarray(vggish.log_mel_windows(fill.waveform("public/", 3.2, 0)[None]))[0]
    error = network_goldens.distance(got, want["examples"])
    print(f"front end {error:.1e}")
    assert error <= network_goldens.FRONT_END_LIMIT


def test_a_rest_at_the_end_is_left_out_and_too_short_is_an_error():
    audio = fill.waveform("public/", 2.5, 1)[None]
    whole = vggish.log_mel_windows(audio)
    assert whole.shape == (1, 2, 96, 64)
    assert [vggish.windows_of(n) for n in (15599, 15600, 30959, 30960)] == [0, 1, 1, 2]
    last = vggish.log_mel_windows(audio[:, 96 * 160 : 400 + 191 * 160])
    np.testing.assert_allclose(whole[:, 1:], last, atol=1e-6)
    with pytest.raises(ValueError, match=r"15599 samples, VGGish needs 15600 \(0.975 s"):
        vggish.log_mel_windows(audio[:, :15599])


def test_conversion_is_strict():
    state = dict(network_goldens.plain("vggish", PREFIX))
    del state["features.3.bias"]
    state["features.4.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(strict_fill.ConversionError) as error:
        convert.from_state_dict("vggish", state)
    assert "convs/1/bias" in str(error.value) and "features.4.weight" in str(error.value)
