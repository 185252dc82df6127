"""Images of any shape at one size."""

import numpy as np
from PIL import Image
import pytest

from foley_jax.media import fitting, pixels, specs
from foley_jax.media import video as video_io
from tests.media import media_files


def noise_image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def spec(height, width, fit="letterbox", antialias=True):
    return specs.VideoSpec(10, height, width, fit, antialias)


@pytest.mark.parametrize(
    ("shape", "size", "inner"),
    [
        ((90, 160), (64, 64), (slice(14, 50), slice(0, 64))),
        ((161, 97), (64, 64), (slice(0, 63), slice(13, 51))),  # cut down, the rest at the bottom
        ((40, 40), (64, 96), (slice(0, 64), slice(16, 80))),
        ((2, 900), (64, 64), (slice(31, 32), slice(0, 64))),  # one row is left of it
    ],
)
@pytest.mark.parametrize("antialias", [True, False])
def test_letterbox_keeps_the_shape_within_black_bars(shape, size, inner, antialias):
    white = np.full((*shape, 3), 255, np.uint8)
    made = fitting.fit(white, spec(*size, antialias=antialias))
    want = np.zeros((*size, 3), np.uint8)
    want[inner] = 255
    np.testing.assert_array_equal(made, want)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_image_of_the_size_is_left_alone(fit, antialias):
    image = noise_image(48, 32)
    made = fitting.fit(image, spec(48, 32, fit, antialias))
    np.testing.assert_array_equal(made, image)


def test_antialias_smooths_what_is_made_smaller():
    image = noise_image(160, 160)
    for fit in ("stretch", "letterbox"):
        smooth, rough = (fitting.fit(image, spec(20, 20, fit, a)).std() for a in (True, False))
        assert smooth < 0.4 * rough, fit


@pytest.mark.parametrize("cubic", [True, False])
def test_antialias_is_pils(cubic):
    image = noise_image(90, 130)
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    want = np.asarray(Image.fromarray(image).resize((50, 70), kind)).astype(int)
    made = fitting.resize(image, (70, 50), cubic=cubic, antialias=True)
    assert np.abs(made - want).max() <= 1  # PIL rounds between rows and columns


def test_linear_enlargement_lies_on_the_line():
    ramp = np.arange(0, 200, 20, dtype=np.uint8)[None, :, None].repeat(3, 2)
    made = fitting.resize(ramp, (1, 40), cubic=False, antialias=False)[0, :, 0]
    want = np.interp((np.arange(40) + 0.5) / 4 - 0.5, np.arange(10), ramp[0, :, 0])
    np.testing.assert_allclose(made, want, atol=0.5)


def test_videos_are_read_as_the_spec_says(tmp_path):
    path = media_files.write(tmp_path / "a.mp4", audio=False)  # 48x64, grey
    bars = video_io.read_frames(path, spec(32, 32))
    assert bars.shape == (20, 32, 32, 3)
    assert not bars[5:, :4].any() and not bars[5:, -4:].any() and (bars[5:, 4:-4] > 0).all()
    assert (video_io.read_frames(path, spec(32, 32, "stretch"))[5:] > 0).all()


def test_pixels_there_and_back():
    levels = np.arange(256, dtype=np.uint8)
    values = pixels.from_uint8(levels)
    assert (values.min(), values.max(), values.dtype) == (-1.0, 1.0, np.float32)
    assert np.abs(pixels.to_uint8(values).astype(int) - levels).max() <= 1  # cut, not rounded
    np.testing.assert_array_equal(pixels.to_uint8(np.array([-3.0, 0.0, 3.0])), [0, 127, 255])


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="fit is 'zoom', expected one of stretch, stretch_cubic"):
        spec(8, 8, "zoom")
    with pytest.raises(ValueError, match="float64"):
        fitting.resize(np.zeros((4, 4, 3)), (2, 2), cubic=True, antialias=True)
