"""YAMNet: its front end by the formulas, its layers against PyTorch's, its files by their names."""

import sys

import bundles
from flax import nnx
from goldens import fill
import jax
import network_goldens
import numpy as np
import pytest
import torch
from torch.nn import functional

from foley_jax.evaluation.networks import keras_weights, yamnet
from foley_jax.interop import fill as strict_fill
from foley_jax.interop import registry

WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
SMALLER = (2, 4, 6, 12)  # layers that halve both sides


def _variables():
    """Seeded variables by their names in the checkpoint, in TensorFlow's layout."""
    rng = np.random.default_rng(0)
    front, number, found = "model/_yamnet/layer_with_weights-", 0, {}

    def conv(leaf, *shape):
        nonlocal number
        inputs = shape[0] * shape[1] * (1 if leaf.startswith("depth") else shape[2])
        found[f"{front}{number}/{leaf}"] = rng.normal(0, inputs**-0.5, shape)
        width = shape[2] if leaf.startswith("depth") else shape[3]
        norm = f"{front}{number + 1}"
        found[f"{norm}/beta"] = rng.normal(0.2, 0.2, width)
        found[f"{norm}/moving_mean"] = rng.normal(0, 0.1, width)
        found[f"{norm}/moving_variance"] = rng.uniform(0.1, 0.5, width)
        number += 2
        return width

    width = conv("kernel", 3, 3, 1, 32)
    for outputs in WIDTHS:
        conv("depthwise_kernel", 3, 3, width, 1)
        width = conv("kernel", 1, 1, width, outputs)
    found[f"{front}54/kernel"] = rng.normal(0, 0.1, (1024, 521))
    found[f"{front}54/bias"] = rng.normal(0, 0.1, 521)
    return {name: value.astype(np.float32) for name, value in found.items()}


def _torch_outputs(variables, windows):
    """The layers one by one: SAME padding of even sides puts one zero at the end only."""
    get = {k.split("layer_with_weights-")[1]: torch.tensor(v) for k, v in variables.items()}
    x, number = torch.tensor(windows)[:, None], 0

    def unit(x, stride, is_deep):
        nonlocal number
        leaf = "depthwise_kernel" if is_deep else "kernel"
        kernel = get[f"{number}/{leaf}"]
        weight = kernel.permute(2, 3, 0, 1) if is_deep else kernel.permute(3, 2, 0, 1)
        if kernel.shape[0] == 3:
            x = functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        x = functional.conv2d(x, weight, stride=stride, groups=x.shape[1] if is_deep else 1)
        beta, mean, var = (
            get[f"{number + 1}/{n}"][:, None, None]
            for n in ("beta", "moving_mean", "moving_variance")
        )
        number += 2
        return torch.relu((x - mean) / torch.sqrt(var + 1e-4) + beta)

    x = unit(x, 2, False)
    for layer in range(1, 14):
        x = unit(x, 2 if layer in SMALLER else 1, True)
        x = unit(x, 1, False)
    embedding = x.mean(dim=(2, 3))
    return embedding.numpy(), (embedding @ get["54/kernel"] + get["54/bias"]).numpy()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(variables, converted module) through a SavedModel's folder."""
    folder, variables = tmp_path_factory.mktemp("yamnet"), _variables()
    more = {"keras_api/metrics/0/total": np.zeros((), np.float32)}
    bundles.write(folder / "variables", variables | more)
    module, filled = registry.convert("yamnet", folder)
    assert set(filled.ignored) == set(more) and not filled.initialised
    return variables, module


def test_layers_match_pytorchs(converted):
    variables, module = converted
    windows = fill.inp("yamnet.windows", (2, 96, 64), "public/")
    want = _torch_outputs(variables, windows)
    got = network_goldens.run(module, lambda model, x: model(x), windows)
    for name, mine, theirs in zip(("embedding", "logits"), got, want, strict=True):
        error = network_goldens.distance(mine, theirs)
        print(f"{name} {error:.1e}")
        assert error <= 1e-5


def _front_end(audio):
    """features.py in float64 with plain loops over frames."""
    hertz = np.linspace(0, 8000, 257)

    def mels(f):
        return 1127.0 * np.log(1.0 + f / 700.0)

    edges = np.linspace(mels(125.0), mels(7500.0), 66)
    basis = np.zeros((257, 64))
    for i in range(64):
        low, centre, high = edges[i : i + 3]
        rise, fall = (mels(hertz) - low) / (centre - low), (high - mels(hertz)) / (high - centre)
        basis[:, i] = np.maximum(0, np.minimum(rise, fall))
    basis[0] = 0
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [
        np.log(np.abs(np.fft.rfft(audio[i : i + 400] * window, 512)) @ basis + 0.001)
        for i in range(0, len(audio) - 399, 160)
    ]
    starts = range(0, len(frames) - 95, 48)
    return np.stack([frames[i : i + 96] for i in starts])


def test_front_end_follows_the_formulas():
    audio = fill.waveform("public/", 3.2, 0)
    got = np.asarray(yamnet.log_mel_windows(audio[None]))[0]
    error = network_goldens.distance(got, _front_end(audio.astype(np.float64)))
    print(f"front end {error:.1e}")
    assert error <= network_goldens.FRONT_END_LIMIT


