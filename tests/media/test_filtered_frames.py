"""Frames as ffmpeg's `fps` filter picks them, and sizes as torchvision rounds them."""

from fractions import Fraction

import av
import numpy as np
import pytest

from foley_jax.media import container, filtered_frames, writing


def _picked(fps, rate_fps, count, wanted):
    timed = ((i / fps, (i + 1) / fps, i) for i in range(count))
    return list(filtered_frames._chosen(timed, rate_fps, wanted))


def _filtered(fps, rate_fps, count):
    """Numbers of the frames that libavfilter's `fps` gives."""
    graph, tick, found = av.filter.Graph(), Fraction(1, fps), []
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=tick)
    middle, sink = graph.add("fps", f"fps={rate_fps}"), graph.add("buffersink")
    source.link_to(middle)
    middle.link_to(sink)
    graph.configure()
    for i in [*range(count), None]:
        frame = None
        if i is not None:
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), i, np.uint8), format="gray")
            frame.pts, frame.time_base, frame.duration = i, tick, 1
        graph.push(frame)
        try:
            while True:
                found.append(int(graph.pull().to_ndarray()[0, 0]))
        except (av.BlockingIOError, av.EOFError):
            pass
    return found


@pytest.mark.parametrize(
    "fps, rate", [(25, 0.5), (30, 0.5), (30, 25), (24, 25), (50, 25), (12, 25)]
)
def test_frames_are_those_of_the_fps_filter(fps, rate):
    count = 4 * fps
    want = _filtered(fps, rate, count)
    assert _picked(fps, rate, count, len(want) + 1) == want
    if rate == 0.5:
        assert want[0] == fps - 1  # not what is shown at 0 s


@pytest.mark.parametrize("size, want", [((90, 160), (224, 398)), ((300, 200), (336, 224))])
def test_the_shorter_side_is_fitted(tmp_path, size, want):
    assert filtered_frames.short_side_size(*size, 224) == want
    path = tmp_path / "x.mp4"
    writing.write_video(path, np.zeros((6, *size, 3), np.uint8), 25)
    got = filtered_frames.read(path, 25, 0.2, 224)
    assert got.shape == (5, *want, 3) and got.dtype == np.uint8
    assert filtered_frames.centre_crop(got, 224).shape == (5, 224, 224, 3)


def test_the_middle_is_cut_at_even_offsets():
    frames = np.arange(227).reshape(1, 1, 227, 1)
    frames = np.broadcast_to(frames, (1, 224, 227, 1))
    assert filtered_frames.centre_crop(frames, 224)[0, 0, 0, 0] == 2  # 1.5 rounded to even
    assert filtered_frames.centre_crop(frames[:, :, :225], 224)[0, 0, 0, 0] == 0  # 0.5 likewise


def test_what_has_no_video_is_named(tmp_path):
    with pytest.raises(container.MediaError, match="missing|no such"):
        filtered_frames.read(tmp_path / "none.mp4", 25, 1.0, 224)
