"""A manifest comes back as it was written, and says which of its lines is wrong."""

import pytest

from data_prep import manifest

ENTRIES = [
    manifest.Entry("a", "x/a.mp4", "train", 0.0, None, ["dog barking"]),
    manifest.Entry("a-30", "x/a.mp4", "test", 30.0, 40.5, {"verb": "cut", "nouns": ["pan", "cut"]}),
    manifest.Entry("é", "ünï\udce9.mp4", "val"),  # a name may hold bytes that are no text
]


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "deep" / "m.jsonl"
    assert manifest.write(path, ENTRIES) == 3
    assert manifest.read(path) == ENTRIES
    assert [entry.label_names for entry in ENTRIES] == [["dog barking"], ["cut", "pan"], []]
    assert [p.name for p in path.parent.iterdir()] == ["m.jsonl"]


def test_an_id_comes_once(tmp_path):
    with pytest.raises(ValueError, match="'a' comes twice"):
        manifest.write(tmp_path / "m", [ENTRIES[0], ENTRIES[0]])
    assert not (tmp_path / "m").exists()
    manifest.write(tmp_path / "m", ENTRIES)
    (tmp_path / "m").write_text((tmp_path / "m").read_text() * 2)
    with pytest.raises(ValueError, match="line 4: id 'a' was already in line 1"):
        manifest.read(tmp_path / "m")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: "),
        ('{"id": "a", "file": "a.mp4"}', "split"),
        ('{"id": "a", "file": "a.mp4", "split": "train", "when": 1}', r"unknown keys \['when'\]"),
        ('{"id": "", "file": "a.mp4", "split": "train"}', "id is ''"),
        ('{"id": "a", "file": "/a.mp4", "split": "train"}', "inside the videos' folder"),
        ('{"id": "a", "file": "../a.mp4", "split": "train"}', "inside the videos' folder"),
        ('{"id": "a", "file": "a.mp4", "split": "a/b"}', "without '/'"),
        ('{"id": "a", "file": "a.mp4", "split": "train", "start_s": -1}', "start_s is -1"),
        ('{"id": "a", "file": "a.mp4", "split": "train", "start_s": NaN}', "start_s is nan"),
        ('{"id": "a", "file": "a.mp4", "split": "t", "start_s": 3, "end_s": 3}', "end_s is 3"),
        ('{"id": "a", "file": "a.mp4", "split": "t", "end_s": "4"}', "end_s is '4'"),
        ('{"id": "a", "file": "a.mp4", "split": "t", "labels": [3]}', r"labels are \[3\]"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    (tmp_path / "m").write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=message) as error:
        manifest.read(tmp_path / "m")
    assert "line 2" in str(error.value)


def test_no_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_prep.sources"):
        manifest.read(tmp_path / "m")
