"""A metric that is as good for wrong pairs as for right ones says so wherever it is printed."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
import struck_audio

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import embedded
from foley_jax.evaluation.pages import page_media
from foley_jax.evaluation.protocols import (
    align_acc_protocol,
    audioldm_protocol,
    av_align_protocol,
    av_benchmark_figures,
    av_benchmark_protocol,
    class_figures,
    desync_protocol,
    embedded_protocol,
    onset_protocol,
    specvqgan_protocol,
    yamnet_protocol,
)
from foley_jax.evaluation.statistics import class_scores, pairs, remarks, scores

PHRASE = "does not tell pairs apart here"
NUM_CLIPS = 8


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Onsets of a system with the right audio, and of one that gives all clips one audio clip."""
    root = tmp_path_factory.mktemp("pairs_apart")
    right = {
        f"c{i}": struck_audio.waveform(struck_audio.times(i), seed=i) for i in range(NUM_CLIPS)
    }
    struck_audio.write(root / "true", right)
    near = {
        f"c{i}": struck_audio.waveform(struck_audio.times(i) + 0.03, seed=9)
        for i in range(NUM_CLIPS)
    }
    struck_audio.write(root / "near", near)
    struck_audio.write(root / "same", dict.fromkeys(right, struck_audio.waveform([0.6, 1.4, 2.1])))
    given = [f"--generated={name}={root / name}" for name in ("near", "same")]
    given += ["--protocol=onsets", f"--reference={root / 'true'}", f"--out={root / 'out'}"]
    with pytest.MonkeyPatch.context() as patch:  # the page's words are what is looked at
        patch.setattr(page_media.Mels, "pair", lambda *_: ("", ""))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert command.main(given) == 0
    return root / "out", printed.getvalue()


@pytest.mark.slow
def test_the_figure_is_marked_in_every_output(report):
    report, printed = report
    assert f"F1 @100 ms {PHRASE}: same" in printed
    metrics = json.loads((report / "metrics.json").read_text())
    told = metrics["tells_pairs_apart"]
    assert told["same"]["f1@100ms"] is False
    assert told["near"]["f1@100ms"] is told["reference"]["f1@100ms"] is True
    same = metrics["systems"]["same"]
    assert same["f1_low"] <= same["shuffled_f1@100ms"] <= same["f1_high"]
    assert metrics["remarks"]["same"]["f1@100ms"].startswith(PHRASE)
    table = (report / "table.md").read_text().splitlines()
    rows = {line.split(" | ")[0]: line.split(" | ")[2] for line in table if line.startswith("| ")}
    assert rows["| same"].endswith("\N{DAGGER}") and not rows["| near"].endswith("\N{DAGGER}")
    (line,) = (line for line in table if line.startswith(f"- \N{DAGGER} F1 @100 ms {PHRASE}: "))
    assert "same (wrong pairs 0." in line and "near" not in line
    latex = (report / "table.tex").read_text()
    assert latex.count(r"$^\dagger$") >= 1 and f"% \N{DAGGER} F1 @100 ms {PHRASE}: same" in latex
    page = (report / "index.html").read_text()
    assert f"{PHRASE}: same" in page and 'class="number doubt"' in page
    card = json.loads((report / "run_card.json").read_text())
    assert card["settings"]["tells_pairs_apart"]["same"]["f1@100ms"] is False
    with (report / "per_sample.csv").open(newline="") as file:
        items = list(csv.DictReader(file))
    marked = {row["system"]: row["does_not_tell_pairs_apart"] for row in items}
    assert marked["same"] == "f1@100ms" and marked["near"] == ""


@pytest.mark.parametrize(
    ("ascending", "shuffled", "wanted"),
    [
        (True, 0.2, True),
        (True, 0.4, False),  # on the edge of the interval
        (True, 0.5, False),
        (True, 0.9, False),  # wrong pairs are better than right ones
        (False, 0.9, True),
        (False, 0.5, False),
        (False, 0.1, False),
        (True, remarks.absent("1 clip; wrong pairs need 2"), None),
    ],
)
def test_chance_in_the_interval_or_beyond_is_no_difference(ascending, shuffled, wanted):
    contrast = pairs.Contrast("x", ascending)
    found = {"x": 0.5, "x_low": 0.4, "x_high": 0.6, "shuffled_x": shuffled}
    assert pairs.tells_apart(found, contrast) is wanted
    marked = pairs.marked(found, [contrast])["x"]
    assert marked == 0.5 and (PHRASE in remarks.remark_of(marked)) == (wanted is False)


def test_peaks_by_chance_do_not_tell_pairs_apart_and_true_ones_do():
    rng = np.random.default_rng(0)
    rules = av_align_protocol.AvAlign()
    peaks = {str(i): np.sort(rng.uniform(0.0, 8.0, 12)) for i in range(13)}
    seen = {n: av_align_protocol.Seen(t, 10.0, 8.0) for n, t in peaks.items()}
    chance = {n: np.sort(rng.uniform(0.0, 8.0, 12)) for n in peaks}
    for heard, wanted in ((peaks, True), (chance, False)):
        found = rules.figures(heard, seen)
        told = [pairs.tells_apart(found, contrast) for contrast in rules.contrasts]
        assert told == [wanted] * 2  # as it should be, and as published


