"""How costs grow, told from results."""

import numpy as np
import pytest

from foley_jax.bench import case, measure, report, slopes
from foley_jax.bench.suites import scaling


def results(axis, power):
    made = []
    for value in (8, 16, 64):
        times = measure.Times(0.01 * value**power, 0, 0, 3, memory_bytes=1000 * value)
        name = slopes.case_name(axis, value, "s")
        made.append(measure.Result(slopes.SUITE, name, "tiny", 1, "call", "", 7.0, 1.0, times, {}))
    return made


def test_slopes_are_powers():
    found = slopes.of([*results("video length", 1.0), *results("batch", 2.0)])
    np.testing.assert_allclose(found["video length"]["time"], 1.0)
    np.testing.assert_allclose(found["batch"]["time"], 2.0)
    np.testing.assert_allclose(found["batch"]["memory"], 1.0)
    assert abs(found["batch"]["FLOPs"]) < 1e-9


def test_the_table_has_them():
    place = report.Place("cpu", "a CPU", "float32", 1, 1e9, {"jax": "1"})
    text = report.markdown([(place, result) for result in results("video length", 1.5)])
    assert "| video length | 1.50 | 1.00 | -0.00 |" in text or "| 1.50 | 1.00 | 0.00 |" in text
    assert slopes.of(results("batch", 1.0)[:1]) == {} and slopes.markdown([], "here") == []


@pytest.mark.slow
def test_flops_of_a_longer_video_are_those_of_its_windows(monkeypatch):
    """16 s make three windows, in one batch."""
    monkeypatch.setattr(scaling.Walk, "compile", lambda self: 0.0)
    cases = list(scaling.scaling(case.Ask(size="tiny")))
    assert [one.name for one in cases] == ["video length, 8 s", "video length, 16 s"]
    short, long = (one.ours._count() for one in cases)
    # but for what is computed once for all windows, which is little
    np.testing.assert_allclose(long / short, 3, rtol=0.02)