@pytest.mark.slow
def test_short_audio_is_filled_up_and_a_rest_left_out_or_filled_up():
    audio = fill.waveform("public/", 2.5, 1)[None]
    windows = yamnet.log_mel_windows
    assert windows(audio[:, :100]).shape == (1, 1, 96, 64)
    np.testing.assert_array_equal(
        windows(audio[:, :9000]), windows(np.pad(audio[:, :9000], ((0, 0), (0, 6600))))
    )
    counts = [(n, yamnet.windows_of(n), yamnet.windows_of(n, pad_rest=True)) for n in
              (1, 15600, 15601, 23279, 23280, 40000)]  # fmt: skip
    assert counts == [
        *((1, 1, 1), (15600, 1, 1), (15601, 1, 2)),
        *((23279, 1, 2), (23280, 2, 2), (40000, 4, 5)),
    ]
    padded = windows(audio, pad_rest=True)
    np.testing.assert_array_equal(windows(audio), padded[:, :4])
    assert padded.shape[1] == 5
    assert yamnet.whole_samples(40000) == 15600 + 3 * 7680 and yamnet.whole_samples(9) == 9
    with pytest.raises(ValueError, match=r"expected \[B, L\] with L >= 1"):
        windows(audio[:, :0])


def test_scores_are_means_over_windows_with_a_floor():
    logits = np.array([[[0.0, 3.0, -40.0], [2.0, 3.0, -50.0]]], np.float32)
    got = np.asarray(yamnet.log_scores(logits))
    sigmoid = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
    want = np.log([*sigmoid.mean(axis=0)[:2], 1e-6])
    np.testing.assert_allclose(got[0], want, atol=1e-6)


def _named(key):
    """The Keras file's name of a numbered variable."""
    number, leaf = key.split("layer_with_weights-")[1].split("/")
    number = int(number)
    if number == 54:
        return f"logits/logits/{leaf}:0"
    place, norm = number // 2, "/bn" if number % 2 else ""
    layer = 1 + (place + 1) // 2
    kind = "" if place == 0 else "depthwise_" if place % 2 else "pointwise_"
    return f"layer{layer}/{kind}conv{norm}/layer{layer}/{kind}conv{norm}/{leaf}:0"


def test_the_keras_files_variables_fill_the_same_module(converted, tmp_path):
    variables, module = converted
    np.savez(tmp_path / "yamnet.npz", **{_named(k): v for k, v in variables.items()})
    again = registry.load_torch("yamnet", tmp_path / "yamnet.npz")
    x = fill.inp("yamnet.one", (1, 96, 64), "public/")
    one, other = (network_goldens.run(m, lambda m, x: m(x)[1], x) for m in (module, again))
    np.testing.assert_array_equal(one, other)


def test_the_keras_file_itself_fills_it_strictly(converted, tmp_path):
    h5py = pytest.importorskip("h5py")
    variables, module = converted
    path = tmp_path / "yamnet.h5"
    with h5py.File(path, "w") as file:  # groups of layers, as `save_weights` lays them out
        for key, value in variables.items():
            file[_named(key)] = value
    again = registry.load_torch("yamnet", path)
    for one, other in zip(*(jax.tree.leaves(nnx.state(m)) for m in (module, again)), strict=True):
        np.testing.assert_array_equal(one, other)
    with h5py.File(path, "a") as file:
        file["layer15/pointwise_conv/kernel:0"] = np.zeros(3, np.float32)
        del file["logits"]
    with pytest.raises(strict_fill.ConversionError) as error:
        registry.load_torch("yamnet", path)
    assert "logits/kernel" in str(error.value) and "(3,)" in str(error.value)
    path.write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        registry.load_torch("yamnet", path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="yamnet.h5"):
        registry.load_torch("yamnet", path)


def test_without_h5py_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "yamnet.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match="needs h5py .*pip install h5py, .* numpy.savez"):
        registry.load_torch("yamnet", tmp_path / "yamnet.h5")


def test_a_later_releases_scale_is_taken():
    state = keras_weights.prepare({
        "layer_with_weights-1/beta": np.zeros(2), "layer_with_weights-1/gamma": np.full(2, 3.0)
    })  # fmt: skip
    assert state["units.0.unit.bn.scale"].tolist() == [3.0, 3.0]
    bare = keras_weights.prepare({"layer_with_weights-1/beta": np.zeros(2)})
    assert bare["units.0.unit.bn.scale"].tolist() == [1.0, 1.0]


def test_conversion_is_strict(tmp_path):
    variables = _variables()
    variables["x/layer_with_weights-99/kernel"] = variables.pop(
        "model/_yamnet/layer_with_weights-54/kernel"
    )
    bundles.write(tmp_path / "variables", variables)
    with pytest.raises(strict_fill.ConversionError) as error:
        registry.load_torch("yamnet", tmp_path)
    assert "logits.kernel" in str(error.value) or "logits/kernel" in str(error.value)
