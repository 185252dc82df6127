"""Images for logs: sizes, orientation, what stands where."""

import numpy as np
import pytest

from foley_jax.media import images


def flat(height, width, grey):
    return np.full((height, width, 3), grey, np.uint8)


def test_mels_have_low_bins_below_and_time_to_the_right():
    mel_FT = np.zeros((4, 6), np.float32)
    mel_FT[0, 5] = 1.0
    pixels = images.mel(mel_FT, cell=2)
    assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8
    light = pixels.sum(axis=-1) > 600
    assert light[6:, 10:].all() and light.sum() == 4
    dark = pixels[0, 0].astype(int)
    assert dark.sum() < 10


def test_heat_is_monotone_in_brightness_and_clips():
    row = np.array([[-9.0, -1.0, 0.0, 1.0, 9.0]])
    brightness = images.heat(row, -1.0, 1.0)[0].astype(int).sum(axis=-1)
    assert brightness[0] == brightness[1] < brightness[2] < brightness[3] == brightness[4]


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_strips_hold_frames_in_order(count):
    frames = np.stack([flat(10, 8, 5 * i) for i in range(count)])
    strip = images.strip(frames)
    shown = min(count, images.STRIP_FRAMES)
    assert strip.shape == (10, 9 * shown - 1, 3)
    greys = strip[3, 4::9, 0].astype(int)
    np.testing.assert_array_equal(greys, 5 * (np.arange(shown) * count // shown))


def test_large_frames_are_made_smaller_in_proportion():
    strip = images.strip(np.stack([flat(192, 300, 0), flat(192, 300, 90)]))
    assert strip.shape == (96, 150 + 1 + 150, 3)
    assert (strip[:, 151:] == 90).all()


@pytest.mark.parametrize("width", [3, 6, 20])
def test_stretching_keeps_the_order_of_columns(width):
    image = np.repeat(np.arange(6, dtype=np.uint8), 3 * 3).reshape(6, 3, 3).transpose(1, 0, 2)
    columns = images.stretch(image, width)[1, :, 0].astype(float)
    np.testing.assert_array_equal(columns, np.floor(np.arange(width) * 6 / width))


def test_a_caption_writes_above_and_leaves_the_image():
    image = flat(20, 60, 128)
    titled = images.caption("real", image)
    assert titled.shape == (34, 60, 3)
    np.testing.assert_array_equal(titled[14:], image)
    assert titled[:14].min() < 100 < titled[:14].max()
    assert not np.array_equal(titled, images.caption("made", image))
    assert images.caption("x" * 500, image).shape == titled.shape


def test_images_are_put_together_on_white():
    small, large = flat(4, 6, 0), flat(8, 10, 50)
    column = images.below([small, large])
    assert column.shape == (4 + 3 + 8, 10, 3)
    assert (column[:4, :6] == 0).all() and (column[7:] == 50).all()
    assert (column[:7, 6:] == 255).all() and (column[4:7] == 255).all()
    row = images.beside([small, large], gap=0)
    assert row.shape == (8, 16, 3)
    assert (row[4:, :6] == 255).all() and (row[:, 6:] == 50).all()
