"""A prepared set comes back from TensorFlow Datasets as it was, without TensorFlow."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from foley_jax.data import records
from tests import mounts

pytest.importorskip("tensorflow_datasets", reason="pip install 'foley_jax[prep]'")

from data_prep import tfds_export  # noqa: E402


def make_clip(number: int, split: str) -> records.Clip:
    frames = np.full((3, 16, 24, 3), 10 * number, np.uint8)
    return records.Clip(
        id=f"{split}/ü{number}#0",
        split=split,
        labels=["dog barking", "é"][:number],
        source=f"{split}/ü{number}.mp4",
        start_s=0.5 * number,
        end_s=0.5 * number + 0.75,
        fps=4.0,
        frames=records.encode_frames(frames),
        audio=np.arange(-5, 5 + number, dtype=np.int16),
        sample_rate_hz=16000,
        events=[{"time_s": 0.25, "material": "wood"}] if number else None,
    )


def write_set(folder, clips: dict[str, list[records.Clip]], cavp_dim: int = 0):
    infos = []
    for split, members in clips.items():
        with records.ShardWriter(folder, split, 0) as writer:
            for clip in members:
                writer.add(clip)
        infos.append(writer.info)
    index = records.Index(4.0, 16, 24, 16000, tuple(infos), cavp_dim=cavp_dim)
    records.write_index(folder, index)


READ = """
import json, sys
import numpy as np
import tensorflow_datasets as tfds
sources = {s: tfds.data_source("my_set", data_dir=sys.argv[1], split=s) for s in ("train", "test")}
found = {}
for split, source in sources.items():
    for one in source:
        found[one["id"].decode()] = {
            "labels": [label.decode() for label in one["labels"]],
            "times": [float(one[name]) for name in ("start_s", "end_s", "fps")],
            "events": one["events"].decode(),
            "audio": [str(one["audio"].dtype), *one["audio"].tolist()],
            "frames": [[list(f.shape), float(np.mean(f))] for f in one["frames"]],
        }
part = tfds.data_source("my_set", data_dir=sys.argv[1], split="train[:50%]")
ours = [name for name in sys.modules if name.startswith(("tensorflow.", "foley_jax", "data_prep"))]
print(json.dumps({"found": found, "part": len(part), "ours": ours}))
"""


def test_set_is_read_without_tensorflow_and_without_us(tmp_path, capsys):
    clips = {
        "train": [make_clip(i, "train") for i in range(4)],
        "test": [make_clip(5, "test")],
    }
    write_set(tmp_path / "shards", clips)
    command = [str(tmp_path / "shards"), str(tmp_path / "tfds"), "--name=my_set"]
    tfds_export.main(command)
    assert "4 train" in capsys.readouterr().out
    result = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "tfds")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    content = json.loads(result.stdout)
    assert content["part"] == 2 and content["ours"] == []
    wanted = {
        clip.id: {
            "labels": clip.labels,
            "times": [clip.start_s, clip.end_s, clip.fps],
            "events": "" if clip.events is None else json.dumps(clip.events),
            "audio": ["int16", *clip.audio.tolist()],
            "frames": [[[16, 24, 3], float(f.mean())] for f in clip.frames_THWC()],
        }
        for members in clips.values()
        for clip in members
    }
    assert content["found"] == wanted
    with pytest.raises(SystemExit, match="is there already"):
        tfds_export.main(command)


def test_features_are_copied(tmp_path):
    import tensorflow_datasets as tfds

    rows = np.arange(12, dtype=np.float16).reshape(3, 4)
    clip = dataclasses.replace(make_clip(1, "train"), frames=[], cavp_TD=rows)
    write_set(tmp_path / "shards", {"train": [clip]}, cavp_dim=4)
    tfds_export.main([str(tmp_path / "shards"), str(tmp_path / "tfds"), "--name=rows"])
    (one,) = tfds.data_source("rows", data_dir=tmp_path / "tfds", split="train")
    assert one["cavp"].dtype == np.float16 and "frames" not in one
    np.testing.assert_array_equal(one["cavp"], rows)


def test_wrong_names_are_refused(tmp_path):
    write_set(tmp_path / "shards", {"train": [make_clip(0, "train")]})
    with pytest.raises(SystemExit, match="name is 'My-Set', wanted lower-case"):
        tfds_export.main([str(tmp_path / "shards"), str(tmp_path / "tfds"), "--name=My-Set"])
    with pytest.raises(SystemExit, match="no such folder"):
        tfds_export.main([str(tmp_path / "nowhere"), str(tmp_path / "tfds"), "--name=a"])
    with pytest.raises(SystemExit, match="'mnist', which TensorFlow Datasets has a .*as my_mnist"):
        tfds_export.main([str(tmp_path / "shards"), str(tmp_path / "tfds"), "--name=mnist"])
    assert not (tmp_path / "tfds").exists()


# the lines of this module's page, as they stand there
PAGE = """
import tensorflow_datasets as tfds
source = tfds.data_source("vggsound", split="train"{where})
print(source[0]["id"].decode(), len(source))
"""


def run_page(home: pathlib.Path, where: str, apart: tuple[str, ...] = ()) -> str:
    script = PAGE.format(where=where)
    environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*apart, sys.executable, "-c", script],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def home(tmp_path, monkeypatch) -> pathlib.Path:
    """The home folder of a user who has exported a set as the page says."""
    assert PAGE.splitlines()[2].format(where="") in tfds_export.__doc__
    monkeypatch.setenv("HOME", str(tmp_path))
    write_set(tmp_path / "shards", {"train": [make_clip(i, "train") for i in range(2)]})
    tfds_export.main([str(tmp_path / "shards"), "~/tensorflow_datasets", "--name=vggsound"])
    return tmp_path


def test_the_page_reads_an_export(home):
    wanted = run_page(home, "")
    assert wanted.endswith("2\n")
    assert run_page(home, f", data_dir={str(home / 'tensorflow_datasets')!r}") == wanted


def test_a_read_only_export_is_read(home):
    folder = '"$HOME/tensorflow_datasets"'
    apart = mounts.apart(
        f"mount --bind -o ro {folder} {folder}", ("sh", "-c", f"! touch {folder}/a")
    )
    assert run_page(home, "", apart).endswith("2\n")
