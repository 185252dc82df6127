"""Starts of the sampling command, and what is read from their log."""

import pytest

from foley_jax.bench import case, measure
from foley_jax.bench.suites import first_sample


@pytest.mark.slow
def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(ValueError, match="exit code 1: .*no video files found|exit code 1: .*none"):
        first_sample.measure(tmp_path / "none", tmp_path / "x.mp4", warm=0)


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path):
    (one,) = first_sample.first_sample(case.Ask(size="tiny"))
    result = measure.run(one, repeats=1)
    assert result.ours.median_s < result.compile_s
    command = one.ours._command
    later = command.start()
    assert later.compile_s < 0.5 * result.compile_s and later.trace_s > 0 and later.lower_s > 0
    assert later.peak_bytes > 1e8
