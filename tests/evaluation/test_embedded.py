"""The embedded protocol: perfect audio clips score 1, shuffled ones do not, gaps are named."""

import json

import numpy as np
import pytest

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import embedded
from foley_jax.evaluation.protocols import embedded_protocol, protocol
from foley_jax.media import audio as audio_io

RATE = embedded.AUDIO.sample_rate_hz
PITCH_HZ = {"wood": 400.0, "metal": 2500.0}
TRUE = f"plain: {protocol.REFERENCE}"


def _strikes(times_s, material, seconds=4.0):
    t = np.arange(round(seconds * RATE)) / RATE
    audio = 2e-4 * np.random.default_rng(0).standard_normal(len(t))
    for start in times_s:
        since = np.maximum(t - start, 0.0)
        tone = np.sin(2 * np.pi * PITCH_HZ[material] * since) * np.exp(-since / 0.08)
        audio += 0.3 * tone * (t >= start)
    return audio.astype(np.float32)


def _write_scenes(folder, level="plain"):
    """Eight clips with random strikes: NAME.json beside NAME.mp4, of which only audio is read."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(8):
        times_s = np.cumsum(rng.uniform(0.4, 0.9, 5))
        material = ("wood", "metal")[i % 2]
        events = [{"time_s": float(t), "material": material, "strength": 1.0} for t in times_s]
        name = f"{level}_{i}"
        (folder / f"{name}.json").write_text(json.dumps({"level": level, "events": events}))
        audio_io.write_wav(folder / f"{name}.wav", _strikes(times_s, material), RATE)
        (folder / f"{name}.wav").rename(folder / f"{name}.mp4")
    return folder


@pytest.fixture
def scenes(tmp_path):
    return _write_scenes(tmp_path / "scenes")


def _judge(scenes, systems=None, **options):
    rules = embedded_protocol.Embedded(scenes)
    return protocol.evaluate(rules, systems or {}, scenes, **options)


def test_true_audio_score_one_and_shuffled_pairs_do_not(scenes):
    figures = _judge(scenes).figures[TRUE]
    assert figures["f1@100ms"] == 1.0
    assert figures["shuffled_f1@100ms"] < 0.7
    assert figures["material_accuracy"] == 1.0
    assert figures["f1_low"] == figures["f1_high"] == 1.0


def test_wrong_material_is_noticed(scenes, tmp_path):
    rules = embedded_protocol.Embedded(scenes)
    for path in scenes.glob("*.json"):
        text = path.read_text().replace("wood", "x").replace("metal", "wood").replace("x", "metal")
        path.write_text(text)
    figures = protocol.evaluate(rules, {}, scenes).figures[TRUE]
    assert figures["material_accuracy"] == 0.0 and figures["f1@100ms"] == 1.0


def test_a_missing_audio_is_named_and_changes_the_count(scenes, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for path in sorted(scenes.glob("*.mp4"))[1:]:
        (own / path.name).write_bytes(path.read_bytes())
    result = _judge(scenes, {"own": [own]})
    assert result.figures["plain: own"]["clips"] == 7
    assert result.folder_warnings == ["own, own: 7 of 8 scored; 1 missing (plain_0)"]


def test_levels_are_scored_apart(scenes, tmp_path):
    hard = _write_scenes(tmp_path / "hard_scenes", "hard")
    found = protocol.evaluate(embedded_protocol.Embedded(), {"own": [scenes]}, [scenes, hard])
    assert list(found.figures) == [
        TRUE,
        f"hard: {protocol.REFERENCE}",
        "plain: own",
        "hard: own",
    ]
    assert found.figures["hard: own"]["clips"] == 0
    assert "material_accuracy" not in found.figures[TRUE] and "material" in found.skipped


def test_scenes_without_truth_name_what_to_do(scenes, tmp_path):
    with pytest.raises(FileNotFoundError, match="data_prep.scenes"):
        embedded.read_truth(tmp_path)
    for path in scenes.glob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="data_prep.scenes.*--protocol=onsets"):
        protocol.evaluate(embedded_protocol.Embedded(), {}, scenes)


def test_simple_scenes_teach_materials_as_plain_ones_do(tmp_path):
    simple = _write_scenes(tmp_path / "simple_scenes", "simple")
    figures = _judge(simple).figures[f"simple: {protocol.REFERENCE}"]
    assert figures["material_accuracy"] == 1.0


@pytest.mark.slow
def test_the_command_tags_its_table_with_protocol_and_level(scenes, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--protocol=embedded", "--reference", str(scenes), f"--out={out}"]
    assert command.main([*arguments, f"--train={scenes}"]) == 0
    text = (out / "table.md").read_text()
    assert "protocol `embedded`" in text and f"| {TRUE} | 8 | 1.000 |" in text
    card = json.loads((out / "run_card.json").read_text())
    assert card["protocol"] == "embedded" and card["settings"]["tolerances_s"] == [0.1, 0.15]
