"""Audio and video of every container stay together, wherever reading begins.

Worst offsets of the audio from the frame it belongs to, in samples at 16 kHz (62.5 us): below 0.01
in mp4, mov, mkv and webm, 0.1 in MPEG-TS and mpg, 0.2 in wmv, 1 in flv (they round to 1 ms). AVI
leaves in what its codecs are late by, AMR is said to be later than it is: see
`sync_media.UNKNOWN_DELAY`. All images: never more than half a source frame from the middle of
the frame. PCM, FLAC, ALAC, AC-3 and MP3 keep the place of a click to 0.001 samples, AAC, Opus and
Vorbis to 0.003, WMA to 0.14, AMR to 0.2.
"""

import av
import numpy as np
import pytest

from foley_jax.media import audio, frames, specs, video
from foley_jax.media import container as containers
from tests.media import sync_media

RATE_HZ = 16000


def video_s(path) -> float:
    """When the first frame is shown, from the clip's second 0."""
    with av.open(str(path)) as container:
        stream = containers.video_stream(container)
        return containers.start_s(container, stream) - containers.origin_s(container)


def measure(path, recipe, start_s=0.0):
    """(offsets of the clicks in samples, offsets of the shown frames in source frames)."""
    late_s = video_s(path)
    length_s = recipe.seconds - start_s
    audio_L = audio.load(path, RATE_HZ, start_s=start_s, duration_s=length_s)
    clicks = [t + late_s - start_s for t in recipe.click_s if t > start_s + 0.05]
    assert clicks
    fps = 8.0
    spec = specs.VideoSpec(fps, 32, 32)
    frames_THWC = video.read_frames(path, spec, start_s=start_s, duration_s=length_s)
    shown_T = np.array(sync_media.numbers(frames_THWC))
    assert (shown_T >= 0).all() and len(shown_T) >= length_s * fps - 2
    time_T = start_s - late_s + np.arange(len(shown_T)) / fps
    inside_T = time_T >= 0  # before the video begins its first frame stands in
    middles = shown_T + 0.5 - time_T * float(recipe.fps)
    return sync_media.click_offsets(audio_L, RATE_HZ, clicks), middles[inside_T]


def late(suffix, **changes):
    """Audio from 0.7 s on."""
    clicks = (20, 35, 60, 75)
    return sync_media.Recipe(suffix, clicks=clicks, audio_start_s=0.7, audio_seconds=3.3, **changes)


def gap(suffix, **changes):
    """No audio between 0.9 and 1.5 s."""
    clicks = (10, 35, 60, 75)
    return sync_media.Recipe(suffix, clicks=clicks, audio_gap_s=(0.9, 1.5), **changes)


def late_video(suffix, **changes):
    """Frame 0 at 0.6 s."""
    return sync_media.Recipe(suffix, clicks=(10, 35, 60), video_start_s=0.6, **changes)


OPUS = {"audio": "libopus", "rate_hz": 48000}
FINE = (("movie_timescale", "44100"),)
# (recipe, samples that the file itself is off): FFmpeg counts an mp4's edits in milliseconds unless
# it is told otherwise, and all of Opus' packets in Matroska (20 ms, 6.5 ms early) round alike
TIMES = {
    "late mp4": (late(".mp4", container_options=FINE), 0.0),
    "late mp4 in ms": (late(".mp4"), -12.32),
    "late mov": (late(".mov", container_options=FINE), 0.0),
    "late mkv": (late(".mkv"), 0.0),
    "late webm": (late(".webm", image="libvpx", **OPUS), 8.0),
    "late ts": (late(".ts"), 0.0),
    "gap mp4": (gap(".mp4"), 0.0),
    "gap mkv": (gap(".mkv"), 0.0),
    "gap mkv pcm": (gap(".mkv", audio="pcm_s16le"), 0.0),
    "gap ts": (gap(".ts"), 0.0),
    "late image mkv": (late_video(".mkv"), 0.0),
    "late image mp4": (late_video(".mp4", container_options=FINE), 0.0),
}


@pytest.mark.parametrize("name", TIMES)
def test_late_and_interrupted_tracks_keep_their_place(tmp_path, name):
    recipe, off = TIMES[name]
    path = sync_media.write(tmp_path / f"a{recipe.suffix}", recipe)
    for start_s in (0.0, 1.6):
        samples, frames_T = measure(path, recipe, start_s)
        print(f"{name:28} from {start_s} s: {np.round(samples, 3)} samples")
        assert np.abs(np.array(samples) - off).max() <= 1.0
        assert np.abs(frames_T).max() <= 0.5 + 1e-3 * float(recipe.fps)


@pytest.mark.slow
@pytest.mark.parametrize("name", sync_media.MEDIA)
def test_audio_and_image_belong_together(tmp_path, name):
    recipe = sync_media.MEDIA[name]
    path = sync_media.write(tmp_path / f"a{recipe.suffix}", recipe)
    delay = sync_media.UNKNOWN_DELAY.get(name, 0.0)
    for start_s in (0.0, 1.25, 2.2):  # 2.2 is no frame's time; what is before must be sought
        samples, frames_T = measure(path, recipe, start_s)
        print(f"{name:28} from {start_s} s: {np.round(samples, 3)} samples,", end=" ")
        print(f"image {frames_T.min():+.2f} to {frames_T.max():+.2f} source frames")
        assert np.abs(np.array(samples) - delay).max() <= 1.0
        slack = 1e-3 * float(recipe.fps)  # timestamps of 1 ms
        assert np.abs(frames_T).max() <= 0.5 + slack


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "changes"),
    [
        (".mp4", {}),
        pytest.param(".mkv", {}, marks=pytest.mark.slow),
        pytest.param(".webm", {"image": "libvpx", **OPUS}, marks=pytest.mark.slow),
        (".ts", {}),
        pytest.param(".flv", {}, marks=pytest.mark.slow),
    ],
)
def test_far_from_the_beginning_nothing_has_drifted(tmp_path, suffix, changes):
    recipe = sync_media.Recipe(
        suffix, seconds=100, fps=sync_media.Fraction(5), clicks=(410, 435, 460), **changes
    )
    path = sync_media.write(tmp_path / f"a{suffix}", recipe)
    samples, frames_T = measure(path, recipe, 80.1)
    print(f"{suffix:28} from 80.1 s: {np.round(samples, 3)} samples")
    assert np.abs(samples).max() <= 1.0
    assert np.abs(frames_T).max() <= 0.5 + 1e-3 * 5


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("image", ["libx264", "mpeg4"])
def test_b_frames_in_avi_stand_in_their_order(tmp_path, image, threads):
    """AVI has no times of display; how many threads decode must not matter."""
    recipe = sync_media.Recipe(".avi", image=image, audio="pcm_s16le", video_options=(("bf", "2"),))
    path = sync_media.write(tmp_path / "a.avi", recipe)
    for begin_s in (None, 2.0):
        with containers.open_input(path) as container:
            stream = containers.video_stream(container)
            stream.codec_context.thread_count, stream.thread_type = threads, "AUTO"
            timed = list(frames.timed_frames(container, stream, begin_s))
            images = [image.pixels() for _, _, image in timed]
        assert [round(time_s * 20) for time_s, _, _ in timed] == sync_media.numbers(images)
        assert len(timed) == 80 if begin_s is None else 20 < len(timed) < 80
