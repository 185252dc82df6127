"""The run card names what was judged, and what is missing or silent."""

import json
import subprocess

import numpy as np
import pytest

from foley_jax.evaluation import run_card
from foley_jax.media import audio as audio_io

RATE = 16000


def _tone():
    return (0.3 * np.sin(np.arange(RATE // 2) * 0.3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "x"):
        audio_io.write_wav(tmp_path / f"{name}.wav", _tone(), RATE)
    return tmp_path


def _account(**lists):
    return run_card.Account(("a", "b", "c", "d", "e"), ("a", "b", "d"), **lists)


def test_record_and_complaint_tell_counts_and_names():
    lists = {"missing": ("e",), "silent": ("b",), "foreign": ("x",), "unreadable": {"c": "why"}}
    account = _account(**lists)
    record = json.loads(json.dumps(account.record()))
    assert (record["requested"], record["scored"]) == (5, 3)
    assert record["missing"] == ["e"] and record["silent"] == ["b"] and record["foreign"] == ["x"]
    assert record["unreadable"] == {"c": "why"}
    assert account.complaint() == "3 of 5 scored; 1 missing (e), 1 unreadable (c), 1 silent (b)"
    assert _account(missing=tuple("pqrs")).complaint().endswith("4 missing (p, q, r, ...)")


def test_foreign_files_are_no_complaint():
    assert _account(foreign=("x",)).complaint() == ""


def test_a_audio_comes_before_the_video_of_its_name(tmp_path):
    for name in ("a.mp4", "a.flac", "a.WAV", "b.mp4", "c.txt"):
        (tmp_path / name).touch()
    found = {stem: path.name for stem, path in run_card.find_audio(tmp_path).items()}
    assert found == {"a": "a.WAV", "b": "b.mp4"}


def test_folders_without_audio_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="holds no"):
            run_card.find_audio(folder)


def test_silence():
    assert run_card.is_silent(np.zeros(0)) and run_card.is_silent(np.full(9, -9e-4))
    assert not run_card.is_silent(np.array([0.0, -2e-3]))


def test_hash_tells_content_and_names_apart(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder / "w").write_bytes(b"weights")
    one, two = (run_card.content_hash(tmp_path / f) for f in ("one", "two"))
    assert one == two and len(one) == 64
    (tmp_path / "two/w").write_bytes(b"weightz")
    assert run_card.content_hash(tmp_path / "two") != one
    (tmp_path / "one/w").rename(tmp_path / "one/v")
    assert run_card.content_hash(tmp_path / "one") != one
    # sha256 of the bytes "weights"
    (tmp_path / "w").write_bytes(b"weights")
    want = subprocess.run(["sha256sum", tmp_path / "w"], capture_output=True, text=True).stdout
    assert run_card.content_hash(tmp_path / "w") == want.split()[0]
    with pytest.raises(FileNotFoundError, match="nothing to hash"):
        run_card.content_hash(tmp_path / "three")


def test_commit_tells_changed_sources(tmp_path):
    assert run_card.commit(tmp_path) is None

    def git(*arguments):
        about = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", tmp_path, *about, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-m", "m")
    clean = run_card.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "f").write_text("2")
    assert run_card.commit(tmp_path) == clean + "+changes"


def test_card_holds_what_a_figure_depends_on(folder):
    (folder / "scores.json").write_text(json.dumps({"settings": {"seed": 3}, "clips": {}}))
    account = run_card.Account(("a", "e"), ("a",), missing=("e",))
    (folder.parent / "weights").write_bytes(b"w")
    entry = run_card.of_system(
        folder, run_card.find_audio(folder), account, folder.parent / "weights"
    )
    path = folder.parent / "card.json"
    card = run_card.write(path, "onsets", {"tolerance_s": 0.1}, {"ours": [entry]})
    assert json.loads(path.read_text()) == json.loads(json.dumps(card))
    assert card["protocol"] == "onsets" and card["settings"] == {"tolerance_s": 0.1}
    assert card["versions"]["numpy"] == np.__version__
    run = card["systems"]["ours"][0]
    assert run["generation"] == {"seed": 3} and run["items"]["scored"] == 1
    length_s = round(len(_tone()) / RATE, 3)
    assert run["sound"] == {
        "sample_rates_hz": {str(RATE): 1},
        "seconds_min_median_max": [length_s] * 3,
    }
    assert run["checkpoint_sha256"] == run_card.content_hash(folder.parent / "weights")
    (folder / "a.wav").write_bytes((folder / "x.wav").read_bytes() + b"x")
    assert (
        run_card.of_system(folder, run_card.find_audio(folder), account)["sounds_sha256"]
        != run["sounds_sha256"]
    )
    with pytest.raises(ValueError, match="no protocol"):
        run_card.write(path, "", {}, {})
