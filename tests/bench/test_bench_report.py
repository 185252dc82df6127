"""Tests what is written, read back and shown."""

import dataclasses
import json

import pytest

from foley_jax.bench import measure, report

PLACE = report.Place("cpu", "a processor", "float32", 2, 1e11, {"jax": "0.10"}, "")


def result(name="batch 1", median=0.5, ratio=0.8):
    ours = measure.Times(median, 0.9 * median, 1.1 * median, 5, 3_000_000)
    theirs = measure.Times(median / ratio, 0.5, 0.7, 5, None)
    peers = {"torch": measure.Beside(theirs, ratio, 0.7, 0.9, 1e-5)}
    return measure.Result("unet_forward", name, "paper", 4, "window", "", 2e10, 3.0, ours, peers)


def test_results_come_back_as_they_were(tmp_path):
    results = [result(), result("batch 4", ratio=1.2)]
    file = report.save(tmp_path, PLACE, results)
    assert file.name == "unet_forward-paper-cpu-float32-2threads.json"
    assert report.read(tmp_path) == [(PLACE, one) for one in results]
    json.loads(file.read_text())
    # measured again, a suite replaces its own lines and no others
    report.save(tmp_path, dataclasses.replace(PLACE, threads=1), results[:1])
    report.save(tmp_path, PLACE, results[:1])
    assert len(report.read(tmp_path)) == 2


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        report.read(tmp_path)


def test_the_table_shows_ratios_shares_and_the_missing_gpu():
    text = report.markdown([(PLACE, result())])
    row = next(line for line in text.splitlines() if line.startswith("| unet_forward"))
    assert "**0.80** of torch (0.70-0.90)" in row
    assert "125.0 ms/window" in row  # half a second for four
    assert "40 % of peak" in row  # 2e10 FLOP in 0.5 s of 1e11 a second
    assert row.endswith("|  |"), row  # the GPU's column
    assert "There was no GPU: its column is empty." in text


def test_both_devices_share_a_line():
    gpu = report.Place("gpu", "H200", "float32", 0, 1e14, {"jax": "0.10"}, "")
    text = report.markdown([(PLACE, result()), (gpu, result(median=0.002, ratio=0.5))])
    rows = [line for line in text.splitlines() if line.startswith("| unet_forward")]
    assert len(rows) == 1
    assert "**0.80**" in rows[0] and "**0.50**" in rows[0]
    assert "There was no" not in text
    assert "GPU: H200" in text


def test_a_case_without_peers_says_so():
    alone = dataclasses.replace(result(), peers={}, note="nothing like it in torch")
    text = report.markdown([(dataclasses.replace(PLACE, no_peers="no torch"), alone)])
    assert "no peer" in text and "no torch" in text and "nothing like it in torch" in text
    described = report.describe(PLACE, alone)
    assert "500.0 ms" in described and "3 MB" in described


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.00 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 us")]
)
def test_seconds_are_readable(seconds, text):
    assert report.seconds_text(seconds) == text