def test_every_kind_of_pair_has_its_interval_and_its_chance():
    """The protocols by their own declarations; nothing that judges pairs is left out."""
    judged = {
        onset_protocol.Onsets: {
            *("f1@100ms", "f1@150ms", "f1@50-500ms", "precision", "recall"),
            *("onset_ap", "count_accuracy"),
        },
        embedded_protocol.Embedded: {
            *("f1@100ms", "f1@150ms", "f1@50-500ms", "precision", "recall", "material_accuracy")
        },
        av_align_protocol.AvAlign: {"av_align", "av_align_official"},
        align_acc_protocol.AlignAcc: {"Align Acc", "probability"},
        specvqgan_protocol.SpecVqganMelception: {"MKL"},
        audioldm_protocol.AudioLdmEval: {"KL", "KL_sigmoid"},
        av_benchmark_protocol.AvBenchmark: {
            *("KL-PANNS-softmax", "KL-PASST-softmax"),
            *("IB-Score", "LAION-CLAP-Score", "MS-CLAP-Score", "DeSync"),
        },
        yamnet_protocol.YamnetProtocol: {"KL", "cosine"},
        desync_protocol.DeSync: {"DeSync"},
    }
    smaller_is_better = {
        "MKL",
        "KL",
        "KL_sigmoid",
        "KL-PANNS-softmax",
        "KL-PASST-softmax",
        "DeSync",
    }
    for rules, keys in judged.items():
        assert {contrast.key for contrast in rules.contrasts} == keys, rules.name
        for contrast in rules.contrasts:
            assert contrast.ascending == (contrast.key not in smaller_is_better)


def test_right_classes_tell_pairs_apart_and_random_ones_do_not():
    rng = np.random.default_rng(0)
    logits = 4.0 * rng.normal(size=(2, 12, 20))
    true, random = ({f"c{i}": {"n": {"logits": row}} for i, row in enumerate(x)} for x in logits)
    kinds = (class_scores.mkl_of_pairs, class_scores.sigmoid_kl_of_pairs)
    for contrast, kl in zip(audioldm_protocol.AudioLdmEval.contrasts, kinds, strict=True):
        for heard, wanted in ((true, True), (random, False)):
            found = class_figures.kl_figures(contrast, kl, heard, true, "n")
            assert pairs.tells_apart(found, contrast) is wanted, contrast.key
    few = class_figures.kl_figures(contrast, kl, {"c0": true["c0"]}, true, "n")
    assert remarks.remark_of(few[contrast.low]) == "1 clip; a 95 % interval needs 4"
    assert remarks.remark_of(few[contrast.shuffled]) == "1 clip; wrong pairs need 2"
    # many samples of one video are one item that could be resampled
    pooled = class_figures.kl_figures(
        contrast, kl, {("c0", k): true["c0"] for k in range(9)}, true, "n"
    )
    assert remarks.remark_of(pooled[contrast.low]) == "1 clip; a 95 % interval needs 4"


def test_cosines_of_random_features_do_not_tell_pairs_apart():
    rng = np.random.default_rng(1)
    names = [f"c{i}" for i in range(12)]

    def items(rows):
        keys = ("imagebind_audio", "imagebind_video")
        return {n: {k: {"features": r} for k in keys} for n, r in zip(names, rows)}

    one, other = (items(rng.normal(size=(12, 16))) for _ in range(2))
    contrast = next(c for c in av_benchmark_figures.CONTRASTS if c.key == "IB-Score")
    for reference, wanted in ((one, True), (other, False)):
        found, _ = av_benchmark_figures.figures(one, reference)
        assert pairs.tells_apart(found, contrast) is wanted


@pytest.mark.parametrize(("materials", "wanted"), [(("wood", "metal"), True), (("wood",), False)])
def test_one_material_alone_tells_no_pairs_apart(tmp_path, materials, wanted):
    """A classifier that knows one class is always right, of any pair."""
    pitch_hz = {"wood": 400.0, "metal": 2500.0}
    clips, heard = [], []
    for i in range(8):
        material = materials[i % len(materials)]
        time = np.arange(2 * embedded.AUDIO.sample_rate_hz) / embedded.AUDIO.sample_rate_hz
        since = np.maximum(time - 0.5, 0.0)
        tone = 0.3 * np.sin(2 * np.pi * pitch_hz[material] * since) * np.exp(-since / 0.08)
        audio_L = np.where(time >= 0.5, tone, 0.0).astype(np.float32)
        clips.append(embedded.Truth(f"c{i}", tmp_path, "plain", np.array([0.5]), (material,)))
        heard.append(embedded.hear(audio_L, embedded_protocol.DETECTOR))
    classify = embedded.MaterialClassifier.fit(clips, dict(zip((c.name for c in clips), heard)))
    contrast = embedded_protocol.MATERIAL
    found = embedded.material_figures(contrast, clips, heard, classify)
    assert found[contrast.key] == 1.0 and pairs.tells_apart(found, contrast) is wanted


def test_the_figures_of_before_are_the_same():
    """Only their company is new: F1, its interval and its shuffled value by hand."""
    true = [[0.2, 0.8], [0.5], [0.3], [1.0]]
    detected = [[0.25, 0.92], [0.5, 1.2], [0.9], [1.14]]
    found = scores.figures(detected, true)
    assert found["f1@100ms"] == pytest.approx(2 * 2 / 11)
    rows = np.array([[1, 4], [1, 3], [0, 2], [0, 2]])
    picks = np.random.default_rng(0).integers(0, 4, (1000, 4))
    values = [2 * rows[p, 0].sum() / rows[p, 1].sum() for p in picks]
    assert [found["f1_low"], found["f1_high"]] == pytest.approx(
        list(np.quantile(values, [0.025, 0.975]))
    )
