"""Farneback flow equals OpenCV's, and known motions come back."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from foley_jax.evaluation import optical_flow

GOLDEN = Path(__file__).parents[1] / "goldens/evaluation/optical_flow.npz"
TOLERANCE = 1e-4  # pixels; float32 sums in another order move single vectors by 5e-5


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def _texture(height, width, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = ndimage.gaussian_filter(noise, 2.0, mode="wrap")
    return 127 + 100 * smooth / np.abs(smooth).max()


@pytest.mark.parametrize("case", ["b", "c"])
def test_flow_is_opencvs_with_one_and_two_smaller_levels(golden, case):
    """Odd sizes: 70x97 has one level below it, 130x150 two."""
    flow = optical_flow.Farneback()(*golden[f"{case}_grey"])
    np.testing.assert_allclose(flow[::4, ::4], golden[f"{case}_flow"], rtol=0, atol=TOLERANCE)


def test_flow_and_mean_motion_of_rgb_frames_are_opencvs(golden):
    frames = golden["rgb"]
    np.testing.assert_array_equal(optical_flow.grey(frames), golden["rgb_grey"])
    flow = optical_flow.Farneback()(*golden["rgb_grey"][:2])
    np.testing.assert_allclose(flow[::2, ::2], golden["rgb_flow"][0], rtol=0, atol=TOLERANCE)
    motion = optical_flow.mean_motion(frames)
    np.testing.assert_allclose(motion[1:], golden["rgb_motion"], rtol=1e-5)
    assert motion[0] == motion[1]


@pytest.mark.parametrize("shift", [(0, 1), (2, 0), (-1, 3)])
def test_a_shifted_texture_moves_by_its_shift(shift):
    before = _texture(96, 96)
    flow = optical_flow.Farneback()(before, np.roll(before, shift, axis=(0, 1)))
    middle = flow[16:-16, 16:-16].reshape(-1, 2)
    np.testing.assert_allclose(np.median(middle, axis=0), shift[::-1], atol=0.05)


def test_equal_images_do_not_move():
    """But at the last row and column, which OpenCV takes to have left the video."""
    before = _texture(60, 64)
    flow = np.abs(optical_flow.Farneback()(before, before))
    assert flow[:30, :34].max() < 1e-6
    assert flow.max() < 0.2
    frames = np.full((3, 20, 20, 3), 77, np.uint8)  # smaller than any level, no texture
    np.testing.assert_array_equal(optical_flow.mean_motion(frames), 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 40)])
def test_images_smaller_than_a_neighbourhood_have_a_flow(shape):
    flow = optical_flow.Farneback()(np.zeros(shape), np.ones(shape))
    assert flow.shape == (*shape, 2) and np.isfinite(flow).all()


def test_unusable_images_are_refused():
    with pytest.raises(ValueError, match="equal"):
        optical_flow.Farneback()(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="uint8"):
        optical_flow.mean_motion(np.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="1 frames"):
        optical_flow.mean_motion(np.zeros((1, 4, 4, 3), np.uint8))
