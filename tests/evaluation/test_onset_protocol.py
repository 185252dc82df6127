"""Protocol `onsets` by its command line, on audio clips made here."""

import csv
import json

import numpy as np
import pytest

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation.protocols import onset_protocol
from tests.faults import struck_audio

RULES = onset_protocol.Onsets()
RATE = RULES.sample_rate_hz
NUM_CLIPS = 6


@pytest.fixture
def folders(tmp_path):
    """The truth; a copy 270 ms late; one with a gap, a silence and a broken file."""
    rng = np.random.default_rng(0)
    times = [np.cumsum(rng.uniform(0.55, 0.9, 3)) for _ in range(NUM_CLIPS)]
    true = {f"clip{i}": struck_audio.waveform(t, seed=i) for i, t in enumerate(times)}
    struck_audio.write(tmp_path / "true", true)
    struck_audio.write(
        tmp_path / "late", {n: np.roll(a, int(0.27 * RATE)) for n, a in true.items()}
    )
    gaps = {n: a for n, a in true.items() if n not in ("clip1", "clip3")}
    struck_audio.write(
        tmp_path / "gaps", gaps | {"clip2": 0 * true["clip2"], "other": true["clip0"]}
    )
    (tmp_path / "gaps/clip3.wav").write_bytes(b"broken")
    return tmp_path


def _run(folders, *arguments):
    given = ["--protocol=onsets", f"--reference={folders / 'true'}", f"--out={folders / 'out'}"]
    return command.main([*given, *arguments])


@pytest.mark.slow
def test_truth_is_best_and_gaps_are_told(folders, capsys):
    assert not _run(
        folders,
        f"--generated=late={folders / 'late'}",
        f"--generated={folders / 'gaps'}",
        f"--checkpoint={folders / 'true/clip0.wav'}",
    )
    out = folders / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    figures = metrics["systems"]
    assert list(figures) == ["reference", "late", "generated"]
    truth = figures["reference"]
    assert truth["f1@100ms"] == truth["count_accuracy"] == 1.0 and truth["onset_ap"] > 0.95
    assert truth["shuffled_f1@100ms"] < 0.7
    assert figures["late"]["f1@100ms"] < 0.5 * figures["generated"]["f1@100ms"] < 0.5
    assert figures["late"]["clips"] == NUM_CLIPS and figures["generated"]["clips"] == NUM_CLIPS - 2
    (complaint,) = metrics["complaints"]
    assert "1 missing (clip1)" in complaint and "1 unreadable (clip3)" in complaint
    assert "1 silent (clip2)" in complaint
    printed = capsys.readouterr().out
    assert complaint in printed and "protocol `onsets`" in printed
    card = json.loads((out / "run_card.json").read_text())
    items = card["systems"]["generated"][0]["items"]
    assert (items["requested"], items["scored"]) == (NUM_CLIPS, NUM_CLIPS - 2)
    assert items["foreign"] == ["other"]
    assert card["systems"]["generated"][0]["checkpoint_sha256"]
    assert card["systems"]["late"][0]["checkpoint_sha256"] is None
    assert (out / "table.tex").read_text().count("% protocol: onsets") == 3


@pytest.mark.slow
def test_every_sample_has_a_line(folders):
    assert not _run(folders, f"--generated={folders / 'gaps'}", f"--generated={folders / 'late'}")
    with (folders / "out/per_sample.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * NUM_CLIPS
    first = {r["name"]: r for r in rows if (r["system"], r["run"]) == ("generated", "0")}
    statuses = [first[f"clip{i}"]["status"] for i in range(4)]
    assert statuses == ["scored", "missing", "silent", "unreadable"]
    assert first["clip0"]["matched"] == first["clip0"]["true"] == "3"
    assert first["clip1"]["f1@100ms"] == "" and float(first["clip2"]["f1@100ms"]) == 0.0
    merged = json.loads((folders / "out/metrics.json").read_text())["systems"]["generated"]
    assert merged["seeds"] == 2 and merged["f1@100ms_std"] > 0.1


@pytest.mark.slow
def test_a_broken_reference_is_asked_of_no_system(folders):
    (folders / "true/clip5.wav").write_bytes(b"broken")
    assert not _run(folders, f"--generated={folders / 'late'}")
    metrics = json.loads((folders / "out/metrics.json").read_text())
    assert metrics["systems"]["generated"]["clips"] == NUM_CLIPS - 1
    (complaint,) = metrics["complaints"]
    assert complaint.startswith("reference, true: 5 of 6 scored") and "(clip5)" in complaint


def test_what_cannot_be_computed_is_null_not_zero(tmp_path):
    struck_audio.write(tmp_path / "true", {"one": struck_audio.waveform([1.0], seed=0)})
    assert not _run(tmp_path)
    text = (tmp_path / "out/metrics.json").read_text()
    figures = json.loads(text)["systems"]["reference"]
    assert "NaN" not in text and figures["shuffled_f1@100ms"] is None  # one clip has no others
    table = (tmp_path / "out/table.md").read_text()
    assert "nan" not in table and "| - |" in table
    assert "- `onsets` judges when things sound (temporal sync), not what they are" in table
    assert "temporal sync" in json.loads(text)["judges"]


def test_only_the_length_of_the_reference_counts():
    long = RULES.listen(
        np.concatenate([struck_audio.waveform([1.0], seed=0), struck_audio.waveform([1.0], seed=1)])
    )
    short = RULES.listen(struck_audio.waveform([1.0], seed=0))
    assert len(long.onsets_s) == 2
    found = RULES.figures({"a": long}, {"a": short})
    assert found["f1@100ms"] == 1.0 and found["heard"] == 1


def test_audio_shorter_than_a_window_hold_nothing():
    assert RULES.listen(np.ones(100)).onsets_s.size == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--generated=nowhere"], "holds no"),
        (["--generated=reference={true}"], "another name"),
        (["--generated=a={true}", "--checkpoint=b={true}"], "--checkpoint names"),
    ],
)
def test_mistakes_end_with_a_message(folders, capsys, arguments, complaint):
    given = [a.format(true=folders / "true") for a in arguments]
    assert _run(folders, *given) == 1
    assert complaint in capsys.readouterr().err
    assert not (folders / "out").exists()
