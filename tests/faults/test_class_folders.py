"""Evaluation of class folders: which audio is judged against which, and what cannot be told."""

import json
import shutil

import numpy as np
import pytest

from foley_jax.evaluation import __main__ as command
from foley_jax.evaluation import pairing, run_card
from foley_jax.evaluation.memorisation import nearest_clips
from foley_jax.media import audio as audio_io

RATE = 16000


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _pairs(tmp_path, reference, made, videos=None):
    """Name of the reference -> file of the system, both relative."""
    true, ours = _touch(tmp_path / "true", *reference), _touch(tmp_path / "ours", *made)
    if videos is not None:
        clips = {name: {"video": video} for name, video in videos.items()}
        (ours / "scores.json").write_text(json.dumps({"settings": {}, "clips": clips}))
    found, there = run_card.find_audio(ours), run_card.find_audio(true)
    pairs = pairing.pair(found, ours, there)
    assert len(pairs.paths) + sum(
        any(str(path) in why for why in pairs.ambiguous.values()) for path in found.values()
    ) == len(found)
    paths = {name: path.relative_to(ours).as_posix() for name, path in pairs.paths.items()}
    return paths, pairs.ambiguous


CLASSES = ("cat/0.wav", "dog/0.wav", "dog/1.wav")
FLAT = ("a.wav", "b.wav")
NESTED = ("x/a.wav", "y/deep/b.wav")


@pytest.mark.parametrize(
    ("reference", "made", "want"),
    [
        (CLASSES, CLASSES, {"cat/0": CLASSES[0], "dog/0": CLASSES[1], "dog/1": CLASSES[2]}),
        (CLASSES, ("dog/0.mp4", "bird/7.wav"), {"dog/0": "dog/0.mp4", "bird/7": "bird/7.wav"}),
        (NESTED, FLAT, {"x/a": "a.wav", "y/deep/b": "b.wav"}),
        (FLAT, NESTED, {"a": "x/a.wav", "b": "y/deep/b.wav"}),
        (NESTED, ("deep/b.mp4",), {"y/deep/b": "deep/b.mp4"}),
        # other classes of one stem are other items
        (("cat/0.wav",), ("dog/0.wav",), {"dog/0": "dog/0.wav"}),
        # what has its own place gives no room for doubt
        (("0.wav", "cat/0.wav"), ("0.wav", "cat/0.wav"), {"0": "0.wav", "cat/0": "cat/0.wav"}),
        (("cat/0.wav",), ("0.wav", "cat/0.wav"), {"cat/0": "cat/0.wav", "0": "0.wav"}),
    ],
)
def test_items_are_paired_by_path_and_by_stem_where_that_is_sure(tmp_path, reference, made, want):
    assert _pairs(tmp_path, reference, made) == (want, {})


@pytest.mark.parametrize(
    ("reference", "made", "unsure"),
    [
        (CLASSES, ("0.wav", "1.wav"), {"cat/0", "dog/0"}),
        (("0.wav", "1.wav"), CLASSES, {"0"}),
        (("a/cat/0.wav", "b/cat/0.wav"), ("cat/0.wav", "0.wav"), {"a/cat/0", "b/cat/0"}),
        (("a.wav",), ("seed0/a.wav", "seed1/a.wav"), {"a"}),
    ],
)
def test_what_cannot_be_told_apart_is_shown_with_all_paths(tmp_path, reference, made, unsure):
    _, ambiguous = _pairs(tmp_path, reference, made)
    assert set(ambiguous) == unsure
    for name, why in ambiguous.items():
        stem = name.rpartition("/")[2]
        for folder, files in (("true", reference), ("ours", made)):
            for file in files:
                if file.endswith(f"{stem}.wav") and (file.count("/") != 1 or folder == "ours"):
                    assert str(tmp_path / folder / file) in why


@pytest.mark.parametrize("first", ["0", "0_2"])
def test_what_our_commands_made_is_known_by_its_video(tmp_path, first):
    """The output names are flat, and the number says nothing about the folder."""
    second = {"0": "0_2", "0_2": "0"}[first]
    videos = {first: "v/cat/0.mp4", second: "v/dog/0.mp4", "1": "v/1.mp4"}
    made = [f"{name}.wav" for name in videos]
    want = {"cat/0": f"{first}.wav", "dog/0": f"{second}.wav", "1": "1.wav"}
    assert _pairs(tmp_path, ("cat/0.mp4", "dog/0.mp4", "1.mp4"), made, videos) == (want, {})


