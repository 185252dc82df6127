"""The embedded scenes: what is seen and what is heard agree with the written truth."""

import json

import numpy as np
import pytest

from data_prep import scene_actors as actors
from data_prep import scene_audio, scene_plan, scenes
from foley_jax.media import audio, specs, video

DURATION_S = 4.0


def scene_of(wanted: str, level: str = "plain") -> scene_plan.Scene:
    """The first random scene of a kind."""
    for seed in range(200):
        scene = scene_plan.make(level, DURATION_S, np.random.default_rng(seed))
        if scene.truth["scene"] == wanted:
            return scene
    raise AssertionError(f"no {wanted} scene in 200")


def sharp_rises(audio_L: np.ndarray, rate_hz: int) -> np.ndarray:
    """Times where the energy of 5 ms jumps, the first of each group."""
    hop = rate_hz // 200
    energy = (audio_L[: len(audio_L) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)
    log = np.log10(energy + 1e-7)
    at = np.flatnonzero(np.diff(log) > 0.7) + 1
    times_s = at * hop / rate_hz
    return times_s[np.diff(times_s, prepend=-1) > 0.1]


@pytest.mark.parametrize("style", ["strike", "bounce"])
def test_every_blow_is_heard_at_its_time(style):
    scene = scene_of(style)
    _, audio_L = scenes.render(scene, np.random.default_rng(0))
    heard_s = sharp_rises(audio_L, scene.sample_rate_hz)
    times_s = [event["time_s"] for event in scene.truth["events"]]
    assert len(times_s) >= 3
    for time_s in times_s:
        assert np.abs(heard_s - time_s).min() < 0.011


@pytest.mark.parametrize("style", ["strike", "bounce"])
def test_every_blow_is_seen_for_a_third_of_a_second(style):
    scene = scene_of(style)
    ripples = [actor for actor in scene.actors if isinstance(actor, actors.Ripple)]
    frames_THWC, _ = scenes.render(scene, np.random.default_rng(0))
    scene.actors = [actor for actor in scene.actors if not isinstance(actor, actors.Ripple)]
    without_THWC, _ = scenes.render(scene, np.random.default_rng(0))
    changed_T = np.abs(frames_THWC.astype(int) - without_THWC).max(axis=(1, 2, 3))
    assert ripples and len(ripples[0].blows) == len(scene.truth["events"])
    for i, change in enumerate(changed_T):
        since = [i / scene.fps - event["time_s"] for event in scene.truth["events"]]
        if any(0.001 < s < 0.35 for s in since):
            assert change > 10
        if not any(-0.001 < s < actors.RIPPLE_LIFE_S for s in since):
            assert change == 0


@pytest.mark.parametrize(
    "blows",
    [
        (actors.Blow(0.5, 1.0), actors.Blow(0.8, 0.4), actors.Blow(2.0, 0.8)),
        (actors.Blow(0.2, 1.0), actors.Blow(1.3, 0.9)),
    ],
)
def test_mallet_and_ball_touch_exactly_at_the_blows(blows):
    mallet = actors.Mallet(64, 64, 1, 40, 5, np.ones(3), blows)
    ball = actors.Ball(64, 64, 5, np.ones(3), blows)
    times_s = np.arange(0, 3, 0.005)
    away = [t for t in times_s if min(abs(t - blow.time_s) for blow in blows) > 0.02]
    for blow in blows:
        assert mallet.lift(blow.time_s) == pytest.approx(0, abs=1e-9)
        assert ball.height(blow.time_s) == pytest.approx(0, abs=1e-9)
        # the faster fall belongs to the stronger blow
        fall = mallet.lift(blow.time_s - 0.01) / 0.01
        assert fall == pytest.approx(2 * mallet.reach * blow.strength / actors.FALL_S, rel=0.1)
    assert min(mallet.lift(t) for t in away) > 0
    assert min(ball.height(t) for t in away) > 0


def test_blows_keep_their_distance():
    for seed in range(60):
        level = scene_plan.LEVELS[seed % 2]
        scene = scene_plan.make(level, 10.0, np.random.default_rng(seed))
        times_s = [event["time_s"] for event in scene.truth["events"]]
        assert times_s == sorted(times_s)
        gap_s = scene_plan.MIN_GAP_S if level == "plain" else scene_plan.CLEAR_S
        assert not times_s or np.diff(times_s).min() >= gap_s - 2e-4
        if level == "plain" and times_s:
            assert 8 <= len(times_s) <= 20
            assert len({event["material"] for event in scene.truth["events"]}) == 1


def test_hard_scenes_have_several_materials():
    counts = []
    for seed in range(10):
        scene = scene_plan.make("hard", 10.0, np.random.default_rng(seed))
        counts.append(len({event["material"] for event in scene.truth["events"]}))
        assert scene.camera is not None
        assert any(isinstance(actor, actors.SilentMover) for actor in scene.actors)
    assert min(counts) >= 2 and max(counts) == 3


def test_harder_blows_are_louder_and_brighter():
    for name in scene_audio.MATERIALS:
        body = scene_audio.Body(name, 18, 16000, np.random.default_rng(0))
        body._rng = _Steady()
        soft_L, hard_L = body.blow(0.4), body.blow(1.0)
        assert np.abs(hard_L).max() > 2 * np.abs(soft_L).max()
        assert centroid_hz(hard_L) > 1.02 * centroid_hz(soft_L)


class _Steady:
    """No chance: middle values, and always the same noise."""

    def uniform(self, low, high, size):
        return np.full(size, (low + high) / 2)

    def standard_normal(self, size):
        return np.random.default_rng(0).standard_normal(size)


def centroid_hz(audio_L: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(audio_L)) ** 2
    return float((power * np.fft.rfftfreq(len(audio_L), 1 / 16000)).sum() / power.sum())


def test_rotor_audio_at_the_pitch_of_its_speed():
    scene = scene_of("rotor")
    assert scene.truth["events"] == [] and scene.truth["labels"] == ["rotor"]
    curve = scene.truth["continuous"][0]
    _, audio_L = scenes.render(scene, np.random.default_rng(0))
    rate = scene.sample_rate_hz
    for time_s in (0.5, 2.0, 3.5):
        wanted_hz = np.interp(
            time_s, np.arange(len(curve["pitch_hz"])) * curve["step_s"], curve["pitch_hz"]
        )
        at = round(time_s * rate)
        part = audio_L[at - rate // 16 : at + rate // 16].astype(float)
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)), 8 * len(part)))
        freqs_hz = np.fft.rfftfreq(8 * len(part), 1 / rate)
        near = np.abs(freqs_hz / wanted_hz - 1) < 0.4
        assert freqs_hz[near][power[near].argmax()] == pytest.approx(wanted_hz, rel=0.06)
    fast, slow = np.argmax(curve["speed_hz"]), np.argmin(curve["speed_hz"])
    assert curve["pitch_hz"][fast] == pytest.approx(max(curve["pitch_hz"]), abs=0.5)
    assert curve["pitch_hz"][slow] == pytest.approx(min(curve["pitch_hz"]), abs=0.5)


