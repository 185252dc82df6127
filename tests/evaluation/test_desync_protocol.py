"""Protocol `desync`, and DeSync and IB-Score of av-benchmark, with networks that count by eye."""

import numpy as np
import pytest

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.networks import registry, synchformer
from foley_jax.evaluation.protocols import (
    av_benchmark_protocol,
    av_benchmark_video,
    desync_figures,
    desync_protocol,
    feature_rules,
    protocol,
)
from foley_jax.evaluation.statistics import desync
from foley_jax.interop import torch_tensors
from foley_jax.media import audio as audio_io
from foley_jax.media import container, writing

SECONDS = 5.2
NAMES = ("a", "b", "c")
LEVELS = {"a": 0.1, "b": 0.3, "c": 0.6}
FILES = ("synchformer_state_dict.pth", "imagebind_huge.pth")


def _segments(x, length, step):
    count = (x.shape[1] - length) // step + 1
    return np.stack([x[:, i * step : i * step + length] for i in range(count)], axis=1)


def _full(values, *shape):
    """Values [B, ...], repeated to [B, ..., *shape]."""
    values = values.reshape(*values.shape, *(1,) * len(shape))
    return np.broadcast_to(values, (*values.shape[: -len(shape)], *shape)).astype(np.float32)


def _audio(batch):
    parts = _segments(batch, synchformer.SEGMENT_SAMPLES, synchformer.STEP_SAMPLES)
    return {"embedding": _full(np.abs(parts).max(axis=-1), 6, 768)}


def _video(batch):
    parts = _segments(batch.astype(np.float32) / 255, 16, 8)
    return {"embedding": _full(parts.mean(axis=(2, 3, 4, 5)), 8, 768)}


def _joint(features):
    """In time if it is as loud as it is bright, else 2 s late."""
    video, audio = (x.mean(axis=(1, 2, 3)) for x in features)
    found = np.where(np.abs(video - audio) < 0.09, 10, 20)
    return {"logits": np.eye(21, dtype=np.float32)[found]}


FAKES = {
    "synchformer_audio": _audio,
    "synchformer_video": _video,
    "synchformer_joint": _joint,
    "imagebind_audio": lambda mels: {"embedding": _full(mels.mean(axis=(1, 2, 3)), 1024)},
    "imagebind_video": lambda crops: {"embedding": _full(crops.mean(axis=(1, 2, 3, 4, 5)), 1024)},
}


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda name, *_, **__: FAKES[name])


@pytest.fixture
def folders(tmp_path):
    """Three videos, as bright as they are loud, and their audio alone."""
    rate = synchformer.RATE_HZ
    for folder in ("true", "ours", "weights"):
        (tmp_path / folder).mkdir()
    for name, level in LEVELS.items():
        frames = np.full((130, 32, 48, 3), round(255 * level), np.uint8)
        audio = level * np.sin(np.arange(round(SECONDS * rate)) / 5).astype(np.float32)
        writing.write_video(
            tmp_path / f"true/{name}.mp4", frames, 25, audio=audio, sample_rate_hz=rate
        )
        audio_io.write_wav(tmp_path / f"ours/{name}.wav", audio, rate)
    for name in FILES:
        (tmp_path / "weights" / name).write_bytes(b"")
    return tmp_path


def _networks(root):
    store = feature_store.FeatureStore(root / "store")
    return feature_rules.Networks(root / "weights", None, store)


@pytest.mark.slow
def test_right_pairs_are_in_time_and_wrong_ones_are_not(folders):
    rules = desync_protocol.DeSync(_networks(folders), seconds=SECONDS)
    found = protocol.evaluate(rules, {"ours": [folders / "ours"]}, folders / "true")
    for system in ("reference", "ours"):
        figures = found.figures[system]
        assert figures["DeSync"] == 0.0 and figures["shuffled_DeSync"] == pytest.approx(2.0)
    assert [row["DeSync"] for row in found.samples] == [0.0] * 6
    # exchanged audio is as late as the network can say
    for one, other in (("a", "b"), ("b", "c")):
        (folders / f"ours/{one}.wav").write_bytes((folders / f"ours/{other}.wav").read_bytes())
    rules = desync_protocol.DeSync(_networks(folders), seconds=SECONDS)
    found = protocol.evaluate(rules, {"ours": [folders / "ours"]}, folders / "true")
    assert found.figures["ours"]["DeSync"] == pytest.approx(4 / 3)


