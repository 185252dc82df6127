"""Reading from the middle of files that cannot be entered there, and damage of all sorts."""

from fractions import Fraction
import types

import av.error
import numpy as np
import pytest

from foley_jax.media import audio, specs, video
from foley_jax.media import container as containers
from tests.media import sync_media


class PackedWindows:
    """A container whose video can be entered only at certain seconds, or not at all."""

    def __init__(self, path, lands=None):
        self.name, self.start_time, self.lands, self.sought = str(path), 0, lands, []
        self.at_s = 0
        self.format = types.SimpleNamespace(name="tape")

    def seek(self, ticks, *, stream):
        self.sought.append(float(ticks * stream.time_base))
        if self.lands is None:
            raise av.error.FFmpegError(1, "Operation not permitted")
        self.at_s = self.lands(self.sought[-1])


def read(container, stream):
    """Seconds from where the container stands; a real one stands at its beginning."""
    begin_s = container.at_s if isinstance(container, PackedWindows) else 0
    yield from ((float(s), s) for s in range(begin_s, 60))


@pytest.fixture
def packed(tmp_path):
    path = sync_media.write(tmp_path / "a.mkv", sync_media.Recipe(".mkv", seconds=0.5, clicks=()))
    stream = types.SimpleNamespace(start_time=0, time_base=Fraction(1, 1000), index=0)
    return lambda lands: (PackedWindows(path, lands), stream)


def test_reading_begins_where_seeking_leads(packed):
    container, stream = packed(lambda s: int(s))
    assert next(containers.from_time(container, stream, 30.5, read)) == (30.0, 30)
    assert container.sought == [30.5]


def test_what_is_too_late_is_sought_farther_back(packed):
    container, stream = packed(lambda s: int(s) + 4)
    items = list(containers.from_time(container, stream, 30.0, read))
    assert items[0] == (19.0, 19) and items[-1] == (59.0, 59)
    assert container.sought == [30.0, 28.0, 15.0]


@pytest.mark.parametrize("lands", [lambda s: 59, None], ids=["always late", "no seeking"])
def test_file_that_cannot_be_entered_is_read_from_its_beginning(packed, lands):
    container, stream = packed(lands)
    assert next(containers.from_time(container, stream, 30.0, read)) == (0.0, 0)


def test_beginning_needs_no_seeking(packed):
    container, stream = packed(None)
    assert next(containers.from_time(container, stream, 0.4, read, run_up_s=0.5)) == (0.0, 0)
    assert container.sought == []


class Packet:
    """A packet whose decoding fails."""

    def __init__(self, error, known=True):
        self.error = error
        context = types.SimpleNamespace(name="h264") if known else None
        self.stream = types.SimpleNamespace(type="video", codec_context=context)

    def decode(self):
        raise self.error


def test_damaged_packets_are_passed_over_and_unknown_codecs_named():
    for kind in (av.error.InvalidDataError, av.error.PermissionError, av.error.EOFError):
        assert list(containers.frames_of(Packet(kind(1, "bad")))) == []
    for packet in (
        Packet(av.error.PatchWelcomeError(1, "not written yet")),
        Packet(av.error.DecoderNotFoundError(1, "none")),
        Packet(None, known=False),
    ):
        with pytest.raises(containers.MediaError, match="no decoder for its video") as caught:
            list(containers.frames_of(packet))
        assert caught.value.reason == "unsupported"


def test_length_of_a_live_recording_is_measured(tmp_path):
    live = sync_media.Recipe(
        ".webm",
        "libvpx",
        "libopus",
        seconds=3.0,
        rate_hz=48000,
        clicks=(),
        container_options=(("live", "1"),),
    )
    path = sync_media.write(tmp_path / "live.webm", live)
    with av.open(str(path)) as container:
        assert not container.duration
    assert video.probe(path).duration_s == pytest.approx(3.0, abs=0.011)


def test_late_image_ends_when_it_ends(tmp_path):
    for suffix in (".mp4", ".mkv"):
        recipe = sync_media.Recipe(suffix, video_start_s=0.6, seconds=2.0, clicks=(10,))
        path = sync_media.write(tmp_path / f"late{suffix}", recipe)
        assert video.probe(path).duration_s == pytest.approx(2.6, abs=0.03)
        shown = video.read_frames(path, specs.VideoSpec(4, 32, 32))
        assert sync_media.numbers(shown) == [0, 0, 0, 3, 8, 13, 18, 23, 28, 33, 38]


def test_where_times_start_again_the_first_recording_counts(tmp_path):
    """Two recordings in one stream, with the same images and clicks at other times."""
    first, second = (
        sync_media.write(tmp_path / f"{clicks[0]}.ts", sync_media.Recipe(".ts", clicks=clicks))
        for clicks in ((10, 35), (22, 50))
    )
    audio_L = audio.load(first, 16000, duration_s=6.0)
    shown = video.read_frames(first, specs.VideoSpec(4, 32, 32), duration_s=6.0)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    np.testing.assert_allclose(audio.load(first, 16000, duration_s=6.0), audio_L, atol=1e-6)
    again = video.read_frames(first, specs.VideoSpec(4, 32, 32), duration_s=6.0)
    assert sync_media.numbers(again) == sync_media.numbers(shown)
