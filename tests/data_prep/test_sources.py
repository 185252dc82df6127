"""EPIC-Kitchens, Landscape, AIST++ and any folder: official names in, manifests out."""

import json
import pathlib

import pytest

from data_prep import manifest
from data_prep.sources import aist, epic_kitchens, folder, landscape

ACTIONS = """\
narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,\
start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes
P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]
P01_01_1,P01,P01_01,00:00:02.629,01:02:04.37,01:02:06.17,262,370,\
"take pan, lid",take,0,pan,1,"['pan', 'lid']","[1, 2]"
P02_01_0,P02,P02_01,00:00:02.629,00:00:01.00,00:00:02.00,1,2,cut onion,cut,7,onion,16,['onion'],[16]
"""
SOUNDS = """\
annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,\
description,class,class_id
P01_01_0,P01,P01_01,00:00:03.069,00:00:04.993,49656,71832,clang / clatter,metal-only collision,0
P01_01_1,P01,P01_01,00:00:00.000,00:10:00.000,0,1,tap running,water,5
"""
TEST = """\
narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,\
start_frame,stop_frame
P01_01_9,P01,P01_01,00:00:02.851,00:00:02.86,00:00:03.87,143,193
"""


def touch(root: pathlib.Path, *names: str):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def run(module, *args) -> tuple[list[manifest.Entry], list[dict]]:
    out = pathlib.Path(args[-1]).parent / "m.jsonl"
    module.main([*map(str, args), f"--out={out}"])
    lines = out.with_name("m.missing.jsonl").read_text().splitlines()
    return manifest.read(out), [json.loads(line) for line in lines]


@pytest.fixture
def epic(tmp_path) -> pathlib.Path:
    touch(tmp_path, "videos/P01/videos/P01_01.MP4")
    (tmp_path / "EPIC_100_validation.csv").write_text(ACTIONS)
    (tmp_path / "EPIC_Sounds_train.csv").write_text(SOUNDS)
    (tmp_path / "EPIC_100_test_timestamps.csv").write_text(TEST)
    return tmp_path


def test_epic_actions(epic):
    tables = epic / "EPIC_100_validation.csv", epic / "EPIC_100_test_timestamps.csv"
    entries, missing = run(epic_kitchens, *tables, epic / "videos")
    file = "P01/videos/P01_01.MP4"
    first = {"verb": "open", "narration": "open door", "nouns": ["door"]}
    second = {"verb": "take", "narration": "take pan, lid", "nouns": ["pan", "lid"]}
    assert entries == [
        manifest.Entry("P01_01_0", file, "val", 0.14, 3.37, first),
        manifest.Entry("P01_01_1", file, "val", 3724.37, 3726.17, second),
        manifest.Entry("P01_01_9", file, "test", 2.86, 3.87, {}),
    ]
    assert entries[1].label_names == ["take", "take pan, lid", "pan", "lid"]
    assert [(one["id"], one["wanted"]) for one in missing] == [("P02_01_0", "P02_01.MP4")]


def test_epic_audio_and_actions_that_audio(epic, capsys):
    entries, missing = run(epic_kitchens, epic / "EPIC_Sounds_train.csv", epic / "videos")
    assert [(e.id, e.split, e.start_s, e.end_s) for e in entries] == [
        ("P01_01_0", "train", 3.069, 4.993),
        ("P01_01_1", "train", 0.0, 600.0),
    ]
    assert entries[0].labels == {
        "class": "metal-only collision",
        "description": "clang / clatter",
    }
    options = [f"--sounding={epic / 'EPIC_Sounds_train.csv'}", epic / "EPIC_100_validation.csv"]
    entries, missing = run(epic_kitchens, *options, epic / "videos")
    assert [(e.id, e.labels["sounds"]) for e in entries] == [
        ("P01_01_0", ["water", "metal-only collision"])
    ]
    assert not missing and "2 actions without an audio clip are left out" in capsys.readouterr().out


def test_epic_stretches_may_be_made_longer(epic):
    options = ["--at_least=10", epic / "EPIC_100_validation.csv", epic / "videos"]
    entries, _ = run(epic_kitchens, *options)
    assert [(e.start_s, e.end_s) for e in entries] == [(0.0, 10.0), (3720.27, 3730.27)]
    assert epic_kitchens.grow(30.0, 45.0, 10.0) == (30.0, 45.0)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("EPIC_100.csv", "", "", "EPIC_100.csv: wanted a name with train, validation"),
        ("a_train.csv", "narration_id", "uid", "has the columns uid, .*wanted narration_id or"),
        ("a_train.csv", "00:00:00.14", "0.14", "line 2: time is '0.14', wanted HH:mm:ss"),
        ("a_train.csv", "['door']", "[door", "line 2: "),
    ],
)
def test_epic_names_what_is_wrong(tmp_path, name, old, new, message):
    (tmp_path / name).write_text(ACTIONS.replace(old, new) if old else ACTIONS)
    with pytest.raises(ValueError, match=message):
        list(epic_kitchens.read(tmp_path / name))


