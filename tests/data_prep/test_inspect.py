"""Tests what a set holds, what is wrong with it, and the set without what is wrong."""

import dataclasses
import json
import shutil

from matplotlib import image
import numpy as np
import pytest

from data_prep import inspect, shard_check
from foley_jax.data import pipeline, records

SIDE, FPS, RATE = 16, 4.0, 16000
COUNTS = {"train": (5, 4), "test": (3,)}


def make_clip(split, n, **changes):
    rng = np.random.default_rng([len(split), n])
    clip = records.Clip(
        id=f"{split}/{n}",
        split=split,
        labels=[["wood"], ["metal", "glass"], []][n % 3],
        source=f"{split}/{n}.mp4",
        start_s=0.0,
        end_s=2.0,
        fps=FPS,
        frames=records.encode_frames(
            rng.integers(0, 256, (round(2 * FPS), SIDE, SIDE, 3), dtype=np.uint8)
        ),
        audio=rng.integers(-32768, 32768, 2 * RATE, dtype=np.int16),
        sample_rate_hz=RATE,
        events=[{"time_s": 0.5}],
    )
    return dataclasses.replace(clip, **changes)


def write_set(folder, counts=COUNTS, change=lambda split, n: {}, **index):
    infos = []
    for split, sizes in counts.items():
        n = 0
        for number, size in enumerate(sizes):
            with records.ShardWriter(folder, split, number) as writer:
                for _ in range(size):
                    writer.add(make_clip(split, n, **change(split, n)))
                    n += 1
            infos.append(writer.info)
    fields = {"fps": FPS, "height": SIDE, "width": SIDE, "sample_rate_hz": RATE, **index}
    records.write_index(folder, records.Index(shards=tuple(infos), num_failures=2, **fields))
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "shards")


def flip(path, clip):
    """Turns one bit in the audio of a clip; noise lies in the file as it is."""
    data = bytearray(path.read_bytes())
    at = bytes(data).find(clip.audio.tobytes()[2000:2032])
    assert at > 0
    data[at] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def run(*args):
    """Status of the command line."""
    with pytest.raises(SystemExit) as caught:
        inspect.main([str(arg) for arg in args])
    return caught.value.code


def reasons(folder, thorough=True):
    seen = inspect.look(folder, thorough=thorough, workers=1)
    return seen, [(f.shard, f.record, f.reason) for f in seen.faults]


def test_counts_rates_and_labels_are_told(folder, capsys):
    assert run(folder) == 0
    text = capsys.readouterr().out
    assert "12 clips in 3 shards" in text and "16x16 at 4 frames/s (stretch)" in text
    assert "train: 9 clips in 2 shards of 4 to 5" in text and "test: 3 clips in 1 shards" in text
    assert "2 clips could not be made" in text
    assert "9 true events; 3 labels: wood 3, metal 3, glass 3, 3 clips without labels" in text
    assert "12 of 12 records are readable" in text


def test_quick_reads_the_index_alone(folder, capsys):
    for path in folder.glob("*.arrayrecord"):
        path.unlink()
    assert run(folder, "--quick") == 0
    assert "train: 9 clips" in capsys.readouterr().out


def test_content_is_equal_for_equal_clips_in_other_shards(good, tmp_path):
    other = write_set(tmp_path / "b", {"test": (2, 1), "train": (1, 8)})
    changed = write_set(tmp_path / "c", change=lambda split, n: {"start_s": 0.1 * (n == 4)})
    first, second, third = (reasons(one)[0] for one in (good, other, changed))
    assert first.content_sha256 == second.content_sha256 != third.content_sha256
    assert first.num_good == second.num_good == 12


def test_every_kind_of_damage_is_named(folder):
    flip(folder / "train-00000.arrayrecord", make_clip("train", 2))
    cut(folder / "train-00001.arrayrecord")
    padding = bytearray((folder / "test-00000.arrayrecord").read_bytes())
    padding[-1] ^= 1
    (folder / "test-00000.arrayrecord").write_bytes(padding)
    seen, found = reasons(folder)
    assert found == [
        ("train-00000.arrayrecord", None, "sha256"),
        ("train-00000.arrayrecord", 2, "unreadable"),
        ("train-00001.arrayrecord", None, "size"),
        ("train-00001.arrayrecord", None, "count"),
        ("test-00000.arrayrecord", None, "sha256"),  # but all its records are whole
    ]
    assert seen.num_good == 4 + 3
    (folder / "train-00001.arrayrecord").unlink()
    _, found = reasons(folder, thorough=False)
    assert ("train-00001.arrayrecord", None, "count") in found


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"frames": [b"no picture"] * 8}, "cannot be decoded"),
        ({"frames": make_clip("train", 1).frames[:3]}, "3 frames or rows for 2.00 s"),
        ({"audio": np.zeros(RATE, np.int16)}, "1.00 s of audio for 2.00 s"),
        ({"fps": 8.0}, "8 frames/s and 16000 Hz, not those of the index"),
        ({"frames": records.encode_frames(np.zeros((8, 8, 8, 3), np.uint8))}, "images of 8x8"),
        ({"cavp_TD": np.full((8, 4), np.nan, np.float16)}, "not finite"),
        ({"cavp_TD": np.zeros((8, 3), np.float16)}, "rows of 3 numbers, the index says 4"),
        ({"id": "train/0"}, "is in the set twice"),
    ],
)
def test_clips_that_do_not_fit_their_set_are_named(tmp_path, changes, detail):
    dim = 4 if "cavp_TD" in changes else 0
    write_set(tmp_path, {"train": (3,)}, lambda split, n: changes if n == 1 else {}, cavp_dim=dim)
    seen, _ = reasons(tmp_path)
    (fault,) = seen.faults
    assert fault.record == 1 and detail in fault.detail and seen.num_good == 2


