"""VGGish against the public PyTorch module, and its front end against the TensorFlow one."""

from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import vggish
from foley_jax.interop import fill as strict_fill
from foley_jax.interop import registry

PREFIX = "public/vggish:"


# the plain weights, with which outputs depend little on the input, are in tests/slow
@pytest.mark.slow
def test_network_matches_the_public_module():
    errors = network_goldens.vggish("vggish_g")
    print(errors)
    assert len(errors) == 3
    assert max(errors.values()) <= network_goldens.NETWORK_LIMIT, errors


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
        registry.from_state_dict("vggish", state)
    assert "convs/1/bias" in str(error.value) and "features.4.weight" in str(error.value)
