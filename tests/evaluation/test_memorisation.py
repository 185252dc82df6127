"""The audit finds planted copies by name, clears fresh clips, and names what it left out."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest

from foley_jax.evaluation.memorisation import __main__ as memorisation
from foley_jax.evaluation.memorisation import nearest_clips
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

RATE, SECONDS, FPS, SIDE = 16000, 1.6, 10, 32
COUNT = 16  # clips of a set
AUDIO, IMAGE = "audio: log-mel", "image: pixels"


def _audio(rng, seconds=SECONDS):
    t = np.arange(round(seconds * RATE)) / RATE
    out = np.zeros(len(t))
    for _ in range(round(2 * seconds)):
        since = t - rng.uniform(0.0, seconds - 0.1)
        tone = np.sin(2 * np.pi * rng.uniform(200, 3000) * since)
        out += 0.2 * (since >= 0) * tone * np.exp(-since / 0.08)
    return out.astype(np.float32)


def _frames(rng, seconds=SECONDS):
    """A square of some colour that moves over an even background."""
    frames = np.empty((round(seconds * FPS), SIDE, SIDE, 3), np.uint8)
    frames[:] = rng.integers(0, 255, 3)
    place, step = rng.uniform(0, SIDE - 12, 2), rng.uniform(-0.5, 0.5, 2)
    colour = rng.integers(0, 255, 3)
    for i, frame in enumerate(frames):
        y, x = np.clip(place + i * step, 0, SIDE - 12).astype(int)
        frame[y : y + 12, x : x + 12] = colour
    return frames


def _write(path, frames, audio):
    video_io.write_video(path, frames, FPS, audio=audio, sample_rate_hz=RATE, preset="ultrafast")


def _folder(path, seed, count=COUNT, prefix=""):
    path.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        _write(path / f"{prefix}{i:02d}.mp4", _frames(rng), _audio(rng))
    return path


def _changed(audio_L, how):
    """One way in which a copy may differ from its original."""
    if how == "noisy":
        noise = np.random.default_rng(5).standard_normal(len(audio_L))
        return audio_L + 0.01 * audio_L.std() * noise.astype(np.float32)
    if how == "quieter":
        return 0.2 * audio_L
    if how == "shifted":
        return np.pad(audio_L, (round(0.02 * RATE), 0))[: len(audio_L)]
    return audio_L


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """training, held_out and fresh clips; copies of training clips' audio and video."""
    root = tmp_path_factory.mktemp("memorisation")
    _folder(root / "training", 10)
    _folder(root / "held_out", 11)
    _folder(root / "fresh", 12)
    (root / "copies").mkdir()
    for i, how in enumerate(("exact", "noisy", "quieter", "shifted") * 3):
        original = root / "training" / f"{i:02d}.mp4"
        copy = root / "copies" / f"{how}_{i:02d}"
        audio_L = audio_io.load(original, RATE)
        audio_io.write_wav(copy.with_suffix(".wav"), _changed(audio_L, how), RATE)
        shutil.copyfile(original, copy.with_suffix(".mp4"))
    return root


def _run(out, **folders):
    systems, weights = folders.pop("systems", {}), folders.pop("checkpoints", {})
    argv = [f"--{name}={folder}" for name, folder in folders.items()]
    argv += [f"--checkpoint={name}={folder}" for name, folder in weights.items()]
    argv += [f"--generated={name}={folder}" for name, folder in systems.items()]
    return memorisation.main([*argv, f"--out={out}"])