def test_clips_whose_length_is_no_whole_number_of_frames_are_whole(tmp_path):
    clip = make_clip("train", 0)
    odd = {
        "fps": 1.0,
        "frames": clip.frames[:2],
        "end_s": 2.9,
        "audio": np.resize(clip.audio, 46400),
    }
    write_set(tmp_path, {"train": (2,)}, lambda split, n: odd, fps=1.0)
    assert [reason for _, _, reason in reasons(tmp_path)[1]] == []


def test_verify_ends_with_a_status(folder, capsys):
    assert run(folder, "--verify", "--workers=2") == 0
    assert "content SHA-256" in capsys.readouterr().out
    flip(folder / "train-00000.arrayrecord", make_clip("train", 0))
    assert run(folder, "--verify", "--workers=1") == 1
    text = capsys.readouterr().out
    assert "unreadable: train-00000.arrayrecord record 0" in text and "--repair=FOLDER" in text


def test_repair_keeps_the_good_records_and_reports_the_others(folder, tmp_path, good):
    flip(folder / "train-00000.arrayrecord", make_clip("train", 2))
    cut(folder / "test-00000.arrayrecord")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "repaired"
    assert run(folder, f"--repair={out}", "--workers=1") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # not in place
    index = records.read_index(out)
    assert [(s.file, s.num_records) for s in index.shards] == [
        ("train-00000.arrayrecord", 4),
        ("train-00001.arrayrecord", 4),
    ]
    assert index.num_failures == 2
    source = pipeline.open_source(out, "train")
    assert [source[i].id for i in range(8)] == [f"train/{n}" for n in range(9) if n != 2]
    lines = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert [(one["shard"], one["record"]) for one in lines] == [
        ("train-00000.arrayrecord", 2),
        *(("test-00000.arrayrecord", record) for record in range(3)),
    ]
    seen, found = reasons(out)
    whole, _ = reasons(good)
    assert not found
    kept = {name: digest for name, digest in whole.digests.items() if name in seen.digests}
    assert seen.digests == kept and len(kept) == 8  # bytes as they were
    assert "is not empty" in run(folder, f"--repair={out}", "--workers=1")


def test_repair_drops_the_second_of_two_equal_clips(tmp_path):
    def change(split, n):
        return {"id": "train/1"} if n == 3 else {}

    write_set(tmp_path / "a", {"train": (2, 2)}, change)
    seen, found = reasons(tmp_path / "a")
    assert found == [("train-00001.arrayrecord", None, "duplicate")]
    index, dropped = shard_check.repair(tmp_path / "a", tmp_path / "b", seen.faults)
    assert index.num_records("train") == 3 and dropped[0].record == 1
    assert not reasons(tmp_path / "b")[1]


def test_repair_of_nothing_but_damage_says_so(tmp_path):
    write_set(tmp_path / "a", {"train": (2,)})
    cut(tmp_path / "a" / "train-00000.arrayrecord")
    message = run(tmp_path / "a", f"--repair={tmp_path / 'b'}")
    assert "not one record" in message and "prepare the videos again" in message


def test_sheet_shows_clips_of_every_split(folder, tmp_path, monkeypatch):
    titles = []
    draw = inspect.plots.save_contact_sheet
    monkeypatch.setattr(
        inspect.plots,
        "save_contact_sheet",
        lambda path, rows: (titles.extend(row.title for row in rows), draw(path, rows)),
    )
    sheet = tmp_path / "sheet.png"
    assert run(folder, f"--sheet={sheet}", "--sheet_clips=4") == 0
    assert np.ptp(image.imread(sheet)) > 0.5
    assert len(titles) == 4 and {t.split()[0] for t in titles} >= {"test/0", "train/0", "train/8"}
    rows = write_set(tmp_path / "rows", {"train": (1,)}, cavp_dim=4)
    assert "no images" in run(rows, f"--sheet={sheet}")


@pytest.mark.parametrize("dim", [0, 6])
def test_speed_tells_every_stage(tmp_path, capsys, dim):
    def change(split, n):
        waveform = {"audio": np.zeros(10 * RATE, np.int16), "end_s": 10.0}
        if not dim:
            return waveform
        return {**waveform, "frames": [], "cavp_TD": np.zeros((40, dim), np.float16)}

    write_set(tmp_path, {"train": (4,)}, change, cavp_dim=dim)
    assert run(tmp_path, "--speed", "--batches=4", "--batch_size=2") == 0
    text = capsys.readouterr().out
    for stage in inspect.loader_speed.STAGES:
        assert f"    {stage}" in text
    assert ("LDM windows" if dim else "CAVP clips") in text
    assert "per core" in text and "after 4 batches" in text


def test_wrong_options_are_refused(folder, capsys):
    assert run(folder, "--quick", "--verify") == 2
    assert "--quick reads the index alone" in capsys.readouterr().err
    assert "no such folder" in run(folder / "none")
