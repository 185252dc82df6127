"""Degradation of small images: the resize of the source, and chances that hold."""

import pathlib

from mm_diffusion import images
import numpy as np
import pytest
import simplejpeg

from foley_jax.media import fitting
from foley_jax.mm_diffusion.tasks import degradation

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "mm_diffusion"
RED = np.zeros((64, 64, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def noise_image(side=64):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def degrade(image, seed=0, **fields):
    make = degradation.Degradation(**{"height": 16, "width": 16, **fields})
    return make(image, np.random.default_rng(seed))


def reduced(image, size=(16, 16)):
    return fitting.resize(image, size, cubic=True, antialias=False)


def test_reduction_alone_equals_official():
    golden = np.load(GOLDENS / "data.npz")
    large = np.pad(
        reduced(images.golden("sr_a", (180, 320, 3)), (144, 256)), ((56, 56), (0, 0), (0, 0))
    )
    low = degrade(large, height=64, width=64, noise_probability=0, jpeg_probability=0)
    np.testing.assert_array_equal(low, golden["sr/a/lr_u8"])


def test_resize_keeps_flat_images_and_does_not_smooth():
    flat = np.full((64, 48, 3), 77, np.uint8)
    np.testing.assert_array_equal(reduced(flat, (16, 9)), 77)
    # four pixels in each direction, the outer ones against: nothing else of a 4x4 block counts
    kernel = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    image = noise_image()
    blocks = image.reshape(16, 4, 16, 4, 3).astype(np.float64)
    want = np.einsum("hiwjc,i,j->hwc", blocks, kernel, kernel).clip(0, 255)
    got = reduced(image)
    np.testing.assert_allclose(got, want, atol=0.5 + 1e-9)


def test_noise_is_not_clipped_and_its_strength_varies():
    only = {"noise_probability": 1.0, "jpeg_probability": 0.0}
    spreads = [degrade(RED, seed, **only)[..., 1].std() for seed in range(40)]
    assert min(spreads) < 4 and 14 < max(spreads) < 24
    made = degrade(RED, 1, **only)
    assert made.dtype == np.float32 and made.max() > 255 and made.min() < 0


def test_chances():
    plain = reduced(noise_image())
    make, rng = degradation.Degradation(height=16, width=16), np.random.default_rng(0)
    kinds = []
    for _ in range(400):
        made = make(noise_image(), rng)
        whole = np.array_equal(made, np.rint(made))
        kinds.append("plain" if np.array_equal(made, plain) else "jpeg" if whole else "noise")
    shares = {kind: kinds.count(kind) / 400 for kind in kinds}
    # JPEG (with or without noise) 1/2, noise alone 1/4, neither 1/4; 3 standard deviations of 400
    assert abs(shares["jpeg"] - 0.5) < 0.075
    assert abs(shares["noise"] - 0.25) < 0.065 and abs(shares["plain"] - 0.25) < 0.065


def test_official_jpeg_takes_red_for_blue():
    """Blue costs more in JPEG's luminance: the two presets treat an image differently."""
    image = noise_image()
    jpeg = {"noise_probability": 0.0, "jpeg_probability": 1.0, "jpeg_quality": (20, 20)}
    ours, theirs = (degrade(image, preset=p, **jpeg) for p in ("default", "official"))
    assert not np.array_equal(ours, theirs)
    swapped = degrade(image[..., ::-1], preset="default", **jpeg)
    np.testing.assert_array_equal(theirs, swapped[..., ::-1])
    small = reduced(image)
    data = simplejpeg.encode_jpeg(small, quality=20, colorsubsampling="420")
    np.testing.assert_array_equal(ours, simplejpeg.decode_jpeg(data))


def test_same_seed_same_image():
    np.testing.assert_array_equal(degrade(noise_image(), 3), degrade(noise_image(), 3))


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="preset is 'bgr'"):
        degrade(RED, preset="bgr")
    with pytest.raises(ValueError, match=r"jpeg_quality is \(0, 80\)"):
        degrade(RED, jpeg_quality=(0, 80))
    with pytest.raises(ValueError, match="float64"):
        degrade(RED.astype(float))
