"""Fault 19: the memory that a video takes does not grow with its length, and its audio is the same.

Bounds are made so small that seconds are hours.
"""

import contextlib
import gc
import json
import os
from pathlib import Path
import tracemalloc

import long_media
import numpy as np
import pytest
import soundfile
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.sampling import (
    feature_cache,
    features,
    packed_windows,
    pipeline,
)
from foley_jax.inference import foley as foley_lib
from foley_jax.inference import jobs
from foley_jax.media import audio as audio_io
from foley_jax.media import frames as frames_lib
from foley_jax.media import spool
from foley_jax.media import video as video_io
from foley_jax.vocoders import decode

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_foley.save_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def foley(runs):
    return sample.load(runs / "ldm")


@pytest.fixture
def small(monkeypatch):
    """A second is long: frames are decoded while they are encoded, arrays lie in files."""
    monkeypatch.setattr(sources_lib, "HELD_BYTES", 4 * 16 * 16 * 3)
    monkeypatch.setattr(spool, "HELD_BYTES", 1000)
    monkeypatch.setattr(spool, "PIECE", 5000)


@contextlib.contextmanager
def _peak():
    """Most memory of NumPy and Python in between, in bytes."""
    found = []
    gc.collect()
    tracemalloc.start()
    try:
        yield found
    finally:
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


# ---- whole walks ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_audio_of_a_long_video_is_that_of_one_held_in_memory(foley, small, tmp_path):
    path = long_media.write(tmp_path / "v.mp4", 10.8)  # two groups of frames
    settings = pipeline.Settings(steps=2)
    source = foley.read(path)
    assert isinstance(source.frames_THWC, video_io.Stream)
    (long,) = foley.model.generate([source], settings)[0]
    assert isinstance(long.audio, np.memmap) and isinstance(long.mel_FT, np.memmap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "HELD_BYTES", 1 << 30)
        frames_THWC, duration_s = video_io.read_whole(path, foley.model.video)
        one_piece = features.extract(foley.model._encode_video, frames_THWC, group_frames=1000)
        (short,) = foley.model.generate([pipeline.Source(path, frames_THWC, duration_s)], settings)[
            0
        ]
    assert not isinstance(short.audio, np.memmap)
    _, video_features = sources_lib.view(
        [source], foley.model._encode_video, foley.model.similarity, official=False, batch=1
    )
    np.testing.assert_allclose(video_features[0], one_piece, atol=1e-5)
    np.testing.assert_allclose(long.mel_FT, short.mel_FT, atol=1e-5)
    np.testing.assert_allclose(long.audio, short.audio, atol=1e-5)
    assert long.scores == pytest.approx(short.scores, abs=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(foley, small, tmp_path, monkeypatch):
    """That of Python and NumPy; of whole processes see `foley_jax.bench long_inputs`."""
    monkeypatch.setattr(foley.model, "vocoder", long_media.Tone())
    monkeypatch.setattr(decode, "CHUNK_FRAMES", 512)
    foley = foley.within(pipeline.Run(pad_groups=True))  # one program for both
    settings = pipeline.Settings(steps=2)

    def run(seconds):
        path = long_media.write(tmp_path / f"v{seconds}.mp4", seconds)
        with _peak() as found:
            (clip,) = foley.model.generate([foley.read(path)], settings)[0]
            whole = foley.clip(path, clip)
            whole.save(tmp_path / "out.wav")
            whole.save(tmp_path / "out.mp4")
        return found[0], 4 * (clip.audio.size + clip.mel_FT.size)

    run(12), run(52)  # compile
    (short, held), (long, more) = run(12), run(52)
    assert more - held > 3.5e6 and long - short < 0.2 * (more - held)


def _run(foley, videos, out, **settings):
    """The batch of a folder as the command line makes it; its failures."""
    job = foley_lib.GenerateJob(foley, pipeline.Settings(steps=2, **settings), {})
    return jobs.Batch(job, sorted(videos.iterdir()), jobs.Folder(out, {})).run()


def test_a_folder_of_long_and_broken_videos_loses_no_other(foley, small, tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    long_media.write(videos / "a.mp4", 2.0)
    data = long_media.write(videos / "cut.mp4", 2.0).read_bytes()
    # its index says 2 s, and no frame can be decoded
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    (videos / "cut.mp4").write_bytes(data[:start] + bytes(end - start) + data[end:])
    long_media.write(videos / "z.mp4", 1.9)
    ((path, reason),) = _run(foley, videos, out).items()
    assert path.endswith("cut.mp4") and "no decodable frame" in reason
    assert sorted(json.loads((out / "scores.json").read_text())["clips"]) == ["a", "z"]
    assert soundfile.info(out / "a.wav").frames == 32000 and (out / "z.png").stat().st_size > 1000


def test_long_videos_are_not_decoded_where_they_are_read(foley, small, tmp_path, monkeypatch):
    """But they count in full where a batch is cut into groups."""
    path = long_media.write(tmp_path / "v.mp4", 5.0)
    monkeypatch.setattr(frames_lib.Frame, "fitted", lambda *_: pytest.fail("a frame was decoded"))
    source = foley.read(path)
    assert source.nbytes == 20 * 16 * 16 * 3 and source.duration_s == 5.0


def test_several_audio_of_one_video_share_a_tape_only_as_far_as_it_reaches(
    foley, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "TAPE_WINDOWS", 7)
    sizes, pack = [], packed_windows.pack_windows

    def counted(requests, *args, **options):
        sizes.append([len(request.windows) for request in requests])
        return pack(requests, *args, **options)

    path = long_media.write(tmp_path / "v.mp4", 2.0)
    settings = pipeline.Settings(steps=2, num_samples=3, keep_best=3)
    together = foley.model.draft([foley.read(path)], settings)
    monkeypatch.setattr(packed_windows, "pack_windows", counted)
    monkeypatch.setattr(pipeline, "TAPE_WINDOWS", 1)
    apart = foley.model.draft([foley.read(path)], settings)
    assert len(sizes) == 3 and all(len(own) == 1 for own in sizes)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.mel_FT, other.mel_FT, atol=1e-5)


def test_files_of_dropped_audio_are_closed_and_lie_in_the_output_folder(
    foley, small, tmp_path, monkeypatch
):
    def files():
        gc.collect()
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if link.startswith(str(tmp_path))]

    monkeypatch.setattr(foley.model, "vocoder", long_media.Tone())
    foley = foley.within(pipeline.Run(scratch=tmp_path))
    settings = pipeline.Settings(steps=2, num_samples=4)
    source = foley.read(long_media.write(tmp_path / "v.mp4", 2.0))
    (kept,) = foley.model.generate([source], settings)[0]
    assert len(files()) == 2  # its audio and its mel
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]  # without a name
    kept.audio[:] = 0.5  # as any other array
    assert (np.asarray(kept.audio) == 0.5).all()
    del kept
    assert not files()


