"""The sounding protocol: agreeing clips score high, foreign audio does not, gaps are named."""

import functools
import json

import flashes
import numpy as np
import pytest

from foley_jax.evaluation import embedded, impact_training, impacts, sounding
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

FPS, SECONDS, LENGTH_S = 20, 4.8, 1.6
SMALL = functools.partial(
    impacts.Settings, width=8, steps=300, batch=32, learning_rate=1e-2, holdout_every=4
)


def _write(path, times_s, rng):
    images = flashes.frames(times_s, FPS, SECONDS, rng)
    audio = flashes.audio(times_s, SECONDS)
    video_io.write_video(
        path, images, FPS, audio=audio, sample_rate_hz=flashes.RATE_HZ, preset="ultrafast"
    )
    events = [{"time_s": float(t), "material": "wood"} for t in times_s]
    path.with_suffix(".json").write_text(json.dumps({"level": "plain", "events": events}))


def _write_system(folder, seed, late_s):
    """Clips of 16 frames whose audio comes `late_s` after their image."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(8):
        times_s = flashes.times(rng, LENGTH_S)
        images = flashes.frames(times_s, 10, LENGTH_S, rng)
        video_io.write_video(folder / f"{i}.mp4", images, 10)
        audio = flashes.audio(times_s + late_s, LENGTH_S)
        audio = audio_io.resample(audio, flashes.RATE_HZ, sounding.RATE_HZ)
        audio_io.write_wav(folder / f"{i}.wav", audio, sounding.RATE_HZ)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """videos/{train,test}, two seeds of a good system, a bad one, and the finished report."""
    root = tmp_path_factory.mktemp("sounding")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        (root / "videos" / split).mkdir(parents=True)
        for i in range(count):
            _write(root / "videos" / split / f"{i:02d}.mp4", flashes.times(rng, SECONDS), rng)
    _write_system(root / "good0", seed=1, late_s=0.0)
    _write_system(root / "good1", seed=2, late_s=0.0)
    _write_system(root / "bad", seed=3, late_s=0.2)
    return root


def _argv(root, *systems):
    found = [f"--videos={root / 'videos'}", f"--out={root / 'report'}"]
    return found + [f"--system={name}={root / folder}" for name, folder in systems]


@pytest.fixture(scope="module")
def finished(places):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impacts, "Settings", SMALL)
        patch.setattr(sounding, "SHEET_CLIPS", 2)
        systems = (("good", "good0"), ("good", "good1"), ("bad one", "bad"))
        assert sounding.main(_argv(places, *systems)) == 0
    return json.loads((places / "report" / "metrics.json").read_text())


@pytest.mark.slow
def test_agreeing_clips_score_high_and_late_audio_does_not(finished):
    systems = finished["systems"]
    assert list(systems) == [sounding.TRUE, "good", "bad one"]
    for name in (sounding.TRUE, "good"):
        assert systems[name]["f1@100ms"] > 0.9
        assert systems[name]["shuffled_f1@100ms"] < 0.6
    assert systems["bad one"]["f1@100ms"] < 0.3
    assert systems[sounding.TRUE]["clips"] == 12  # 4 videos of 4.8 s make 3 windows each
    assert systems["good"]["seeds"] == 2 and "f1@100ms_std" in systems["good"]
    assert finished["impact_detector"][sounding.TRUE]["f1@100ms"] > 0.9


@pytest.mark.slow
def test_report_holds_tables_and_a_sheet_per_system(finished, places):
    out = places / "report"
    text = (out / "table.md").read_text()
    assert "protocol `sounding`" in text and "| bad one | 8 |" in text
    assert "impact detector against truth" in text
    card = json.loads((out / "run_card.json").read_text())
    assert card["protocol"] == "sounding" and len(card["systems"]["good"]) == 2
    assert card["systems"]["bad one"][0]["items"]["scored"] == 8
    sheets = {p.name for p in out.glob("contact_sheet_*.png")}
    assert sheets == {f"contact_sheet_{n}.png" for n in ("true_videos", "good", "bad_one")}


@pytest.mark.slow
def test_the_second_report_finds_the_detector_of_the_first(finished, places, monkeypatch):
    monkeypatch.setattr(impact_training, "fit", lambda *_: pytest.fail("trained again"))
    train = embedded.read_truth(places / "videos" / "train")
    detector = sounding.prepare_detector(train, places / "report", SMALL())
    images = flashes.frames([0.5, 1.0], 10, LENGTH_S, np.random.default_rng(5))
    np.testing.assert_allclose(detector(images), [0.5, 1.0], atol=0.1)


@pytest.mark.slow
def test_missing_files_are_named_before_anything_is_trained(places, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sounding, "prepare_detector", lambda *_: pytest.fail("trained"))
    system = tmp_path / "system"
    _write_system(system, seed=4, late_s=0.0)
    (system / "3.wav").unlink()
    (system / "5.mp4").unlink()
    assert sounding.main(_argv(places, ("gaps", system))) == 1
    error = capsys.readouterr().err
    assert "2 files missing" in error and "3.wav" in error and "5.mp4" in error
    (tmp_path / "empty").mkdir()
    assert sounding.main(_argv(places, ("none", tmp_path / "empty"))) == 1
    assert "holds no clips" in capsys.readouterr().err
    argv = [f"--videos={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert sounding.main(argv) == 1
    assert "data_prep.scenes" in capsys.readouterr().err


def _judged(name, impacts_s, onsets_s):
    frames, audio = np.zeros((16, 8, 8, 3), np.uint8), np.zeros(12800, np.float32)
    return sounding.Clip(name, frames, audio, np.array(impacts_s), np.array(onsets_s))


def test_agreement_counts_exactly():
    clips = [
        _judged("a", [0.3, 0.9], [0.35]),
        _judged("b", [], [0.5]),
        _judged("c", [1.0], [1.12]),
    ]
    found = sounding.agreement(clips)
    assert found["f1@100ms"] == pytest.approx(2 / 6)
    assert found["f1@150ms"] == pytest.approx(4 / 6)
    assert (found["events"], found["heard"], found["clips_without_impact"]) == (3, 3, 1)


class _BlindEye:
    settings = impacts.Settings()

    def __call__(self, frames_THWC):
        return np.zeros(0)


@pytest.mark.slow
def test_onsets_after_the_last_frame_do_not_count():
    audio = flashes.audio([0.5, 1.54], LENGTH_S)
    audio = audio_io.resample(audio, flashes.RATE_HZ, sounding.RATE_HZ)
    whole = sounding.judge("a", np.zeros((17, 8, 8, 3), np.uint8), audio, _BlindEye())
    cut = sounding.judge("a", np.zeros((16, 8, 8, 3), np.uint8), audio, _BlindEye())
    np.testing.assert_allclose(whole.onsets_s, [0.5, 1.54], atol=0.02)
    np.testing.assert_allclose(cut.onsets_s, [0.5], atol=0.02)


def test_a_clip_that_is_too_short_is_refused(places):
    paths = sounding.find_clips(places / "good0")
    with pytest.raises(ValueError, match="has 16 frames at 10 fps, expected 20"):
        sounding.read_system(paths, _BlindEye(), 20, "test")


def test_what_few_clips_do_not_give_is_a_dash_with_its_reason(tmp_path, capsys):
    one = sounding.agreement([_judged("a", [0.3], [0.3])])
    none = sounding.agreement([_judged("b", [], [])] * 4)
    sounding.write(tmp_path, {"one": one, "none": none}, {"eye": none}, {}, 10.0)
    text = (tmp_path / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=pytest.fail)
    assert metrics["systems"]["one"]["f1@100ms"] == 1.0
    assert metrics["systems"]["one"]["f1_low"] is metrics["systems"]["none"]["f1_low"] is None
    table = (tmp_path / "table.md").read_text()
    assert "nan" not in table and "| one | 1 | 1.000 | - | - |" in table
    assert "- no 95 % interval of one: 1 clip; a 95 % interval needs 4" in table
    assert "of eye: no clip has a true event, and nothing is heard in any" in table