def test_of_two_videos_of_one_name_the_one_in_the_reference_counts(tmp_path):
    videos = {"a": "v/a.mov", "a_2": "v/a_2.mp4", "a_3": "v/a.mp4"}
    made = [f"{name}.wav" for name in videos]
    want = {"a": "a_3.wav", "a_2": "a_2.wav", "a.wav": "a.wav"}
    assert _pairs(tmp_path, ("a.mp4", "a_2.mp4"), made, videos) == (want, {})


# ---- the command ------------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate(CLASSES):
        audio_L = 1e-5 * rng.normal(size=RATE)
        audio_L[2000 + 3000 * i :][:400] += 0.4 * rng.normal(size=400)
        path = tmp_path / "ref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio_io.write_wav(path, audio_L.astype(np.float32), RATE)
    shutil.copytree(tmp_path / "ref", tmp_path / "gen")
    return tmp_path


def _run(folder, *words):
    given = ["--protocol=onsets", f"--reference={folder}/ref", f"--generated=ours={folder}/gen"]
    return command.main([*given, *(words or (f"--out={folder}/report",))])


def _items(folder):
    card = json.loads((folder / "report/run_card.json").read_text())
    return {name: runs[0]["items"] for name, runs in card["systems"].items()}


@pytest.mark.slow
def test_class_folders_are_judged_item_by_item(classes, capsys):
    (classes / "ref/cat/._0.wav").write_bytes(b"a shadow")
    assert _run(classes) == 0
    for items in _items(classes).values():
        assert items["scored"] == 3 and not items["missing"] and not items["foreign"]
    metrics = json.loads((classes / "report/metrics.json").read_text())
    assert metrics["systems"]["ours"]["f1@100ms"] == 1.0
    assert metrics["complaints"] == ["reference and ours, gen hold the same files"]
    assert capsys.readouterr().err.count("passed over: 1 hidden\n") == 1


def test_namesakes_and_unsure_items_are_named_and_the_rest_is_judged(classes, capsys):
    shutil.rmtree(classes / "gen/cat")
    for name in ("0", "1"):
        (classes / f"gen/dog/{name}.wav").rename(classes / f"gen/{name}.wav")
    shutil.copyfile(classes / "gen/1.wav", classes / "gen/1.flac")
    assert _run(classes) == 0
    items = _items(classes)["ours"]
    assert items["scored"] == 1 and items["requested"] == 3
    assert set(items["unreadable"]) == {"cat/0", "dog/0"}
    seen = capsys.readouterr()
    for path in ("gen/0.wav", "ref/cat/0.wav", "ref/dog/0.wav"):
        assert f"{classes}/{path}" in seen.out
        assert f"{classes}/{path}" in (classes / "report/table.md").read_text()
    assert f"1 namesake ({classes}/gen/1.flac and {classes}/gen/1.wav)" in seen.err


@pytest.mark.slow
def test_the_report_is_never_an_item(classes, capsys):
    out = f"--out={classes}/ref/report"
    _run(classes, out)
    (classes / "ref/report/page").mkdir(exist_ok=True)
    shutil.copyfile(classes / "ref/dog/1.wav", classes / "ref/report/page/1.wav")
    assert _run(classes, out) == 0
    card = json.loads((classes / "ref/report/run_card.json").read_text())
    assert card["systems"]["reference"][0]["items"]["requested"] == 3
    assert "passed over: 1 of another kind" not in (seen := capsys.readouterr().err)
    assert "1 in the output folder" in seen
    assert _run(classes, f"--out={classes}/ref") == 1
    seen = capsys.readouterr().err
    assert f"{classes}/ref is to be searched, and the results go there too" in seen
    made = [classes / "ref", classes / "ref/report"]
    with pytest.raises(ValueError, match="is to be searched"):
        nearest_clips.Collection.of("x", made[0], [made[0]])
    assert len(nearest_clips.Collection.of("x", made[0], [made[1]]).names) == 3