def test_epic_stretch_without_length_is_named(epic):
    table = epic / "EPIC_100_validation.csv"
    table.write_text(ACTIONS.replace("00:00:03.37", "00:00:00.10"))
    entries, missing = run(epic_kitchens, table, epic / "videos")
    assert [e.id for e in entries] == ["P01_01_1"]
    assert [one["reason"] for one in missing] == ["no_duration", "no_file"]


def test_landscape(tmp_path):
    touch(
        tmp_path / "landscape",
        *("train/explosion/a.mp4", "train/fire_crackling/a.mp4", "test/raining_3.mp4"),
        *("train/wind_noise_7_1.mkv", "train/waterfall_bubbling/b.mp4", "train/rainingcats/c.mp4"),
    )
    entries, missing = run(landscape, tmp_path / "landscape")
    assert {e.file: (e.split, *e.labels) for e in entries} == {
        "test/raining_3.mp4": ("test", "raining"),
        "train/explosion/a.mp4": ("train", "explosion"),
        "train/fire_crackling/a.mp4": ("train", "fire crackling"),
        "train/waterfall_bubbling/b.mp4": ("train", "waterfall burbling"),
        "train/wind_noise_7_1.mkv": ("train", "wind noise"),
    }
    assert len(landscape.LABELS) == 9 and len(missing) == 18 - 5
    assert "train/thunder" in {one["id"] for one in missing}


def test_aist_by_folder_and_by_official_lists(tmp_path):
    names = "gBR_sBM_c01_d04_mBR0_ch01", "gJB_sFM_c02_d07_mJB1_ch21_3", "gLH_sBM_cAll_d17_mLH4_ch02"
    videos = tmp_path / "AIST++_crop"
    touch(videos, f"train/{names[0]}.mp4", f"test/{names[1]}.mp4", f"train/{names[2]}.mp4", "x.mp4")
    entries, missing = run(aist, videos)
    assert {e.file: (e.id, e.split, *e.labels) for e in entries} == {
        f"train/{names[0]}.mp4": (f"train/{names[0]}", "train", "break"),
        f"test/{names[1]}.mp4": (f"test/{names[1]}", "test", "ballet jazz"),
        f"train/{names[2]}.mp4": (f"train/{names[2]}", "train", "LA-style hip-hop"),
    }
    assert not missing
    lists = tmp_path / "splits"
    lists.mkdir()
    gone = "gPO_sBM_cAll_d10_mPO0_ch10"
    (lists / "crossmodal_train.txt").write_text(f"gJB_sFM_cAll_d07_mJB1_ch21\n{gone}\n")
    (lists / "crossmodal_val.txt").write_text("gBR_sBM_cAll_d04_mBR0_ch01\n")
    (lists / "crossmodal_test.txt").write_text(f"{names[2]}\n")
    (tmp_path / "ignore_list.txt").write_text(f"{names[2]}\n")
    entries, missing = run(aist, f"--splits={lists}", videos)
    assert {(e.id, e.split) for e in entries} == {
        (f"test/{names[1]}", "train"),
        (f"train/{names[0]}", "val"),
    }
    assert [(one["id"], one["wanted"]) for one in missing] == [
        (gone, "gPO_sBM_c01_d10_mPO0_ch10.mp4")
    ]
    (lists / "crossmodal_val.txt").write_text("dance\n")
    with pytest.raises(ValueError, match="holds 'dance', wanted sequences like"):
        aist.read_splits(lists)
    with pytest.raises(ValueError, match="holds none of crossmodal_train.txt"):
        aist.read_splits(tmp_path)


def test_any_folder(tmp_path):
    videos = tmp_path / "v"
    touch(videos, "train/dog/a.mp4", "test/b.mkv", "test/b.mov", "notes.txt", "test_hard/cat/ü.mp4")
    entries, missing = run(folder, "--labels", videos)
    assert [(e.id, e.file, e.split, e.labels) for e in entries] == [
        ("test/b.mkv", "test/b.mkv", "test", []),
        ("test/b.mov", "test/b.mov", "test", []),
        ("test_hard/cat/ü", "test_hard/cat/ü.mp4", "test_hard", ["cat"]),
        ("train/dog/a", "train/dog/a.mp4", "train", ["dog"]),
    ]
    assert not missing
    entries, _ = run(folder, "--split=val", videos)
    assert {(e.split, *e.labels) for e in entries} == {("val",)}
    entries, _ = run(folder, f"--root={tmp_path}", videos)
    assert (entries[-1].id, entries[-1].file) == ("v/train/dog/a", "v/train/dog/a.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="which has 0 videos"):
        run(folder, tmp_path / "empty")
