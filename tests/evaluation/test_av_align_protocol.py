"""Protocol `av-align` by its command line, on videos drawn here."""

import json

import jolts
import numpy as np
import pytest

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation.protocols import av_align_protocol
from foley_jax.media import audio as audio_io
from foley_jax.media import container
from foley_jax.media import video as video_io

RULES = av_align_protocol.AvAlign()
RATE = RULES.sample_rate_hz
SECONDS = 5.0
NUM_CLIPS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Videos with their audio; the same audio 200 ms late, of which one is missing."""
    root = tmp_path_factory.mktemp("av_align")
    rng = np.random.default_rng(0)
    for name in ("true", "late"):
        (root / name).mkdir()
    for i in range(NUM_CLIPS):
        times = jolts.events(rng, 3)
        audio = jolts.waveform(times, rng, RATE, SECONDS)
        images = jolts.image(times, rng, SECONDS)
        path = root / f"true/clip{i}.mp4"
        video_io.write_video(path, images, jolts.FPS, audio=audio, sample_rate_hz=RATE)
        if i:
            late = jolts.delayed(audio, 0.2, RATE)
            audio_io.write_wav(root / f"late/clip{i}.wav", late, RATE)
    audio_io.write_wav(root / "true/lonely.wav", audio, RATE)
    return root


@pytest.mark.slow
def test_true_audio_is_best_and_gaps_are_told(folders, capsys):
    given = ["--protocol=av-align", f"--reference={folders / 'true'}", f"--out={folders / 'out'}"]
    assert command.main([*given, f"--generated=late={folders / 'late'}"]) == 0
    metrics = json.loads((folders / "out/metrics.json").read_text())
    true, late = (metrics["systems"][name] for name in ("reference", "late"))
    assert (true["clips"], late["clips"]) == (NUM_CLIPS, NUM_CLIPS - 1)
    assert true["av_align"] > 0.6 and late["av_align"] < 0.2
    assert true["shuffled_av_align"] < 0.5 * true["av_align"]
    assert true["av_align_low"] <= true["av_align"] <= true["av_align_high"]
    folder_warnings = metrics["complaints"]
    assert "lonely" in folder_warnings[0] and "1 missing (clip0)" in folder_warnings[1]
    assert "protocol `av-align`" in capsys.readouterr().out
    card = json.loads((folders / "out/run_card.json").read_text())
    assert card["settings"]["flow"]["window"] == 15 and card["settings"]["max_side"] == 256
    why = card["systems"]["reference"][0]["items"]["unreadable"]["lonely"]
    assert "no video" in why


def test_large_images_are_shrunk_and_their_peaks_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(av_align_protocol, "MAX_SIDE", 60)
    times = jolts.events(np.random.default_rng(1), 3)
    small = jolts.image(times, np.random.default_rng(2), SECONDS)
    large = small.repeat(2, axis=1).repeat(2, axis=2)  # 80 pixels
    found = []
    for name, frames in (("small", small), ("large", large)):
        path = tmp_path / f"{name}.mp4"
        video_io.write_video(path, frames, jolts.FPS)
        found.append(av_align_protocol.look(path))
    for seen in found:
        hits = np.abs(seen.peaks_s[:, None] - (times + 0.05)).min(axis=0)
        assert hits.max() <= 0.06 and seen.fps == 10.0 and seen.length_s == SECONDS


def test_files_without_motion_are_refused(tmp_path):
    audio_io.write_wav(tmp_path / "a.wav", np.full(1000, 0.5, np.float32), RATE)
    with pytest.raises(container.MediaError, match="no video"):
        av_align_protocol.look(tmp_path / "a.wav")
    video_io.write_video(tmp_path / "b.mp4", np.zeros((1, 40, 40, 3), np.uint8), 10)
    with pytest.raises(container.MediaError, match="expected 2"):
        av_align_protocol.look(tmp_path / "b.mp4")


def test_audio_after_the_last_frame_does_not_count():
    seen = av_align_protocol.Seen(np.array([1.0]), 10.0, 2.0)
    row = RULES.row(np.array([1.05, 3.0]), seen)
    assert row == {"seen": 1, "heard": 1, "av_align": 1.0, "av_align_official": 1.0}
    figures = RULES.figures({"a": np.array([1.05, 3.0])}, {"a": seen})
    assert figures["av_align"] == 1.0 and np.isnan(figures["shuffled_av_align"])


def test_clips_without_any_peak_leave_no_score():
    seen = av_align_protocol.Seen(np.zeros(0), 10.0, 2.0)
    figures = RULES.figures({"a": np.zeros(0)}, {"a": seen})
    assert np.isnan(figures["av_align"]) and np.isnan(figures["av_align_low"])
    assert figures["clips_without_peaks"] == 1
