"""AudioCLIP's audio encoder against the official PyTorch module, in both presets."""

from flax import nnx
import jax
import network_goldens
import numpy as np
import pytest
import torch

from foley_jax.evaluation.networks import audioclip, convolution
from foley_jax.interop import fill, registry
from foley_jax.layers import batch_norm


# the other scales and BatchNorm modes, each a compilation, are in tests/slow
@pytest.mark.slow
def test_default_matches_the_official_module_in_evaluation_mode():
    assert audioclip.PRESETS["default"] == {"int16_scale": True, "batch_statistics": False}
    errors = network_goldens.audioclip("int16scale/eval_mode")
    print(errors)
    assert errors["x_db"] <= network_goldens.FRONT_END_LIMIT, errors
    assert errors["embedding"] <= network_goldens.NETWORK_LIMIT, errors


def test_official_preset_hears_audio_as_the_official_code_does():
    """From audio in [-1, 1] a few rounding steps are left: every rounding must be the same."""
    want, _ = network_goldens.golden("audioclip_audio")
    assert audioclip.PRESETS["official"] == {"int16_scale": False, "batch_statistics": True}
    model = registry.from_state_dict("audioclip/audio", network_goldens.audioclip_state())
    decibels = network_goldens.run(
        model,
        lambda model, x: model.spectrogram(x, int16_scale=False),
        network_goldens.audioclip_sounds(),
    )
    cut = decibels.transpose(0, 3, 1, 2)[:, None, :, ::16, ::4]
    error = network_goldens.distance(cut, want["as_coded/x_db"])
    print(f"x_db {error:.1e}")
    assert error <= network_goldens.FRONT_END_LIMIT


def test_batch_statistics_are_torchs_and_stay_unstored():
    rng = np.random.default_rng(0)
    # three numbers a channel, as in the last attention, far from zero
    x = (5.0 + 0.1 * rng.standard_normal((3, 1, 1, 64))).astype(np.float32)
    norm = batch_norm.BatchNorm(64, rngs=nnx.Rngs(0))
    got = convolution.normalize(norm, jax.numpy.asarray(x), batch_statistics=True)
    want = torch.nn.functional.batch_norm(
        torch.tensor(x, dtype=torch.float64).permute(0, 3, 1, 2), None, None, training=True
    )
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).numpy(), atol=2e-5)
    np.testing.assert_array_equal(norm.mean[...], np.zeros(64))


def test_adaptive_windows_are_torchs():
    x = np.random.default_rng(0).standard_normal((2, 43, 31, 3)).astype(np.float32)
    for size in ((22, 16), (43, 31), (1, 1), (11, 4)):
        want = torch.nn.functional.adaptive_max_pool2d(torch.tensor(x).permute(0, 3, 1, 2), size)
        got = audioclip._adaptive_max(jax.numpy.asarray(x), size)
        np.testing.assert_array_equal(got, want.permute(0, 2, 3, 1).numpy())


@pytest.mark.slow
def test_trained_transform_is_the_officials():
    """Its exponents leave 0 in training; then powers of negative numbers turn the phase."""
    rng = np.random.default_rng(0)
    weights = network_goldens.audioclip_state()
    bins = weights["fbsp.m"].size
    weights["fbsp.m"] = rng.uniform(0.5, 2.0, bins).astype(np.float32)
    weights["fbsp.fb"] = rng.uniform(0.5, 1.5, bins).astype(np.float32)
    model = registry.from_state_dict("audioclip/audio", weights)
    real, imaginary = (np.asarray(part)[:, ::40] for part in model.fbsp.kernels())
    t = audioclip._times().astype(np.float64)[None, ::40]
    m, fb, fc = (weights[f"fbsp.{n}"].astype(np.float64)[:, None] for n in ("m", "fb", "fc"))
    x = fb * t / (m + 1e-8)
    window = (np.sin(x) / x).astype(complex) ** m
    want = np.sqrt(fb) * window * np.exp(-1j * fc * t) / np.sqrt(2048)
    assert (np.sin(x) / x < 0).any()
    # float32 phases of up to 3200 radians
    np.testing.assert_allclose(real + 1j * imaginary, want, atol=3e-4 * np.abs(want).max())


def test_whole_file_of_audioclip_is_read_strictly(tmp_path):
    whole = {f"audio.{key}": value for key, value in network_goldens.audioclip_state().items()}
    whole["visual.conv1.weight"] = whole["logit_scale_ai"] = np.zeros(1, np.float32)
    path = tmp_path / "AudioCLIP-Full-Training.pt"
    torch.save({key: torch.from_numpy(np.asarray(value)) for key, value in whole.items()}, path)
    assert registry.recognise(path) == "audioclip/audio"
    assert registry.load_torch("audioclip/audio", path).fc.kernel.shape == (2048, 1024)
    whole["audio.layer5.0.conv1.weight"] = whole.pop("audio.layer4.0.conv1.weight")
    with pytest.raises(fill.ConversionError) as error:
        registry.from_state_dict("audioclip/audio", whole)
    for part in ("layer5.0.conv1.weight", "layer4/0/unit1/conv/kernel"):
        assert part in str(error.value)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="'paper', known presets: default, official"):
        audioclip.AudioClip.embed(None, np.zeros((2, 5000), np.float32), "paper")
    with pytest.raises(ValueError, match="batch statistics of one audio clip"):
        audioclip.AudioClip.__call__(None, np.zeros((1, 5000)), batch_statistics=True)
    with pytest.raises(ValueError, match=r"expected \[B, L\]"):
        audioclip.AudioClip.__call__(None, np.zeros((1, 1, 5000)))
