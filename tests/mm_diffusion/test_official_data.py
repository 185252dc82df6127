"""Tests what the official data code makes of video and audio: letterbox, range, padding."""

import pathlib

from goldens import fill
from mm_diffusion import images
import numpy as np
import pytest

from foley_jax.data import clips, records
from foley_jax.media import audio, fitting, pixels, specs

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "goldens" / "mm_diffusion" / "data.npz")
SHAPES = {"land": (3, 90, 160, 3), "port": (2, 161, 97, 3), "square": (2, 128, 128, 3)}


def letterbox(image_HWC, size, antialias):
    return fitting.fit(image_HWC, specs.VideoSpec(10, size, size, "letterbox", antialias))


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize(
    ("name", "antialias", "mirror"),
    [
        ("flipFalse/antialias", True, False),
        ("flipTrue/antialias", True, True),
        ("noflip_noantialias", False, False),
    ],
)
def test_letterbox_equals_official(case, name, antialias, mirror):
    frames = images.golden(case, SHAPES[case])
    made = np.stack([letterbox(frame, 64, antialias) for frame in frames])
    # the official code mirrors before it resizes; bars of odd width would tell, were there any
    made = made[:, :, ::-1] if mirror else made
    want = np.moveaxis(GOLDEN[f"video/{case}/{name}"], 1, -1)
    np.testing.assert_array_equal(made, want)


@pytest.mark.parametrize("case", SHAPES)
def test_range_equals_official(case):
    shown = GOLDEN[f"video/{case}/flipFalse/antialias"][:1]
    np.testing.assert_allclose(
        pixels.from_uint8(shown), GOLDEN[f"video/{case}/float"], atol=1e-7
    )  # float32 near 1


def test_pixels_written_equal_official():
    sample = 0.8 * fill.inp("data.sample", (2, 4, 3, 6, 5), "public/")
    made = pixels.to_uint8(np.moveaxis(sample, 2, -1))
    np.testing.assert_array_equal(made, GOLDEN["post/video_u8"])


@pytest.mark.parametrize(("name", "shape"), [("a", (180, 320, 3)), ("b", (300, 170, 3))])
def test_super_resolution_pairs_equal_official(name, shape):
    """The official letterbox to 256 and the reduction to 64, both by cv2's cubic resize."""
    large = letterbox(images.golden(f"sr_{name}", shape), 256, antialias=False)
    np.testing.assert_array_equal(large[::2, ::2], GOLDEN[f"sr/{name}/hr_u8"])
    low = fitting.resize(large, (64, 64), cubic=True, antialias=False)
    np.testing.assert_array_equal(low, GOLDEN[f"sr/{name}/lr_u8"])
    np.testing.assert_allclose(
        pixels.from_uint8(low[::4, ::4]), GOLDEN[f"sr/{name}/lr_float"], atol=1e-7
    )


@pytest.mark.parametrize(("name", "length"), [("long", 26000), ("short", 24533)])
def test_audio_is_cut_or_padded_as_official(name, length):
    """16 frames at 10 frames/s are 25600 samples; the official code reads the left channel."""
    left = 0.2 * fill.inp(f"data.audio_{name}", (30000, 2), "public/")[:length, 0]
    clip = records.Clip(
        id="a",
        split="train",
        labels=[],
        source="a.mp4",
        start_s=0.0,
        end_s=1.6,
        fps=10.0,
        frames=[b""] * 16,
        audio=audio.to_pcm16(left),
        sample_rate_hz=16000,
    )
    line = clips.Timeline.of(clip, fps=10.0, num_frames=16, num_samples=25600)
    want = GOLDEN[f"audio/{name}/first_last"]
    got = np.asarray(audio.from_pcm16(line.audio))
    np.testing.assert_array_equal(line.index, np.arange(16))
    assert got.shape == (25600,)
    # the golden holds the first and last 64 samples (and some others)
    np.testing.assert_allclose(got[:64], want[:64], atol=1 / 32767)  # 16 bits
    np.testing.assert_allclose(got[-64:], want[64:128], atol=1 / 32767)