@pytest.mark.slow
def test_audio_that_is_too_short_is_named(folders):
    short = np.full(4 * synchformer.RATE_HZ, 0.5, np.float32)
    audio_io.write_wav(folders / "ours/b.wav", short, synchformer.RATE_HZ)
    rules = desync_protocol.DeSync(_networks(folders), seconds=SECONDS)
    found = protocol.evaluate(rules, {"ours": [folders / "ours"]}, folders / "true")
    assert found.figures["ours"]["clips"] == 2
    (account,) = found.systems["ours"]
    assert "4.000 s of audio, the network needs 4.8 s" in str(account)


def test_what_cannot_be_is_refused(folders):
    with pytest.raises(ValueError, match="seconds is 4.0, Synchformer needs 4.8"):
        desync_protocol.DeSync(_networks(folders), seconds=4.0)
    with pytest.raises(ValueError, match="preset is 'best'"):
        desync_protocol.DeSync(_networks(folders), preset="best")
    (folders / "weights" / FILES[0]).unlink()
    with pytest.raises(ValueError, match="desync has no network.*synchformer_state_dict.pth"):
        desync_protocol.DeSync(_networks(folders))


@pytest.mark.slow
def test_av_benchmark_judges_sync_and_images(folders):
    rules = av_benchmark_protocol.AvBenchmark(
        _networks(folders), cache=folders / "caches", seconds=SECONDS
    )
    found = protocol.evaluate(rules, {"ours": [folders / "ours"]}, folders / "true")
    ours = found.figures["ours"]
    assert ours["DeSync"] == 0.0 and ours["shuffled_DeSync"] == pytest.approx(2.0)
    assert abs(ours["IB-Score"]) == pytest.approx(1.0)
    assert "DeSync" not in found.skipped and "IB-Score" not in found.skipped
    assert "FD-VGG" in found.skipped
    shapes = {"synchformer_audio": (15, 6, 768), "synchformer_video": (15, 8, 768)}
    shapes |= {"imagebind_audio": (1024,), "imagebind_video": (1024,)}
    for file, shape in shapes.items():
        saved = torch_tensors.read(folders / f"caches/reference/{file}.pth")
        assert set(saved) == set(NAMES) and saved["a"].shape == shape
    # the caches alone serve IB-Score; DeSync needs the network
    again = av_benchmark_protocol.AvBenchmark(None, cache=folders / "caches", seconds=SECONDS)
    found = protocol.evaluate(again, {"ours": [folders / "ours"]}, folders / "true")
    assert found.figures["ours"]["IB-Score"] == ours["IB-Score"]
    assert "no weights" in found.skipped["DeSync"]


def test_a_reference_without_videos_loses_their_metrics_alone(folders):
    rules = av_benchmark_protocol.AvBenchmark(_networks(folders), seconds=SECONDS)
    (folders / "heard").mkdir()
    for name in NAMES:
        wave = (folders / f"ours/{name}.wav").read_bytes()
        (folders / f"heard/{name}.wav").write_bytes(wave)
    found = protocol.evaluate(rules, {"ours": [folders / "ours"]}, folders / "heard")
    assert "has no video" in found.skipped["DeSync"]
    assert "has no video" in found.skipped["IB-Score"]


def test_the_official_preset_wants_the_whole_length(folders):
    path = folders / "true/a.mp4"
    assert len(av_benchmark_video.for_synchformer(path, 8.0)) == 130
    with pytest.raises(container.MediaError, match="130 frames at 25 frames/s.*needs 200"):
        av_benchmark_video.for_synchformer(path, 8.0, exact=True)


def test_features_are_judged_in_the_first_and_the_last_14_segments():
    class Network:
        calls = 0

        def __call__(self, features):
            Network.calls += 1
            video, audio = features
            assert video.shape[:2] == (desync_figures.BATCH, 14)
            # the class is the number of the first segment
            return {
                "logits": np.eye(21)[video[:, 0, 0, 0].astype(int) + audio[:, 0, 0, 0].astype(int)]
            }

    judge = desync_figures.Judge(Network)
    number = np.arange(24, dtype=np.float32)
    video, audio = _full(number[None], 8, 768)[0], _full(0 * number[None], 6, 768)[0]
    pairs = [(video, audio)] * 3
    want = np.mean(np.abs(desync.GRID_S[[0, 10]]))
    np.testing.assert_allclose(judge(pairs), [want] * 3)
    # what only one side has does not count: 20 segments are left
    shorter = np.mean(np.abs(desync.GRID_S[[0, 6]]))
    np.testing.assert_allclose(judge([(video, audio[:20])]), [shorter])
    calls = Network.calls
    judge(pairs)
    assert Network.calls == calls
    with pytest.raises(ValueError, match="13 segments, DeSync needs 14"):
        judge([(video[:13], audio)])