# ---- what cannot be flat is refused -----------------------------------------------------------


def test_more_kept_features_than_memory_are_refused_and_nothing_else(foley, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "KEPT_BYTES", 40_000)
    videos = tmp_path / "videos"
    videos.mkdir()
    long_media.write(videos / "long.mp4", 30.0)
    long_media.write(videos / "short.mp4", 1.0)
    ((path, reason),) = _run(foley, videos, tmp_path / "out", cache_interval=2).items()
    assert path.endswith("long.mp4")
    assert "long.mp4 lasts 30 s" in reason and "use cache_interval 1" in reason
    assert (tmp_path / "out" / "short.wav").exists()


def test_the_official_classifier_takes_no_video_of_an_hour(foley, monkeypatch):
    monkeypatch.setattr(foley.model, "classifier", object())
    hour = pipeline.Source(Path("hour.mp4"), np.zeros((4, 16, 16, 3), np.uint8), 3600.0)
    with pytest.raises(ValueError, match=r"hour.mp4 lasts 3600 s; .* at most 600 s.*alignment 0"):
        foley.model.draft([hour], pipeline.Settings(steps=2, preset="official"))


def test_a_long_audio_is_not_reconstructed(foley, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    audio_io.write_wav(path, np.zeros(121 * 800, np.float32), 800)
    monkeypatch.setattr(audio_io, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="long.wav lasts 121 s; at most 120 s"):
        foley.read_audio(path)
