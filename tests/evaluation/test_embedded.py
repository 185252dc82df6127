"""The embedded protocol: perfect sounds score 1, shuffled ones do not, gaps are refused."""

import json

import numpy as np
import pytest

from foley_jax.evaluation import embedded, report
from foley_jax.media import audio as audio_io

RATE = embedded.AUDIO.sample_rate_hz
PITCH_HZ = {"wood": 400.0, "metal": 2500.0}


def _strikes(times_s, material, seconds=4.0):
    t = np.arange(round(seconds * RATE)) / RATE
    audio = 2e-4 * np.random.default_rng(0).standard_normal(len(t))
    for start in times_s:
        since = np.maximum(t - start, 0.0)
        tone = np.sin(2 * np.pi * PITCH_HZ[material] * since) * np.exp(-since / 0.08)
        audio += 0.3 * tone * (t >= start)
    return audio.astype(np.float32)


@pytest.fixture
def scenes(tmp_path):
    """Eight clips with random strikes: NAME.json beside NAME.wav (in place of NAME.mp4)."""
    rng = np.random.default_rng(1)
    for i in range(8):
        times_s = np.cumsum(rng.uniform(0.4, 0.9, 5))
        material = ("wood", "metal")[i % 2]
        events = [{"time_s": float(t), "material": material, "strength": 1.0} for t in times_s]
        name = f"clip_{i}"
        scene = {"level": "plain", "events": events}
        (tmp_path / f"{name}.json").write_text(json.dumps(scene))
        audio_io.write_wav(tmp_path / f"{name}.wav", _strikes(times_s, material), RATE)
    return tmp_path


def _hear(clips, folder):
    return embedded.hear_all(clips, folder, "test")


def test_true_sounds_score_one_and_shuffled_pairs_do_not(scenes):
    clips = embedded.read_truth(scenes)
    heard = _hear(clips, scenes)
    classify = embedded.MaterialClassifier.fit(clips, heard)
    figures = embedded.score(clips, heard, classify)
    assert figures["f1@100ms"] == 1.0
    assert figures["shuffled_f1@100ms"] < 0.7
    assert figures["material_accuracy"] == 1.0
    assert figures["f1_low"] == figures["f1_high"] == 1.0


def test_wrong_material_is_noticed(scenes):
    clips = embedded.read_truth(scenes)
    heard = _hear(clips, scenes)
    classify = embedded.MaterialClassifier.fit(clips, heard)
    swapped = [
        embedded.Truth(
            c.name,
            c.video,
            c.level,
            c.times_s,
            tuple("metal" if m == "wood" else "wood" for m in c.materials),
        )
        for c in clips
    ]
    assert embedded.score(swapped, heard, classify)["material_accuracy"] == 0.0


def test_a_missing_sound_is_an_error_and_not_a_smaller_set(scenes):
    clips = embedded.read_truth(scenes)
    (scenes / "clip_3.wav").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 8 sounds missing"):
        _hear(clips, scenes)


def test_a_folder_without_truth_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_prep.scenes"):
        embedded.read_truth(tmp_path)


def test_simple_scenes_teach_materials_as_plain_ones_do(scenes):
    for path in scenes.glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "level": "simple"}))
        path.with_suffix(".wav").rename(path.with_suffix(".mp4"))  # only its sound is read
    figures, _, _ = embedded.evaluate([scenes], scenes, {})
    assert figures["simple"]["true sound"]["material_accuracy"] == 1.0


def test_table_tags_every_row_with_protocol_and_level(scenes):
    clips = embedded.read_truth(scenes)
    heard = _hear(clips, scenes)
    classify = embedded.MaterialClassifier.fit(clips, heard)
    figures = {"plain": {"true sound": embedded.score(clips, heard, classify)}}
    text = report.table(figures)
    assert "protocol `embedded`" in text and "| plain: true sound | 8 | 1.000 |" in text
