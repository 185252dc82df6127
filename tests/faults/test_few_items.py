"""Evaluation with too little of anything: a dash and its reason, and the rest goes on."""

import csv
import json
import math

import numpy as np
import pytest
import struck_audio

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import run_card
from foley_jax.evaluation.pages import page_media
from foley_jax.evaluation.protocols import av_align_protocol, onset_protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.evaluation.statistics import distances, remarks, scores

FILES = ("metrics.json", "table.md", "table.tex", "per_sample.csv", "run_card.json", "index.html")


@pytest.fixture(autouse=True)
def _no_images(monkeypatch):
    """The page's words are what is looked at here."""
    monkeypatch.setattr(page_media.Mels, "pair", lambda *_: ("", ""))


def _strict(path):
    """JSON without the words that only Python reads."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def _audio(count, first=0):
    return {
        f"c{i}": struck_audio.waveform(struck_audio.times(first + i), seed=i) for i in range(count)
    }


def _run(root, *arguments, protocols="onsets"):
    given = [f"--protocol={protocols}", f"--reference={root / 'true'}", f"--out={root / 'out'}"]
    return command.main([*given, *arguments])


def test_one_pair_has_dashes_and_their_reasons_in_every_output(tmp_path, capsys):
    for name in ("true", "ours"):
        struck_audio.write(tmp_path / name, _audio(1))
    assert _run(tmp_path, f"--generated=ours={tmp_path / 'ours'}") == 0
    texts = {name: (tmp_path / "out" / name).read_text() for name in FILES}
    texts["console"] = capsys.readouterr().out
    metrics = _strict(tmp_path / "out/metrics.json")
    figures, reasons = metrics["systems"]["ours"], metrics["reasons"]["ours"]
    assert figures["f1@100ms"] == 1.0
    assert figures["f1_low"] is figures["f1_high"] is figures["shuffled_f1@100ms"] is None
    assert {key for key, value in figures.items() if value is None} == set(reasons)
    assert reasons["f1_low"] == "1 clip; a 95 % interval needs 4"
    for name, text in texts.items():
        assert "1.000-1.000" not in text and "nan" not in text.lower(), name
        if name != "per_sample.csv":  # its lines are of items, not of sets
            assert "a 95 % interval needs 4" in text and "wrong pairs need 2" in text, name
    row = next(line for line in texts["table.md"].splitlines() if line.startswith("| ours"))
    assert row.startswith("| ours | 1 | 1.000 | - | - | 1.000 |")
    assert '<td class="number">-</td>' in texts["index.html"]


def test_an_item_without_a_figure_is_an_empty_cell_with_a_reason(tmp_path):
    quiet = {f"c{i}": 0 * struck_audio.waveform([1.0]) for i in range(4)}
    for name in ("true", "ours"):
        struck_audio.write(tmp_path / name, quiet)
    assert _run(tmp_path, f"--generated=ours={tmp_path / 'ours'}") == 0
    with (tmp_path / "out/per_sample.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["f1@100ms"] for row in rows} == {""}
    assert all("no true event, and nothing is heard" in row["why"] for row in rows)
    reasons = _strict(tmp_path / "out/metrics.json")["reasons"]["ours"]
    assert "no clip has a true event" in reasons["f1_low"]  # it was 0.000-0.000
    assert "no clip has a true onset" in reasons["onset_ap"]
    text = (tmp_path / "out/index.html").read_text()
    assert "no true event, and nothing is heard" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("detected", "true"),
    [([[]] * 4, [[]] * 4), ([[]] * 4, [[0.5], [1.0], [1.5], [2.0]]), ([[0.5]] * 4, [[]] * 4)],
)
def test_whatever_is_heard_every_figure_is_a_number_or_a_reason(detected, true):
    found = scores.figures(detected, true)
    for key, value in found.items():
        assert math.isfinite(value) or remarks.remark_of(value) not in ("", remarks.UNKNOWN), key
    assert math.isnan(found["precision"]) == (not detected[0])
    assert math.isnan(found["recall"]) == (not true[0])
    nothing = not detected[0] and not true[0]
    assert math.isnan(found["f1_low"]) == math.isnan(found["f1@100ms"]) == nothing


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_intervals_need_four_clips_and_wrong_pairs_two(count):
    times = [[1.0 + i] for i in range(count)]
    peaks = {str(i): np.array(t) for i, t in enumerate(times)}
    seen = {n: av_align_protocol.Seen(t, 10.0, 9.0) for n, t in peaks.items()}
    heard = {n: onset_protocol.Heard(t, _sure(t), 9.0) for n, t in peaks.items()}
    for rules, found in (
        (onset_protocol.Onsets(), onset_protocol.Onsets().figures(heard, heard)),
        (av_align_protocol.AvAlign(), av_align_protocol.AvAlign().figures(peaks, seen)),
    ):
        for contrast in rules.contrasts:
            assert found[contrast.key] == 1.0
            assert (
                math.isnan(found[contrast.low]) == math.isnan(found[contrast.high]) == (count < 4)
            )
            assert math.isnan(found[contrast.shuffled]) == (count < 2)


def _sure(times):
    return onset_protocol.onset_scores.Detections(times, np.ones(len(times)))


@pytest.mark.parametrize(("count", "width"), [(2, 512), (13, 512), (50, 50), (300, 40)])
def test_a_set_is_at_no_distance_from_itself(count, width):
    rng = np.random.default_rng(count)
    features = rng.normal(3.0, rng.uniform(0.1, 5.0, width), (count, width))
    for scale in (1.0, 30.0, 1e4):
        scaled = (scale * features).astype(np.float32)
        for other in (scaled, scaled[rng.permutation(count)]):
            assert distances.frechet_distance(scaled, other) == 0.0
        assert distances.frechet_distance(scaled, scaled + scale * 1e-4) > 0.0


@pytest.mark.slow
def test_one_protocols_lack_stops_no_other_and_no_old_report_stays(tmp_path, capsys):
    struck_audio.write(tmp_path / "true", _audio(2))
    stale = tmp_path / "out/align-acc/metrics.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"systems": {"ours": {"Align Acc": 1.0}}}')
    names = ("audioldm-eval", "align-acc", "av-align", "mm-diffusion", "onsets")
    assert _run(tmp_path, protocols=",".join(names)) == 1
    errors = capsys.readouterr().err
    for name, why in (
        ("audioldm-eval", "needs --weights"),
        ("align-acc", "needs --classifier"),
        ("av-align", "no video to compare with"),  # it fails while it runs
        ("mm-diffusion", "needs --split"),
    ):
        assert why in errors
        assert _strict(tmp_path / "out" / name / "metrics.json")["systems"] == {}
        for file in FILES:
            if file != "per_sample.csv":
                assert why in (tmp_path / "out" / name / file).read_text(), (name, file)
    onsets = _strict(tmp_path / "out/onsets/metrics.json")
    assert onsets["systems"]["reference"]["f1@100ms"] == 1.0


def test_an_unforeseen_error_of_one_protocol_stops_no_other(tmp_path, monkeypatch, capsys):
    struck_audio.write(tmp_path / "true", _audio(1))

    def broken(*_):
        raise IndexError("list index out of range")

    monkeypatch.setattr(av_align_protocol.AvAlign, "extract_features", broken)
    assert _run(tmp_path, protocols="av-align,onsets") == 1
    assert "av-align: unexpected IndexError: list index out of range" in capsys.readouterr().err
    assert (tmp_path / "out/onsets/table.md").exists()


@pytest.mark.parametrize("protocols", ["onsets,onset", "onsets,"])
def test_an_unknown_protocol_is_told_before_anything_runs(tmp_path, capsys, protocols):
    struck_audio.write(tmp_path / "true", _audio(1))
    assert _run(tmp_path, protocols=protocols) == 1
    assert "unknown protocol" in capsys.readouterr().err and not (tmp_path / "out").exists()
    # one asked for twice is one, and its report lies where one's does
    assert _run(tmp_path, protocols="onsets,onsets") == 0
    assert (tmp_path / "out/table.md").exists()


def test_a_system_without_items_stops_no_other(tmp_path, capsys):
    struck_audio.write(tmp_path / "true", _audio(4))
    good = struck_audio.write(tmp_path / "good", _audio(4, first=1))
    empty = struck_audio.write(tmp_path / "empty", {})
    other = struck_audio.write(tmp_path / "other", {"z": struck_audio.waveform([1.0])})
    systems = [f"--generated={folder.name}={folder}" for folder in (empty, good, other)]
    # a run without items beside one with some is no failure of the system
    systems.append(f"--generated=good={empty}")
    assert _run(tmp_path, *systems) == 1
    metrics = _strict(tmp_path / "out/metrics.json")
    assert set(metrics["failed"]) == {"empty", "other"}
    assert "holds no" in metrics["failed"]["empty"] and "4 missing" in metrics["failed"]["other"]
    assert metrics["systems"]["good"]["f1@100ms"] > 0 and metrics["systems"]["good"]["seeds"] == 1
    table = (tmp_path / "out/table.md").read_text()
    assert "| empty | 0 | - | - |" in table and "| good | 4 | " in table
    assert "other, other: 0 of 4 scored; 4 missing (c0, c1, c2, ...); 1 not asked for (z)" in table
    errors = capsys.readouterr().err
    assert "onsets, empty: nothing of empty can be scored" in errors
    assert "0 clips" not in errors
    text = (tmp_path / "out/index.html").read_text()
    assert 'id="system-0"><h3>empty</h3>' in text and "nan" not in text


def test_whatever_one_file_raises_the_others_are_scored(tmp_path, monkeypatch):
    struck_audio.write(tmp_path / "true", _audio(3))
    listen = onset_protocol.Onsets.listen

    def picky(self, audio_L):
        if np.array_equal(audio_L, heard["c1"]):
            raise IndexError("list index out of range")
        return listen(self, audio_L)

    load = rules_lib.audio_io.load
    heard = {f"c{i}": load(tmp_path / f"true/c{i}.wav", struck_audio.RATE_HZ) for i in range(3)}
    monkeypatch.setattr(onset_protocol.Onsets, "listen", picky)
    assert _run(tmp_path) == 0
    card = _strict(tmp_path / "out/run_card.json")["systems"]["reference"][0]["items"]
    assert card["scored"] == 2
    assert set(card["unreadable"]) == {"c1"}
    assert card["unreadable"]["c1"].startswith("unexpected IndexError: list index out of range")


@pytest.mark.slow
@pytest.mark.parametrize(
    "scores_json",
    ["[1, 2]", "cut off {", '{"clips": [1], "settings": {"a": NaN}}', '{"clips": {"c0": 3}}'],
)
def test_a_scores_file_of_another_tool_stops_nothing(tmp_path, scores_json):
    for name in ("true", "ours"):
        struck_audio.write(tmp_path / name, _audio(1))
    (tmp_path / "ours/scores.json").write_text(scores_json)
    assert _run(tmp_path, f"--generated=ours={tmp_path / 'ours'}") == 0
    assert "align_acc" not in _strict(tmp_path / "out/metrics.json")["systems"]["ours"]
    _strict(tmp_path / "out/run_card.json")


@pytest.mark.slow
def test_sets_that_are_not_what_they_seem_are_told(tmp_path):
    struck_audio.write(tmp_path / "true", _audio(4))
    late = struck_audio.write(tmp_path / "late", _audio(4, first=9))
    short = {n: a[: 2 * struck_audio.RATE_HZ] for n, a in _audio(3, first=5).items()}
    struck_audio.write(tmp_path / "short", {**short, "more": short["c0"]})
    (tmp_path / "true/c9.wav").write_bytes(b"broken")
    # whose reference is broken is no stranger
    struck_audio.write(tmp_path / "short", {"c9": short["c0"]})
    systems = [f"--generated=late={late}", f"--generated=late={late}"]
    assert _run(tmp_path, *systems, f"--generated=short={tmp_path / 'short'}") == 0
    folder_warnings = _strict(tmp_path / "out/metrics.json")["complaints"]
    assert folder_warnings == [
        "reference, true: 4 of 5 scored; 1 unreadable (c9)",
        "short, short: 3 of 4 scored; 1 missing (c3); 1 not asked for (more)",
        "late, late and late, late hold the same files",
        "short, short: audio clips of 2.00 s (median), those of the reference of 3.00 s",
    ]


def test_a_checkpoint_that_is_not_there_is_told_before_anything_runs(tmp_path, capsys):
    struck_audio.write(tmp_path / "true", _audio(1))
    given = (f"--generated=ours={tmp_path / 'true'}", "--checkpoint=ours=nowhere.ckpt")
    assert _run(tmp_path, *given) == 1
    assert "--checkpoint=nowhere.ckpt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_figure_keeps_its_remark_in_sums_over_runs():
    lacking, known = remarks.absent("1 clip; it needs 2"), remarks.Remarked(3.0, "is of few items")
    assert remarks.remark_of(remarks.mean([1.0, lacking])) == "1 clip; it needs 2 (1 of 2 runs)"
    assert remarks.mean([known, 5.0]) == 4.0
    assert remarks.remark_of(remarks.mean([known, 5.0])) == "is of few items"
    plain = remarks.plain({"a": [lacking, float("inf"), known, 1, "x"]})
    assert plain == {"a": [None, None, 3.0, 1, "x"]}
    assert run_card.some("abcd") == "a, b, c, ..."
