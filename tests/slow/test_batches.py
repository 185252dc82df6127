"""Samples of an audio clip, alone and in a batch: as users' programs round, not as tests' do."""

import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import pipeline

pytestmark = pytest.mark.slow


def test_the_batch_does_not_change_the_samples_of_a_audio(tmp_path):
    """Programs compiled quickly round so that the first phases of Griffin-Lim jump."""
    foley = sample.load(tiny_foley.save_runs(tmp_path) / "ldm")
    long, short = tiny_foley.write_videos(tmp_path, (3.0, 2.3))
    alone = foley(short, seed=1, steps=2)
    sources = [foley.read(long), foley.read(short)]
    together = foley.model.generate(sources, pipeline.Settings(seed=1, steps=2))[1][0]
    np.testing.assert_allclose(together.audio, alone.audio, atol=1e-4)
