"""Fault 19: what is made piece by piece is what is made in one piece, and little of it is held."""

from pathlib import Path
import weakref

import filled
import jax.numpy as jnp
import long_media
import numpy as np
import pytest
import tiny_foley

from foley_jax.diff_foley.sampling import (
    features,
    similarity,
)
from foley_jax.diffusion import tape, windows
from foley_jax.media import audio as audio_io
from foley_jax.media import mel as mel_lib
from foley_jax.media import plots, specs, spool
from foley_jax.media import video as video_io
from foley_jax.runtime import grouped
from foley_jax.runtime import network as network_lib
from foley_jax.vocoders import decode

pytestmark = pytest.mark.usefixtures("quick_compilation")

AUDIO = specs.AudioSpec()


@pytest.mark.parametrize("length", [1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 29])
def test_streamed_groups_are_those_of_the_whole_video(length):
    """Against the bounds in closed form: new frames and their reach, the last one at the end."""
    group, reach = 4, 1
    whole, want, done = group + 2 * reach, [], 0
    while done < length:
        start = 0 if length <= whole else min(max(0, done - reach), length - whole)
        stop = min(start + whole, length)
        end = length if stop == length else stop - reach
        want.append((start, stop, done - start, end - start))
        done = end
    frames = (np.full((1, 1, 3), i, np.uint8) for i in range(length))
    got = [
        (part[0, 0, 0, 0], part[-1, 0, 0, 0] + 1, own.start, own.stop)
        for part, own in features.seamless_groups(frames, group_frames=group, reach_frames=reach)
    ]
    assert got == want


def test_few_frames_are_alive_at_once():
    made, alive = [], []

    def frames():
        for _ in range(400):
            frame = np.zeros((2, 2, 3), np.uint8)
            made.append(weakref.ref(frame))
            alive.append(sum(ref() is not None for ref in made))
            yield frame

    groups = features.seamless_groups(frames(), group_frames=8, reach_frames=2)
    assert sum(own.stop - own.start for _, own in groups) == 400
    assert max(alive) <= 2 * (8 + 2 * 2)


def test_groups_of_one_shape_share_a_batch_and_rows_keep_their_order():
    shapes = []

    def encode(frames_BTHWC):
        shapes.append(frames_BTHWC.shape[:2])
        return frames_BTHWC[..., 0, 0, :1].astype(np.float32)

    lengths = (23, 2, 2, 9)
    frames = [
        [np.full((1, 1, 3), 30 * i + t, np.uint8) for t in range(n)] for i, n in enumerate(lengths)
    ]
    groups = (features.seamless_groups(f, group_frames=4, reach_frames=1) for f in frames)
    video_features = grouped.encode(encode, groups, batch=3)
    for i, (own_TD, length) in enumerate(zip(video_features, lengths, strict=True)):
        assert own_TD[:, 0].tolist() == [30 * i + t for t in range(length)]
    assert sorted(shapes) == [(3, 2), (3, 6), (3, 6), (3, 6)]


def test_windows_are_joined_piece_by_piece():
    rng = np.random.default_rng(0)
    first = [0, 20, 45, 60, 160]  # the last one begins behind a gap
    mels = rng.random((5, 3, 64)).astype(np.float32)
    share = windows.weights(first, 64)
    want = np.zeros((3, 224), np.float32)
    for start, own_T, mel_FT in zip(first, share, mels):
        want[:, start : start + 64] += own_T * mel_FT
    parts = list(windows.joined(iter(mels), first))
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), want)
    assert max(part.shape[1] for part in parts) <= 100


def test_chunks_of_audio_are_joined_as_they_come(monkeypatch):
    """Against the whole line in memory, joined one chunk after the other."""
    monkeypatch.setattr(spool, "HELD_BYTES", 1000)
    monkeypatch.setattr(spool, "PIECE", 5000)
    monkeypatch.setattr(decode, "CHUNK_FRAMES", 512)
    monkeypatch.setattr(decode, "OVERLAP_FRAMES", 128)
    rng = np.random.default_rng(0)
    mels = [rng.random((4, frames)).astype(np.float32) for frames in (1500, 300, 900)]
    lengths = [1490 * AUDIO.hop, 70_000, 950 * AUDIO.hop]
    made = decode.vocode(mels, lengths, AUDIO, max_batch=2, through=long_media.Tone())
    for mel_FT, length, got in zip(mels, lengths, made, strict=True):
        frames, line = min(mel_FT.shape[1], length // AUDIO.hop + 5), None
        for start in decode._chunk_starts(frames):
            size = decode._rounded(min(frames - start, 512))
            chunk_FT = decode.fit(mel_FT[:, start:], size)
            (wave,) = long_media.Tone()(jnp.asarray(chunk_FT)[None], AUDIO)
            if line is None:
                line = wave
            else:
                line = decode.crossfade(line, wave, start * AUDIO.hop, round(0.02 * 16000))
        assert isinstance(got, np.memmap) and got.dtype == np.float32
        np.testing.assert_allclose(got, decode.fit(line, length), atol=1e-6)


@pytest.mark.slow
def test_scores_of_a_audio_in_pieces_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(similarity, "CLIPS", 2)
    model = network_lib.Network.of(filled.model(tiny_foley.cavp()))
    audio = specs.AudioSpec(**tiny_foley.cavp().audio)
    score = similarity.Similarity(model, specs.VideoSpec(4.0, 16, 16), audio)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (16 * 3 + 5, 16, 16, 3), dtype=np.uint8)
    audio_L = rng.uniform(-1, 1, 12 * 16000 + 777).astype(np.float32)
    embedded = []
    passed = list(score.passing(iter(frames), embedded))
    assert len(passed) == len(frames) and [len(own) for own in embedded] == [2, 1]
    (got,) = score([np.concatenate(embedded)], [audio_L])
    mel_FT = np.asarray(mel_lib.log_mel(audio_L[None], audio))[0][:, : 3 * 256]
    video_BD = model.jit(similarity._embed_video)(frames[:48].reshape(3, 16, 16, 16, 3))
    want_B = model.jit(similarity._compare)(video_BD, np.stack(np.split(mel_FT, 3, axis=1)))
    assert got == pytest.approx(float(want_B.mean()), abs=1e-6)
    assert np.isnan(score([np.zeros((0, 0), np.float32)], [audio_L])[0])


