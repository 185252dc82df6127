"""Texts of the embedded scenes."""

import json

import pytest

from data_prep import manifest
from data_prep.sources import scenes


@pytest.mark.parametrize(
    ("materials", "movers", "labels"),
    [
        (["glass", "glass"], [], ["glass"]),
        (["wood", "glass", "wood"], [], ["two objects", "glass", "wood"]),
        (["wood", "skin"], ["rotor"], ["three objects", "rotor", "skin", "wood"]),
        ([], ["rotor"], ["rotor"]),
    ],
)
def test_labels_say_how_many_and_what(materials, movers, labels):
    truth = {
        "events": [{"material": name} for name in materials],
        "continuous": [{"kind": name} for name in movers],
    }
    assert scenes.labels_of(truth) == labels


def test_scenes_become_a_manifest_and_one_without_truth_is_missing(tmp_path, capsys):
    videos = tmp_path / "videos"
    (videos / "test").mkdir(parents=True)
    for name in ("plain_00000", "plain_00001"):
        (videos / "test" / f"{name}.mp4").touch()
    truth = {"events": [{"material": "glass"}], "continuous": []}
    (videos / "test" / "plain_00001.json").write_text(json.dumps(truth))
    scenes.main([str(videos), f"--out={tmp_path / 'scenes.jsonl'}"])
    (entry,) = manifest.read(tmp_path / "scenes.jsonl")
    assert (entry.file, entry.split, entry.label_names) == (
        "test/plain_00001.mp4",
        "test",
        ["glass"],
    )
    assert "plain_00000.json" in (tmp_path / "scenes.missing.jsonl").read_text()
    assert "1 test clips" in capsys.readouterr().out
