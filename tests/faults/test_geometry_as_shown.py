"""Pixels that are no squares, mirrored images, odd angles: seen as players show them."""

from fractions import Fraction
import math

import av
import numpy as np
import pytest

from foley_jax.evaluation.protocols import av_align_protocol
from foley_jax.media import geometry, specs, video
from tests.faults import odd_media
from tests.media import media_files

BOX = specs.VideoSpec(fps=10, height=64, width=64, fit="letterbox")
STRETCHED = specs.VideoSpec(fps=10, height=40, width=40)
ANAMORPHIC = Fraction(64, 45)


def white(height: int, width: int, num_frames: int = 3) -> np.ndarray:
    return np.full((num_frames, height, width, 3), 235, np.uint8)


def seen(frames_THWC: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns of image between the bars, of each frame."""
    bright = frames_THWC.min(axis=-1) > 100
    return [(int(b.any(1).sum()), int(b.any(0).sum())) for b in bright]


@pytest.mark.parametrize("said_by", ["frames", "container"])
def test_letterbox_keeps_the_shape_that_is_shown(tmp_path, said_by):
    frames_THWC, path = white(56, 72), tmp_path / "a.mp4"
    if said_by == "frames":
        odd_media.h264(path, frames_THWC, aspect=ANAMORPHIC)
    else:
        odd_media.h264(tmp_path / "b.mp4", frames_THWC)
        odd_media.rewrapped(tmp_path / "b.mp4", path, aspect=ANAMORPHIC)
    info = video.probe(path)
    assert (info.height, info.width) == (56, 102)  # 72 * 64 / 45 = 102.4
    assert seen(video.read_frames(path, BOX)) == [(35, 64)] * 3  # 56 * 64 / 102.4; stored: 49
    # stretched images lose their shape anyway: not a pixel changes
    odd_media.h264(tmp_path / "square.mp4", frames_THWC)
    np.testing.assert_array_equal(
        video.read_frames(path, STRETCHED), video.read_frames(tmp_path / "square.mp4", STRETCHED)
    )


def test_container_counts_more_than_frames(tmp_path):
    odd_media.h264(tmp_path / "a.mp4", white(48, 64), aspect=Fraction(2))
    odd_media.rewrapped(tmp_path / "a.mp4", tmp_path / "b.mp4", aspect=Fraction(1, 2))
    info = video.probe(tmp_path / "b.mp4")
    assert (info.height, info.width) == (96, 64)
    assert seen(video.read_frames(tmp_path / "b.mp4", BOX)) == [(64, 42)] * 3  # 64 * 64 / 96


def test_shape_follows_turns(tmp_path):
    path = odd_media.h264(tmp_path / "a.mp4", white(56, 72), aspect=ANAMORPHIC)
    media_files.rotate_mp4(path, 1)
    info = video.probe(path)
    assert (info.height, info.width, info.rotation) == (102, 56, 270)
    assert seen(video.read_frames(path, BOX)) == [(64, 35)] * 3


def test_pixels_whose_shape_changes(tmp_path):
    aspects = [Fraction(1), Fraction(4, 3)]
    path = odd_media.aspect_changes(tmp_path / "a.ts", aspects)
    spec = specs.VideoSpec(fps=25, height=64, width=64, fit="letterbox")
    shown = seen(video.read_frames(path, spec))
    # the decoder tells of the new shape one frame before it gives the first one that has it
    assert shown[:4] + shown[5:] == [(48, 64)] * 4 + [(36, 64)] * 5


@pytest.mark.parametrize(
    ("stated", "taken"),
    [
        (None, Fraction(1)),
        (Fraction(0), Fraction(1)),
        (Fraction(-4, 3), Fraction(1)),
        (Fraction(1000), Fraction(1)),
        (Fraction(1, 1000), Fraction(1)),
        (Fraction(64, 33), Fraction(64, 33)),
    ],
)
def test_absurd_ratios_count_as_square(stated, taken):
    assert geometry.sane_aspect(stated) == taken


def test_absurd_ratio_in_a_file(tmp_path):
    odd_media.h264(tmp_path / "a.mp4", white(48, 64))
    odd_media.rewrapped(tmp_path / "a.mp4", tmp_path / "b.mp4", aspect=Fraction(500))
    assert video.probe(tmp_path / "b.mp4").width == 64
    assert seen(video.read_frames(tmp_path / "b.mp4", BOX)) == [(48, 64)] * 3
    assert geometry.Geometry(aspect=Fraction(1, 16)).shown_size(8, 1) == (128, 1)


def marked(tmp_path):
    """A video with a mark in the top left corner, and that frame."""
    frame_HWC = np.full((48, 64, 3), 40, np.uint8)
    frame_HWC[:16, :8] = 230
    path = odd_media.h264(tmp_path / "a.mp4", np.repeat(frame_HWC[None], 2, 0))
    return path, frame_HWC


@pytest.mark.parametrize("turns", range(4))
def test_mirrored_images(tmp_path, turns):
    path, frame_HWC = marked(tmp_path)
    mirror = np.array([[-1, 0], [0, 1]])
    quarter = np.array([[0, 1], [-1, 0]])  # counter-clockwise, y down
    shown = np.linalg.matrix_power(quarter, turns) @ mirror
    odd_media.set_matrix(path, shown[0, 0], shown[1, 0], shown[0, 1], shown[1, 1])
    wanted = np.rot90(frame_HWC[:, ::-1], turns)
    spec = specs.VideoSpec(10, *wanted.shape[:2])
    assert video.probe(path).rotation == 90 * turns
    assert np.abs(video.read_frames(path, spec)[0].astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("degrees", [92, 268, 3])
def test_odd_angles_go_to_the_nearest_quarter(tmp_path, degrees):
    path, frame_HWC = marked(tmp_path)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    odd_media.set_matrix(path, -cos, -sin, -sin, cos)  # mirrored, then turned clockwise
    wanted = np.rot90(frame_HWC[:, ::-1], -round(degrees / 90))
    spec = specs.VideoSpec(10, *wanted.shape[:2])
    assert np.abs(video.read_frames(path, spec)[0].astype(int) - wanted).mean() < 3


def test_evaluation_reads_what_is_shown(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        av_align_protocol.optical_flow,
        "mean_motion",
        lambda frames: sizes.append(frames.shape[1:3]) or np.zeros(len(frames) - 1),
    )
    path = odd_media.h264(tmp_path / "a.mp4", white(56, 72), aspect=ANAMORPHIC)
    av_align_protocol.look(path)
    assert sizes == [(56, 102)]


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "vp9"), (".mkv", "h264")])
def test_copies_keep_the_shape(tmp_path, suffix, codec, turns):
    # VP9 has no word for it: what the mp4 says, Matroska could not say of a copied stream
    odd_media.h264(tmp_path / "a.mkv", white(56, 72), codec="libvpx-vp9")
    path = odd_media.rewrapped(tmp_path / "a.mkv", tmp_path / "a.mp4", aspect=ANAMORPHIC)
    media_files.rotate_mp4(path, turns)
    out = tmp_path / f"out{suffix}"
    video.mux(path, np.zeros(4800, np.float32), 16000, out)
    sides = (56, 102), (102, 56)
    assert (video.probe(out).height, video.probe(out).width) == sides[turns]
    assert seen(video.read_frames(out, BOX))[0] == ((35, 64), (64, 35))[turns]
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.codec.name == codec
