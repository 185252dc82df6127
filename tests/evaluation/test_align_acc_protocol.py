"""Align Acc of folders: pairs, wrong pairs, what is too short; the networks are stand-ins."""

import flashes
import numpy as np
import pytest

from foley_jax.evaluation import alignment, feature_store
from foley_jax.evaluation.protocols import align_acc_protocol, protocol
from foley_jax.media import specs
from foley_jax.media import video as video_io

FPS, SECONDS = 10.0, 4.0
NUM_FRAMES = 250  # 4 s at hop 256


def _judged(model, mels, features, *, seed, num_frames, num_features):
    """Probability 0.9 where loud moments are bright ones."""
    model.append(len(mels))
    prob = []
    for mel_FT, features_LD in zip(mels, features, strict=True):
        assert mel_FT.shape == (128, num_frames) and len(features_LD) == num_features
        frame = (np.arange(num_features) / FPS / 0.016 + 2).astype(int)  # a little after the video
        loud = mel_FT.max(0)[frame.clip(0, num_frames - 1)]
        prob.append(0.9 if np.corrcoef(loud, features_LD[:, 0])[0, 1] > 0.5 else 0.1)
    return alignment.AlignAcc(0.0, np.array(prob, np.float32))


@pytest.fixture
def rules(tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "align_acc", _judged)
    judge = align_acc_protocol.Judge(
        [],
        lambda x_BTHWC: x_BTHWC.mean(axis=(2, 3, 4))[..., None],
        specs.AudioSpec(hop=256),
        specs.VideoSpec(FPS, 32, 32),
        {"classifier": "a", "cavp": "b"},
        NUM_FRAMES,
        round(FPS * SECONDS),
    )
    return align_acc_protocol.AlignAcc(judge, feature_store.FeatureStore(tmp_path / "store"))


def _write(folder, seconds=SECONDS, count=5, other=False):
    """Clips with flashes and blows; with `other` the blows of other clips."""
    folder.mkdir()
    times = [flashes.times(np.random.default_rng(i), SECONDS) for i in range(count)]
    for i in range(count):
        heard = flashes.audio(times[(i + other) % count], seconds)
        frames = flashes.frames(times[i], FPS, seconds, np.random.default_rng(i))
        video_io.write_video(
            folder / f"c{i}.mp4", frames, FPS, audio=heard, sample_rate_hz=flashes.RATE_HZ
        )
    return folder


@pytest.mark.slow
def test_truth_is_in_time_and_others_are_not(rules, tmp_path):
    reference, other = _write(tmp_path / "true"), _write(tmp_path / "other", other=True)
    result = protocol.evaluate(rules, {"other": [other]}, reference)
    true, wrong = result.figures[protocol.REFERENCE], result.figures["other"]
    assert true["Align Acc"] == 1.0 and true["probability"] == pytest.approx(0.9)
    assert wrong["Align Acc"] <= 0.2 and true["shuffled Align Acc"] <= 0.3
    features = [r for r in result.samples if r["system"] == protocol.REFERENCE]
    assert [r["Align Acc"] for r in features] == [1.0] * 5
    # figures first, features are remembered: truth, its wrong pairs, the system, its wrong pairs
    assert rules.judge.classifier == [5] * 10
    assert rules.settings()["weights"] == {"classifier": "a", "cavp": "b"}


def test_what_is_too_short_is_named(rules, tmp_path):
    reference, short = _write(tmp_path / "true"), _write(tmp_path / "short", seconds=3.0, count=2)
    (short / "c1.mp4").unlink()
    with pytest.raises(ValueError, match="3.0. s of audio, not 4.00 s"):
        protocol.evaluate(rules, {"short": [short]}, reference)
    _write(tmp_path / "more", seconds=3.0, count=1)
    (tmp_path / "more" / "c0.mp4").rename(reference / "c9.mp4")
    found = protocol.evaluate(rules, {}, reference)
    assert found.figures[protocol.REFERENCE]["clips"] == 5 and "c9" in found.folder_warnings[0]
