"""Tests what all protocols share: accounts, seeds, and the reference beside the result."""

import numpy as np
import pytest

from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.media import audio as audio_io
from foley_jax.media import container

RATE = 16000


class Loudness(rules_lib.Rules):
    """A protocol for tests: how far the peak of an audio clip is from the reference's."""

    name, key, columns = "loudness", "error", {}

    def settings(self):
        return {}

    def extract_features(self, paths, what):
        return rules_lib.listen_each(paths, what, RATE, lambda audio_L: np.abs(audio_L).max())

    def refer(self, path, heard):
        if path.stem == "bad":
            raise container.MediaError("empty", "lacks something")
        return heard

    def figures(self, heard, reference):
        return {
            "clips": len(heard),
            "error": np.mean([abs(heard[n] - reference[n]) for n in heard]),
        }

    def row(self, heard, reference):
        return {"error": abs(heard - reference)}


def _write(folder, **levels):
    folder.mkdir()
    for name, level in levels.items():
        audio_io.write_wav(folder / f"{name}.wav", np.full(2000, level, np.float32), RATE)
    return folder


@pytest.fixture
def result(tmp_path):
    reference = _write(tmp_path / "true", a=0.5, b=0.25, bad=0.5, quiet=0.0)
    one = _write(tmp_path / "one", a=0.25, b=0.25, quiet=0.5, extra=0.5)
    two = _write(tmp_path / "two", a=0.5, quiet=0.0, bad=0.5)
    (two / "b.wav").write_bytes(b"broken")
    return protocol.evaluate(Loudness(), {"ours": [one, two]}, reference)


def test_figures_are_means_over_seeds_beside_the_reference(result):
    assert list(result.figures) == ["reference", "ours"]
    assert result.figures["reference"]["error"] == 0.0
    ours = result.figures["ours"]
    assert ours["error"] == pytest.approx((0.75 / 3 + 0.0) / 2, abs=1e-4)
    assert ours["error_std"] == pytest.approx(0.25 / np.sqrt(2), abs=1e-4)
    assert ours["seeds"] == 2 and ours["clips"] == 2.5


def test_every_requested_item_has_a_row_and_a_status(result):
    found = {(r["system"], r["run"], r["name"]): r["status"] for r in result.samples}
    assert {name: s for (system, _, name), s in found.items() if system == "reference"} == {
        "a": "scored",
        "b": "scored",
        "bad": "unreadable",
        "quiet": "silent",
    }
    assert {name: s for (_, run, name), s in found.items() if run == 1} == {
        "a": "scored",
        "b": "unreadable",
        "quiet": "silent",
    }
    assert all(("error" in r) == (r["status"] in ("scored", "silent")) for r in result.samples)


def test_what_the_reference_lacks_is_asked_of_nobody(result):
    one, two = result.systems["ours"]
    assert one["items"]["requested"] == 3 and one["items"]["foreign"] == ("extra",)
    assert two["items"]["scored"] == 2 and two["items"]["foreign"] == ("bad",)
    assert result.folder_warnings == [
        "reference, true: 3 of 4 scored; 1 unreadable (bad), 1 silent (quiet)",
        "ours, one: 3 of 3 scored; 1 not asked for (extra)",
        "ours, two: 2 of 3 scored; 1 unreadable (b), 1 silent (quiet)",
    ]


def test_missing_items_change_the_count(tmp_path):
    reference = _write(tmp_path / "true", a=0.5, b=0.25)
    found = protocol.evaluate(Loudness(), {"x": [_write(tmp_path / "x", a=0.5)]}, reference)
    assert found.figures["x"]["clips"] == 1 and found.figures["reference"]["clips"] == 2
    assert found.systems["x"][0]["items"]["missing"] == ("b",)


def test_nothing_to_score_is_an_error_not_a_zero(tmp_path):
    reference = _write(tmp_path / "true", a=0.5)
    with pytest.raises(ValueError, match="nothing of x can be scored: 0 of 1 .* 1 missing"):
        protocol.evaluate(Loudness(), {"x": [_write(tmp_path / "x", z=0.5)]}, reference)
