"""Full-size CAVP against the official network's activations (float32, seeded weights)."""

import json

import full_size
from goldens import fill
import jax
import numpy as np
import pytest

from foley_jax.interop import registry

pytestmark = pytest.mark.slow
PREFIX = full_size.PREFIX
# of an activation scaled to unit deviation; re-ordering noise of the official code is ~3e-6
ATOL = 2e-5
GAIN = np.float32(np.sqrt(2.0))


def _weights(gain: float = 1.0) -> dict[str, np.ndarray]:
    keys = json.loads((full_size.GOLDENS / "cavp_keys.json").read_text())
    state = {}
    for key, (shape, dtype) in keys.items():
        if key == "logit_scale":
            state[key] = np.float32(np.log(1 / 0.07))
        elif fill.is_filled(key, shape, dtype):
            value = fill.fill_value(key, shape, PREFIX)
            if key.startswith("spec_encoder.") and value.ndim >= 2:
                value = value * np.float32(gain)
            state[key] = value
        else:
            state[key] = np.zeros(shape, dtype)
    return state


@pytest.fixture(scope="module")
def golden():
    return np.load(full_size.GOLDENS / "cavp.npz")


@pytest.fixture(scope="module")
def model():
    return registry.from_state_dict("diff_foley/cavp", _weights())


def _video(case: str) -> np.ndarray:
    if case == "v16":
        x = fill.structured("cavp_video_v16", PREFIX, (2, 16, 3), (7, 7), (32, 32))
    else:
        x = fill.structured("cavp_video_v16w", PREFIX, (2, 16, 3), (4, 4), (28, 28), wide=20)
    return x.transpose(0, 1, 3, 4, 2)  # [B, T, C, H, W] -> [B, T, H, W, C]


def _spec(case: str) -> np.ndarray:
    if case == "s256":
        return fill.structured("cavp_spec_s256", PREFIX, (2,), (16, 32), (8, 8))
    return fill.structured("cavp_spec_s256g", PREFIX, (2,), (4, 8), (32, 32), wide=4)


def _video_walk(model, x_BTHWC):
    """Every hooked activation of the image side, in our layout."""
    encoder, (b, t) = model.video_encoder, x_BTHWC.shape[:2]
    out = {}
    x = x_BTHWC.reshape(b * t, *x_BTHWC.shape[2:])
    out["conv1"] = encoder.conv1(x, t, train=False, relu=True)
    x = out["maxpool"] = encoder.apply_stem(x_BTHWC, train=False)
    for index in range(1, 5):
        x = out[f"layer{index}"] = encoder.apply_layer(index, x, t, train=False)
    out = {k: v.reshape(b, t, *v.shape[1:]) for k, v in out.items()}
    out["adaptive_pool"] = encoder(x_BTHWC, train=False)
    out["feat_unnorm"] = model.encode_video(x_BTHWC, normalize=False)
    out["feat"] = model.encode_video(x_BTHWC)
    out["pooled"] = model.encode_video(x_BTHWC, pool=True)
    return out


def _spec_walk(model, mel_BFT):
    encoder = model.spec_encoder
    x = encoder.apply_norm(mel_BFT, train=False)
    out = {"bn": x}
    for index in range(1, 7):
        x = out[f"conv_block{index}"] = encoder.apply_block(index, x, train=False)
    out["feat_unnorm"] = model.encode_spec(mel_BFT, normalize=False)
    out["feat"] = model.encode_spec(mel_BFT)
    out["pooled"] = model.encode_spec(mel_BFT, pool=True)
    return out


def _crops(case: str) -> dict[str, tuple]:
    """The stored subset of each official activation, in the official layout [B, C, T, H, W]."""
    every = slice(None)
    if case.startswith("v"):
        stem = (every, slice(None, None, 16), slice(None, None, 5), *(slice(None, None, 9),) * 2)
        layer = (every, slice(None, None, 32), *(slice(None, None, 3),) * 3)
        crops = {"conv1": stem, "maxpool": stem}
        crops.update({f"layer{i}": layer for i in range(1, 5)})
        crops["adaptive_pool"] = (every, slice(None, None, 4))
        return crops
    by = [slice(None, None, n) for n in (4, 8, 16, 32)]
    return {
        "bn": (every, every, by[1], by[0]),
        "conv_block1": (every, by[1], by[1], by[0]),
        "conv_block2": (every, by[1], by[0], by[0]),
        "conv_block4": (every, by[2]),
        "conv_block6": (every, by[3]),
    }


def _check(case, ours, golden):
    """Compares every stored activation, scaled to the unit standard deviation of the truth."""
    crops = _crops(case)
    worst = {}
    for name, value in ours.items():
        key = f"{case}/{name}"
        if key not in golden:
            continue
        if name in crops:
            value = np.moveaxis(value, -1, 1)[crops[name]]  # channels first, then the crop
        want = golden[key]
        assert value.shape == want.shape, (key, value.shape, want.shape)
        # scaled, so that small and wide activations weigh the same
        worst[name] = float(np.abs(value - want).max() / want.std())
    print(case, {k: f"{v:.1e}" for k, v in worst.items()})
    assert len(worst) >= len(crops) + 3
    assert max(worst.values()) <= ATOL, worst
    return worst


@pytest.mark.parametrize("case", ["v16", "v16w"])
def test_video_encoder_matches_the_official_activations(model, golden, case):
    _check(case, full_size.jitted(model, _video_walk, _video(case)), golden)


def test_spec_encoder_matches_the_official_activations(model, golden):
    _check("s256", full_size.jitted(model, _spec_walk, _spec("s256")), golden)


def test_spec_encoder_matches_with_a_gain_that_keeps_the_input_visible(golden):
    model = registry.from_state_dict("diff_foley/cavp", _weights(GAIN))
    _check("s256g", full_size.jitted(model, _spec_walk, _spec("s256g")), golden)


def test_logits_match_the_official_forward(model, golden):
    def forward(model, frames, mel):
        video = model.encode_video(frames, pool=True)
        audio = model.encode_spec(mel, pool=True)
        scale = jax.numpy.exp(model.logit_scale[...])
        return scale, scale * video @ audio.T

    scale, logits = full_size.jitted(model, forward, _video("v16"), _spec("s256"))
    np.testing.assert_allclose(scale, golden["forward/logit_scale_exp"][0], rtol=1e-6)
    print("forward", np.abs(logits - golden["forward/logits"]).max())
    np.testing.assert_allclose(logits, golden["forward/logits"], atol=ATOL, rtol=0)
