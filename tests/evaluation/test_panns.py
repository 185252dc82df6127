"""PANNs Cnn14 with its classes and front ends against the public PyTorch modules."""

import jax
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import panns
from foley_jax.interop import fill, registry
from foley_jax.runtime import network as network_lib


@pytest.mark.parametrize("rate_hz", [16000, 32000])
def test_front_end_matches_the_public_one(rate_hz):
    want, meta = network_goldens.golden(f"panns_cnn14_{rate_hz // 1000}k")
    assert meta["logmel_slice"] == "[:, :, ::4, ::2]"
    got = jax.jit(lambda x: panns.log_mel(x, panns.FRONT_ENDS[rate_hz]))(
        network_goldens.panns_waves(rate_hz)
    )
    assert got.shape == (2, 301, 64)
    error = network_goldens.distance(np.asarray(got)[:, None, ::4, ::2], want["logmel"])
    print(f"front end {rate_hz} {error:.1e}")
    assert error <= network_goldens.FRONT_END_LIMIT


# the other three goldens are in tests/slow
@pytest.mark.slow
def test_network_matches_the_public_module():
    errors = network_goldens.panns("panns_cnn14_16k_g")
    print(errors)
    assert max(errors.values()) <= network_goldens.NETWORK_LIMIT, errors


@pytest.mark.slow
def test_conversion_is_strict():
    state = dict(network_goldens.plain("panns_cnn14_32k", "public/panns_cnn14_32k:"))
    state["fc1.extra"] = state.pop("fc_audioset.bias")
    with pytest.raises(fill.ConversionError) as error:
        registry.from_state_dict("panns/cnn14_32k", state)
    assert "fc1.extra" in str(error.value) and "fc_audioset/bias" in str(error.value)


def test_wrong_rates_and_short_audio_are_refused():
    with pytest.raises(ValueError, match="44100 Hz, Cnn14 exists for 16000 and 32000 Hz"):
        panns.Cnn14(44100, rngs=None)
    model = network_lib.shapes(lambda keys: panns.Cnn14(16000, rngs=keys))
    with pytest.raises(ValueError, match=r"L >= 4960 \(0.31 s at 16000 Hz\)"):
        model(np.zeros((2, 4959), np.float32))