@pytest.fixture(scope="module")
def finished(root):
    systems = {"fresh": root / "fresh", "copies": root / "copies"}
    weights = root / "model.ckpt"
    weights.write_bytes(b"weights")
    folders = {"training": root / "training", "held_out": root / "held_out"}
    assert (
        _run(
            root / "report",
            **folders,
            systems=systems,
            weights=root,
            checkpoints={"fresh": weights},
        )
        == 0
    )
    with (root / "report" / "per_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    return json.loads((root / "report" / "metrics.json").read_text()), rows


@pytest.mark.slow
@pytest.mark.parametrize("descriptor", [AUDIO, IMAGE])
def test_copies_are_found_by_name_and_fresh_clips_are_cleared(finished, descriptor):
    metrics, rows = finished
    figures = metrics["descriptors"][descriptor]
    assert list(figures) == [nearest_clips.HELD_OUT, nearest_clips.TRAINING, "fresh", "copies"]
    copies, fresh = figures["copies"], figures["fresh"]
    assert copies["nearer"] == 1.0 and copies["auc"] == 1.0 and copies["authentic"] == 0.0
    assert fresh["auc_low"] < 0.5 < fresh["auc_high"] and fresh["nearer"] < 0.3
    # of 16 clips against 16 it spreads by 0.1
    assert 0.2 < figures[nearest_clips.TRAINING]["auc"] < 0.8
    own = [r for r in rows if r["system"] == "copies" and r["descriptor"] == descriptor]
    assert len(own) == 12
    for row in own:
        assert row["name"].split("_")[1] == row["neighbour"] and row["nearer"] == "1"
        assert float(row["ratio"]) < 0.5 < float(row["second_distance"])
        assert row["second"] != row["neighbour"]
    if descriptor == IMAGE:
        assert all(float(row["distance"]) == 0.0 for row in own)


def test_report_is_whole(finished, root):
    metrics, rows = finished
    out = root / "report"
    text = (out / "table.md").read_text()
    assert f"protocol `memorisation`, {AUDIO}" in text and "| copies | 12 |" in text
    assert metrics["skipped"]["vggish"].startswith("skipped: no vggish-10086976.pth")
    assert "i3d: skipped: no i3d_pretrained_400.pt or" in text
    assert metrics["complaints"] == []
    assert len(rows) == 2 * (COUNT + COUNT + 12)
    card = json.loads((out / "run_card.json").read_text())
    assert card["settings"]["seconds"] == SECONDS and card["settings"]["stride_s"] == SECONDS / 2
    copies, fresh = card["systems"]["copies"][0], card["systems"]["fresh"][0]
    assert copies["items"]["scored"] == 12 and copies["checkpoint_sha256"] is None
    assert fresh["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    page = (out / "neighbours.html").read_text()
    assert "../copies/exact_00.mp4" in page and "../training/00.mp4" in page
    assert page.count("<tr>") == 2 * 3 * 6
    for name in ("neighbours_audio_log-mel.png", "neighbours_image_pixels.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG") and name in page


@pytest.fixture(scope="module")
def troubled(root, tmp_path_factory):
    """A leaky held-out set and a system of audio clips only, some of them bad."""
    here = tmp_path_factory.mktemp("troubled")
    shutil.copytree(root / "training", here / "training")
    audio_io.write_wav(here / "training" / "pause.wav", np.zeros(3 * RATE, np.float32), RATE)
    shutil.copytree(root / "held_out", here / "held_out")
    shutil.copyfile(root / "training" / "03.mp4", here / "held_out" / "leak.mp4")
    audio_io.write_wav(here / "held_out" / "hush.wav", np.zeros(2 * RATE, np.float32), RATE)
    (here / "some").mkdir()
    for i in range(3):
        audio_L = audio_io.load(root / "training" / f"{i:02d}.mp4", RATE)
        audio_io.write_wav(here / "some" / f"good{i}.wav", audio_L, RATE)
    (here / "some" / "broken.wav").write_bytes(b"broken")
    audio_io.write_wav(here / "some" / "short.wav", np.ones(RATE // 2, np.float32), RATE)
    audio_io.write_wav(here / "some" / "quiet.wav", np.zeros(2 * RATE, np.float32), RATE)
    folders = {"training": here / "training", "held_out": here / "held_out", "seconds": SECONDS}
    assert _run(here / "out", **folders, systems={"some": here / "some"}) == 0
    return here / "out", json.loads((here / "out" / "metrics.json").read_text())


@pytest.mark.slow
def test_leaked_files_are_named_and_left_out(troubled):
    out, metrics = troubled
    leaks, equal = (
        line for line in metrics["complaints"] if "of the training" in line or "equal" in line
    )
    assert "1 left out" in leaks and "leak = 03" in leaks
    assert "1 equal to a training item (hush)" in equal and AUDIO in equal
    assert metrics["descriptors"][AUDIO][nearest_clips.HELD_OUT]["clips"] == COUNT + 1
    assert metrics["descriptors"][IMAGE][nearest_clips.HELD_OUT]["clips"] == COUNT
    card = json.loads((out / "run_card.json").read_text())
    assert card["settings"]["held_out_left_out"] == {"leak": "03"}


@pytest.mark.slow
def test_bad_files_are_named_and_do_not_stop_the_rest(troubled):
    out, metrics = troubled
    assert metrics["descriptors"][AUDIO]["some"]["clips"] == 4
    assert "some" not in metrics["descriptors"][IMAGE]
    assert "has no such files" in metrics["skipped"][f"{IMAGE}, some"]
    complaint = "some, some, audio: 4 of 6 scored; 2 unreadable (broken, short), 1 silent (quiet)"
    assert complaint in metrics["complaints"]
    with (out / "per_sample.csv").open() as file:
        rows = {r["name"]: r for r in csv.DictReader(file) if r["system"] == "some"}
    assert rows["broken"]["status"] == "unreadable" and rows["broken"]["distance"] == ""
    assert rows["quiet"]["status"] == "silent" and rows["quiet"]["neighbour"] == "pause"
    assert rows["good1"]["status"] == "scored" and rows["good1"]["neighbour"] == "01"


@pytest.mark.slow
def test_a_piece_of_a_long_training_file_is_found_with_its_time(root, tmp_path):
    training = tmp_path / "training"
    shutil.copytree(root / "training", training)
    rng = np.random.default_rng(7)
    frames, audio_L = _frames(rng, 4 * SECONDS), _audio(rng, 4 * SECONDS)
    _write(training / "long.mp4", frames, audio_L)
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    start = 1.5 * SECONDS
    part = audio_io.load(training / "long.mp4", RATE, start_s=start + 0.01, duration_s=SECONDS)
    _write(pieces / "piece.mp4", frames[24:40], part)
    folders = {"training": training, "held_out": root / "held_out"}
    assert _run(tmp_path / "out", **folders, systems={"p": pieces}, seconds=SECONDS) == 0
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["system"] == "p"]
    assert [(r["neighbour"], float(r["neighbour_start_s"])) for r in rows] == [("long", start)] * 2
    assert all(r["second"] != "long" and float(r["ratio"]) < 0.5 for r in rows)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"systems": {"x": "fresh"}, "held_out": "training"}, "all 16 held-out items are files"),
        ({"systems": {nearest_clips.HELD_OUT: "fresh"}}, "give it another name"),
        ({"systems": {"x": "fresh"}, "checkpoints": {"y": "z"}}, r"names ['y']"),
        ({"systems": {"x": "nowhere"}}, "nowhere holds no .wav"),
        ({"systems": {"x": "fresh"}, "seconds": 0}, "expected at least 0.1 s"),
        ({"systems": {"x": "fresh"}, "seconds": 100}, "nothing of x can be compared"),
    ],
)
def test_what_cannot_be_audited_is_refused(root, tmp_path, capsys, options, complaint):
    systems = {name: root / folder for name, folder in options["systems"].items()}
    held_out = root / options.get("held_out", "held_out")
    options = {**options, "systems": systems, "held_out": held_out}
    assert _run(tmp_path, training=root / "training", **options) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_one_clip_of_each_has_no_interval_and_says_so(tmp_path, capsys):
    folders = {
        name: _folder(tmp_path / name, seed, count=1)
        for seed, name in enumerate(("training", "held_out", "one"))
    }
    assert _run(tmp_path / "out", systems={"one": folders.pop("one")}, **folders) == 0
    text = (tmp_path / "out" / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=pytest.fail)
    row, why = (metrics[key][AUDIO]["one"] for key in ("descriptors", "reasons"))
    assert row["auc"] in (0.0, 1.0) and row["auc_low"] is row["auc_high"] is None
    assert why["auc_low"] == "1 clip; a 95 % interval needs 4 of each"
    assert "5 % quantile needs 20" in metrics["remarks"][AUDIO]["one"]["nearer"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "nan" not in table and "a 95 % interval needs 4 of each" in table
    assert "the others are held against it" in table  # the held-out row's dashes
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        items = list(csv.DictReader(file))
    assert {row["ratio"] for row in items} == {""} and all("ratio: " in row["why"] for row in items)
