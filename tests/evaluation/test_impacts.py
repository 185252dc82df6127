"""The detector of visible impacts: what it is taught, what it learns, how it picks times."""

import dataclasses

import flashes
from flax import nnx
import jax
import numpy as np
import pytest

from foley_jax.evaluation import impact_training, impacts
from foley_jax.evaluation.statistics import scores

FPS, SECONDS = 10.0, 4.0
SMALL = impacts.Settings(width=8, steps=300, batch=32, learning_rate=1e-2, holdout_every=4)


def _examples(count, seed):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        times_s = flashes.times(rng, SECONDS)
        images = flashes.frames(times_s, FPS, SECONDS, rng)
        made.append(impact_training.Example(f"clip_{i:02d}", images, times_s, FPS))
    return made


@pytest.fixture(scope="module")
def detector():
    return impact_training.fit(_examples(16, seed=0), SMALL)


@pytest.mark.slow
def test_detector_finds_unseen_blows_and_nothing_in_still_images(detector):
    unseen = _examples(12, seed=1)
    found = scores.figures([detector(e.frames_THWC) for e in unseen], [e.times_s for e in unseen])
    assert found["f1@100ms"] > 0.95
    assert found["shuffled_f1@100ms"] < 0.6
    still = np.repeat(unseen[0].frames_THWC[:1], 16, axis=0)
    assert len(detector(still)) == 0


def test_detector_brings_images_of_any_size_to_its_own(detector):
    small = _examples(1, seed=2)[0].frames_THWC
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_allclose(detector(large), detector(small), atol=0.03)


def test_detector_survives_its_file(detector, tmp_path):
    impact_training.save(tmp_path / "d.npz", detector)
    loaded = impact_training.load(tmp_path / "d.npz", SMALL)
    images = _examples(1, seed=3)[0].frames_THWC
    assert len(detector(images)) and loaded.threshold == detector.threshold
    np.testing.assert_array_equal(loaded(images), detector(images))
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]


def test_training_twice_gives_the_same_weights():
    settings = dataclasses.replace(SMALL, steps=3)
    one, two = (impact_training.train(_examples(3, seed=4), settings) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_blow_is_first_shown_by_the_next_source_frame():
    # 4 fps source: 10 fps frames at 0.0 .. 0.9 s show source times 0 0 0 .25 .25 .5 .5 .5 .75 .75
    example = impact_training.Example(
        "a", np.zeros((10, 4, 4, 3), np.uint8), np.array([0.0, 0.2, 0.26, 0.75, 0.8]), 4.0
    )
    is_first, delay_s = impact_training.labels(example, FPS)
    np.testing.assert_array_equal(np.flatnonzero(is_first), [3, 5, 8])
    np.testing.assert_allclose(delay_s[[3, 5, 8]], [0.1, 0.24, 0.05], atol=1e-6)
    assert delay_s.sum() == pytest.approx(0.39, abs=1e-6)


def test_events_of_a_window_are_those_after_its_first_frame_up_to_its_last():
    times_s = np.array([0.5, 1.6, 1.61, 3.1, 3.15])
    found = impact_training.seen_times(times_s, slice(16, 32), FPS)
    np.testing.assert_allclose(found, [0.01, 1.5])
    assert [(w.start, w.stop) for w in impacts.windows(40, 16)] == [(0, 16), (16, 32)]


def test_pick_keeps_the_stronger_of_two_neighbours_and_never_the_first_frame():
    score = np.array([0.99, 0.1, 0.7, 0.9, 0.1, 0.8, 0.2])
    delay = np.array([0.0, 0.0, 0.0, 0.04, 0.0, 0.9, 0.0])
    found = impacts.pick(score, delay, 0.5, FPS, 0.15)
    np.testing.assert_allclose(found, [0.26, 0.5 - impacts.LONGEST_DELAY_S])
    assert impacts.pick(score, delay, 0.95, FPS, 0.15).shape == (0,)


def test_triples_hold_the_neighbours_and_repeat_the_ends():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    triple = impacts.triples(images, 8)[:, 0, 0]
    np.testing.assert_array_equal(triple[:, ::3], [[0, 0, 1], [0, 1, 2], [1, 2, 2]])
    with pytest.raises(ValueError, match="wanted uint8"):
        impacts.triples(images.astype(np.float32), 8)


def test_gradient_reaches_every_weight():
    graphdef, shapes = impacts.network(4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: impact_training._draw_weights(leaf.shape, rng), shapes)
    x = rng.standard_normal((4, 32, 32, 9)).astype(np.float32)
    is_first, delay = np.array([0.0, 1, 0, 1], np.float32), np.full(4, 0.05, np.float32)

    def loss(params):
        return impact_training._loss(nnx.merge(graphdef, params), x, is_first, delay)

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))


def test_the_key_changes_with_settings_names_and_events():
    truth = [("a", [0.1]), ("b", [0.2])]
    keys = {
        impact_training.key_of(SMALL, truth),
        impact_training.key_of(dataclasses.replace(SMALL, seed=1), truth),
        impact_training.key_of(SMALL, truth[:1]),
        impact_training.key_of(SMALL, [("a", [0.1]), ("b", [0.21])]),
    }
    assert len(keys) == 4
    assert impact_training.key_of(SMALL, truth[::-1]) == impact_training.key_of(SMALL, truth)


def test_training_clips_without_blows_or_too_few_are_refused():
    dull = [dataclasses.replace(e, times_s=np.zeros(0)) for e in _examples(3, seed=5)]
    with pytest.raises(ValueError, match="show 0 blows"):
        impact_training.fit(dull, SMALL)
    with pytest.raises(ValueError, match="too few"):
        impact_training.fit(_examples(1, seed=5), SMALL)