def test_a_spool_is_an_array_in_a_file_and_gives_its_pages_back(tmp_path):
    rng = np.random.default_rng(0)
    made, want = spool.Spool((2,), tmp_path), []
    for count in (0, 3, 1 << 20, 1, 1 << 19):
        want.append(rng.random((count, 2), np.float32))
        made.append(want[-1])
    made.pad(len(made) + 5)
    array = made.array()
    del made
    np.testing.assert_array_equal(array, np.concatenate([*want, np.zeros((5, 2))]))
    del want

    def mapped():  # memory of this process that pages of files take
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    spool.part(array, slice(0, 1))
    before = mapped()
    total = sum(float(piece.sum()) for piece in spool.pieces(np.asarray(array.T).T))
    assert total == pytest.approx(float(np.asarray(array).sum(dtype=np.float64)), rel=1e-4)
    spool.part(array, slice(0, 1))
    assert mapped() - before < 2000  # kB, of 12,000


def test_private_changes_of_a_map_are_not_lost(tmp_path):
    np.zeros(5000, np.float32).tofile(tmp_path / "a")
    array = np.memmap(tmp_path / "a", np.float32, "c")
    array[:] = 1.0
    assert spool.part(array, slice(0, 10)).sum() == 10 and array.sum() == 5000


def test_files_written_in_pieces_are_those_written_at_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    audio_L = (0.5 * rng.uniform(-1, 1, 33_333)).astype(np.float32)
    path = long_media.write(tmp_path / "v.mp4", 2.0)
    frames = rng.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    for name, size in (("one", 1 << 20), ("many", 777)):
        monkeypatch.setattr(spool, "PIECE", size)
        audio_io.write_wav(tmp_path / f"{name}.wav", audio_L, 16000)
        video_io.mux(path, audio_L, 16000, tmp_path / f"{name}.mp4")
        video_io.write_video(
            tmp_path / f"{name}.mkv", frames, 4, audio=audio_L, sample_rate_hz=16000
        )
    for suffix in ("wav", "mp4"):
        one, many = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "many"))
        assert one == many
    one, many = (audio_io.load(tmp_path / f"{name}.mkv", 16000) for name in ("one", "many"))
    np.testing.assert_array_equal(one, many)


def test_a_plot_of_hours_has_columns_of_means(tmp_path, monkeypatch):
    rng, drawn, draw = np.random.default_rng(0), [], plots.draw_mel
    monkeypatch.setattr(
        plots, "draw_mel", lambda axes, *args, **k: drawn.append(args) or draw(axes, *args, **k)
    )
    mel_FT = rng.random((5, 3 * plots.SHOWN_COLUMNS - 1)).astype(np.float32)
    plots.save_mel(tmp_path / "long.png", mel_FT, 0.016)
    shown_FT, frame_s = drawn[0]
    assert frame_s == pytest.approx(0.048) and shown_FT.shape == (5, plots.SHOWN_COLUMNS)
    np.testing.assert_allclose(
        shown_FT[:, :2000], mel_FT[:, :6000].reshape(5, 2000, 3).mean(2), atol=1e-6
    )
    np.testing.assert_allclose(shown_FT[:, -1], mel_FT[:, -2:].mean(1), atol=1e-6)
    plots.save_mel(tmp_path / "short.png", mel_FT[:, :4000], 0.016)
    assert drawn[1][0].shape == (5, 4000) and drawn[1][1] == 0.016


@pytest.mark.parametrize("count", [1, 4, 5, 16, 17, 20, 129, 1030])
def test_a_tape_is_little_longer_than_needed(count):
    size = tape.few_sizes(count)
    assert count <= size and size <= (1.25 * count if count > 16 else 2 * count)
    assert len({tape.few_sizes(n) for n in range(1, 2049)}) <= 5 + 4 * 7
