"""By what clips are compared: what a descriptor must not see, and what it must."""

import numpy as np
import pytest

from foley_jax.evaluation import feature_store
from foley_jax.evaluation.memorisation import clip_descriptors
from foley_jax.evaluation.networks import registry
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

RATE, SECONDS = clip_descriptors.AUDIO.sample_rate_hz, 1.6
LENGTH = round(RATE * SECONDS)


def _blows(seed, late_s=0.0):
    """Three decaying tones of random pitch and time."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH) / RATE
    out = np.zeros(LENGTH)
    for time_s, pitch_hz in zip(rng.uniform(0.1, 1.4, 3), rng.uniform(200, 3000, 3), strict=True):
        since = t - time_s - late_s
        out += 0.3 * (since >= 0) * np.sin(2 * np.pi * pitch_hz * since) * np.exp(-since / 0.08)
    return out.astype(np.float32)


def _audio(*waves):
    return clip_descriptors.pooled_log_mel(np.stack(waves))


def test_audio_is_rows_of_decibels_below_the_loudest():
    found = _audio(_blows(0), np.zeros(LENGTH, np.float32))
    assert found.shape == (2, 7 * 64) and found.dtype == np.float32
    assert found.min() >= -50 - 1e-4 and found.max() <= 0
    np.testing.assert_allclose(found[1], -50, atol=1e-4)  # silence


def test_a_row_is_the_weighted_mean_of_frames():
    """A steady tone has one loudest band in every frame: 0 dB there in every row."""
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(LENGTH) / RATE).astype(np.float32)
    level_RF = _audio(tone)[0].reshape(7, 64)
    np.testing.assert_allclose(level_RF[1:-1].max(axis=1), 0.0, atol=0.05)
    half = tone.copy()
    half[LENGTH // 2 :] = 0.0  # falls silent at 0.8 s: the row at 0.75 s has about half of both
    band = level_RF[3].argmax()
    falling = _audio(half)[0].reshape(7, 64)[:, band]
    assert falling[1] > -0.5 and falling[5] < -49.5
    assert -30 < falling[3] < -10


def test_audio_is_blind_to_loudness_and_nearly_to_noise_and_small_shifts():
    own = _blows(1)
    noise = 0.01 * own.std() * np.random.default_rng(9).standard_normal(LENGTH)
    found = _audio(own, 0.1 * own, own + noise.astype(np.float32), _blows(1, 0.02), _blows(2))
    apart = np.linalg.norm(found - found[0], axis=1)
    assert apart[1] < 1e-2 * apart[4]
    assert apart[2] < 0.25 * apart[4] and apart[3] < 0.25 * apart[4]


def _write(path, frames, audio):
    video_io.write_video(path, frames, 10, audio=audio, sample_rate_hz=RATE, preset="ultrafast")


@pytest.fixture
def clip(tmp_path):
    """4 s: dark and silent, but from 1.6 s on bright, with blows."""
    frames = np.full((40, 32, 32, 3), 20, np.uint8)
    frames[16:] = 200
    audio = np.concatenate([np.zeros(LENGTH, np.float32), _blows(3), np.zeros(12800, np.float32)])
    _write(tmp_path / "a.mp4", frames, audio)
    return tmp_path / "a.mp4"


def test_a_span_begins_where_it_is_asked_to(clip):
    descriptors, skipped = clip_descriptors.all_of(SECONDS, None)
    assert [d.name for d in descriptors] == ["audio: log-mel", "image: pixels"]
    assert set(skipped) == set(clip_descriptors.NETWORKS)
    store, found = feature_store.FeatureStore(clip.parent / "store"), {}
    for d in descriptors:
        for start_s in (0.0, 1.6):
            perceived = store.extract({"a": clip}, d.at(start_s), "x")
            found[d.medium, start_s] = perceived.items["a"][d.output]
            assert perceived.silent == (("a",) if d.medium == "audio" and not start_s else ())
    assert found["image", 0.0].shape == (13 * 16 * 16 * 3,)
    np.testing.assert_allclose(found["image", 0.0], 20, atol=8)
    np.testing.assert_allclose(found["image", 1.6], 200, atol=8)
    known = _audio(audio_io.load(clip, RATE, start_s=1.6, duration_s=SECONDS))[0]
    np.testing.assert_array_equal(found["audio", 1.6], known)


def test_long_clips_have_no_more_than_sixteen_frames(clip):
    image = clip_descriptors.image(4.0)
    perceived = feature_store.FeatureStore(None).extract({"a": clip}, image.at(0.0), "x")
    assert perceived.items["a"]["features"].shape == (16 * 16 * 16 * 3,)


class _Networks:
    """As `feature_rules.Networks` with two networks that answer what they are given."""

    weights = "nowhere"

    def has(self, name):
        return name != "panns_16k"

    def identity(self, name):
        return {"weights_sha256": name}

    def extraction(self, name, read, reading, **options):
        output = "logits" if name == "i3d" else "embedding"
        key = feature_store.key_of(name=name, **reading)
        return feature_store.Extraction(name, key, read, lambda x: {output: x}, 8, **options)


def test_networks_see_the_same_spans(clip, monkeypatch):
    monkeypatch.setattr(registry, "find", lambda _: registry.Found({}, {"panns_16k": "no file"}))
    descriptors, skipped = clip_descriptors.all_of(SECONDS, _Networks())
    assert skipped == {"panns_16k": "skipped: no file"}
    vggish, i3d = descriptors[2:]
    assert (vggish.name, i3d.name) == ("audio: vggish", "image: i3d")
    extractions = [d.at(start_s) for d in (vggish, i3d) for start_s in (0.0, 1.6)]
    assert len({e.key for e in extractions}) == 4
    arrays = [e.read(clip) for e in extractions]
    assert [a.shape for a in arrays] == [(LENGTH,)] * 2 + [(16, 64, 64, 3)] * 2
    assert np.abs(arrays[0]).max() < 0.01 < np.abs(arrays[1]).max()
    assert arrays[2].mean() < 50 and arrays[3].mean() > 150
    assert [e.is_audio for e in extractions] == [True, True, False, False]