@pytest.mark.slow
def test_written_set_is_complete_deterministic_and_kept(tmp_path):
    counts = {("train", "plain"): 1, ("test_hard", "hard"): 1}
    scenes.make_set(tmp_path / "a", counts, seed=3, workers=1)
    names = sorted(p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*.*"))
    assert names == [
        "test_hard/hard_00000.json",
        "test_hard/hard_00000.mp4",
        "train/plain_00000.json",
        "train/plain_00000.mp4",
    ]
    path = tmp_path / "a" / "train" / "plain_00000.mp4"
    truth = json.loads(path.with_suffix(".json").read_text())
    assert truth["name"] == "plain_00000" and truth["level"] == "plain"
    assert video.probe(path).duration_s == pytest.approx(10, abs=0.05)
    heard_s = sharp_rises(audio.load(path, 16000), 16000)
    for event in truth["events"]:
        assert np.abs(heard_s - event["time_s"]).min() < 0.015
    assert video.read_frames(path, specs.VideoSpec(4, 64, 64)).shape == (40, 64, 64, 3)
    before = path.stat().st_mtime_ns
    scenes.make_set(tmp_path / "a", counts, seed=3, workers=1)
    assert path.stat().st_mtime_ns == before
    scenes.make_set(tmp_path / "b", {("train", "plain"): 1}, seed=3, workers=1)
    assert (tmp_path / "b" / "train" / "plain_00000.mp4").read_bytes() == path.read_bytes()
