"""Feature shards: the right features beside the right audio, resumable, with honest controls."""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys

import compiled
import filled
from flax import nnx
import jax
import ml_collections
import numpy as np
import pytest

from data_prep import divided_shards
from data_prep import features as feature_shards
from foley_jax.data import pipeline as data_pipeline
from foley_jax.data import records
from foley_jax.diff_foley.models import image_encoders
from foley_jax.diff_foley.sampling import features
from foley_jax.diff_foley.tasks import cavp as cavp_task
from foley_jax.media import specs
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.training.checkpointing import run_directory

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIDE, FPS = 8, 4.0
LENGTHS = {"train": [[5, 5, 5], [5, 3]], "test": [[5, 5]]}  # frames per clip, per shard


def _config():
    return ml_collections.ConfigDict(
        {
            "task": "cavp",
            "dtype": "float32",
            "audio": {"hop": 250, "num_mels": 64},
            "video": {"fps": FPS, "height": SIDE, "width": SIDE},
            "data": {},
            "loss": {},
            "model": {
                "embed_dim": 6,
                "video": {"depths": (1,), "width": 4, "inflate": (True,), "stem": "patch4"},
                "audio": {"channels": (4,) * 5, "stem": "patch4", "num_mels": 64},
            },
        }
    )


def _clip(split, number, num_frames):
    rng = np.random.default_rng([len(split), number])
    return records.Clip(
        id=f"{split}/{number}",
        split=split,
        labels=["x"],
        source=f"{split}/{number}.mp4",
        start_s=0.0,
        end_s=num_frames / FPS,
        fps=FPS,
        frames=records.encode_frames(
            rng.integers(0, 256, (num_frames, SIDE, SIDE, 3), dtype=np.uint8)
        ),
        audio=rng.integers(-99, 99, 400, dtype=np.int16),
        sample_rate_hz=16000,
        events=[{"time_s": 0.5}],
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    infos = []
    for split, lengths in LENGTHS.items():
        number = 0
        for shard, counts in enumerate(lengths):
            with records.ShardWriter(folder, split, shard) as writer:
                for num_frames in counts:
                    writer.add(_clip(split, number, num_frames))
                    number += 1
            infos.append(writer.info)
    records.write_index(folder, records.Index(FPS, SIDE, SIDE, 16000, tuple(infos)))
    return folder


def _near_one(config):
    return compiled.build(cavp_task.CavpTask(config).build)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return filled.save_run(tmp_path_factory.mktemp("runs") / "cavp", _config(), _near_one)


@pytest.fixture(scope="module")
def extractor(run):
    return feature_shards.load(run)


def _clips(folder, split):
    source = data_pipeline.open_source(folder, split)
    return [source[i] for i in range(len(source))]


def _features(extractor, clip):
    return features.extract(extractor.encode_fn, clip.frames_THWC())


def test_every_clip_keeps_its_audio_and_gets_its_own_rows(tmp_path, shards, extractor):
    index = feature_shards.extract_set(shards, tmp_path, extractor, batch=2)
    assert index.cavp_dim == 6 and records.read_index(tmp_path) == index
    for split in LENGTHS:
        before, after = _clips(shards, split), _clips(tmp_path, split)
        assert len(before) == len(after)
        for old, new in zip(before, after):
            assert new.frames == [] and new.cavp_TD.dtype == np.float16
            np.testing.assert_array_equal(new.audio, old.audio)
            assert (new.id, new.events, new.labels) == (old.id, old.events, old.labels)
            # float16 rounds unit features by at most 2^-12
            np.testing.assert_allclose(new.cavp_TD, _features(extractor, old), atol=3e-4)


def test_permuted_training_clips_have_the_rows_of_others(tmp_path, shards, extractor):
    feature_shards.extract_set(shards, tmp_path, extractor, permute=True, batch=3)
    before, after = _clips(shards, "train"), _clips(tmp_path, "train")
    own = [_features(extractor, clip) for clip in before]
    donors = []
    for number, clip in enumerate(after):
        assert len(clip.cavp_TD) == len(before[number].frames)
        # a shorter donor is repeated, a longer one cut
        fits = [
            donor
            for donor, video_features in enumerate(own)
            if np.allclose(
                clip.cavp_TD,
                video_features[np.arange(len(clip.cavp_TD)) % len(video_features)],
                atol=3e-4,
            )
        ]
        assert len(fits) == 1 and fits[0] != number
        donors.append(fits[0])
    assert sorted(donors) == list(range(len(before)))
    for old, new in zip(_clips(shards, "test"), _clips(tmp_path, "test")):
        np.testing.assert_allclose(new.cavp_TD, _features(extractor, old), atol=3e-4)


def test_derangements_leave_nobody_in_place():
    for count in range(2, 9):
        donors = feature_shards.derangement(count, seed=count)
        assert sorted(donors) == list(range(count)) and (donors != np.arange(count)).all()
    with pytest.raises(ValueError, match="needs two"):
        feature_shards.derangement(1, 0)


def test_finished_shards_are_kept_and_missing_ones_made(tmp_path, shards, extractor):
    whole = feature_shards.extract_set(shards, tmp_path, extractor)
    (tmp_path / "train-00001.arrayrecord").unlink()
    (tmp_path / records.INDEX_NAME).unlink()
    kept = tmp_path / "train-00000.arrayrecord"
    stamp = kept.stat().st_mtime_ns
    again = feature_shards.extract_set(shards, tmp_path, extractor)
    assert kept.stat().st_mtime_ns == stamp and again == whole


def test_another_model_or_order_is_not_mixed_in(tmp_path, shards, extractor):
    other = feature_shards.load(filled.save_run(tmp_path / "run", _config()))
    out = tmp_path / "rows"
    feature_shards.extract_set(shards, out, extractor)
    with pytest.raises(ValueError, match=r"weights_crc32 differ"):
        feature_shards.extract_set(shards, out, other)
    with pytest.raises(ValueError, match=r"permute_seed differ"):
        feature_shards.extract_set(shards, out, extractor, permute=True)
    with pytest.raises(ValueError, match="folder of their own"):
        feature_shards.extract_set(shards, shards, extractor)


def test_images_of_another_size_are_refused(tmp_path, shards, extractor):
    wider = dataclasses.replace(extractor, video=specs.VideoSpec(FPS, 16, 16))
    with pytest.raises(ValueError, match="prepare the videos with --fps=4 --size=16"):
        feature_shards.extract_set(shards, tmp_path, wider)
    boxed = dataclasses.replace(extractor.video, fit="letterbox")
    with pytest.raises(ValueError, match="fit=stretch.*wanted were fit=letterbox"):
        feature_shards.extract_set(shards, tmp_path, dataclasses.replace(extractor, video=boxed))


def test_command_line(tmp_path, shards, run, capsys):
    out = tmp_path / "out"
    feature_shards.main([str(shards), str(out), f"--model={run}", "--batch=2"])
    assert "2 test, 5 train clips with features of 6 numbers" in capsys.readouterr().out
    settings = json.loads((out / divided_shards.SETTINGS_NAME).read_text())
    assert settings["permute_seed"] is None and settings["grouping"] == "40 frames"


def _equal_sets(ours, theirs):
    for split in LENGTHS:
        for a, b in zip(_clips(ours, split), _clips(theirs, split), strict=True):
            assert a.id == b.id
            np.testing.assert_array_equal(a.audio, b.audio)
            # another number of devices or clips together rounds otherwise
            np.testing.assert_allclose(a.cavp_TD, b.cavp_TD, atol=1e-3)


@pytest.mark.slow
def test_two_processes_write_one_set(tmp_path, shards, run, extractor):
    """Real ones that know of each other; the index waits for the last shard."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "data_prep.features", str(shards), str(tmp_path / "two")]
    processes = [
        subprocess.Popen(
            [*command, f"--model={run}", "--batch=2", "--distributed"],
            cwd=pathlib.Path(feature_shards.__file__).parents[1],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(i),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    for process, share in zip(processes, ("4/4", "3/3")):
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        assert share in output  # each its own shards
        assert "2 test, 5 train clips with features of 6 numbers" in output
    one = feature_shards.extract_set(shards, tmp_path / "one", extractor, batch=2)
    assert records.read_index(tmp_path / "two").num_records("train") == one.num_records("train")
    _equal_sets(tmp_path / "two", tmp_path / "one")


def test_shares_may_come_in_any_order_and_be_interrupted(tmp_path, shards, extractor):
    whole = feature_shards.extract_set(shards, tmp_path / "whole", extractor)
    out = tmp_path / "out"

    def share(i):
        return feature_shards.extract_set(shards, out, extractor, process_index=i, process_count=3)

    assert share(2) is None and share(0) is None
    assert not (out / records.INDEX_NAME).exists()
    assert [path.name for path in sorted(out.glob("*.arrayrecord"))] == [
        "test-00000.arrayrecord",
        "train-00001.arrayrecord",
    ]
    # killed while writing; killed between a shard and its note; cut short by a full disk
    left_over = out / ".train-00000.arrayrecord.999.part"
    left_over.write_bytes(b"half")
    (out / ".done-train-00001.json").unlink()
    cut = out / "test-00000.arrayrecord"
    cut.write_bytes(cut.read_bytes()[:-9])
    kept = (out / "train-00001.arrayrecord").stat().st_mtime_ns
    assert share(1) is None and left_over.exists()  # test-00000 is missing again
    assert share(0) == whole and records.read_index(out) == whole
    assert not left_over.exists()
    assert (out / "train-00001.arrayrecord").stat().st_mtime_ns == kept
    _equal_sets(out, tmp_path / "whole")
    with pytest.raises(ValueError, match="process 3 of 3: .* numbered from 0 to 2"):
        share(3)


def test_batches_are_divided_among_devices(tmp_path, shards, run, extractor):
    four = feature_shards.load(run, mesh_lib.local_mesh(4))
    assert four.devices == 4 and four.identity == extractor.identity
    feature_shards.extract_set(shards, tmp_path / "four", four, batch=3)
    feature_shards.extract_set(shards, tmp_path / "one", extractor)
    _equal_sets(tmp_path / "four", tmp_path / "one")
    _image_encoder(tmp_path / "clip")
    mesh = mesh_lib.local_mesh(4)
    clip = feature_shards.load_image_encoder(tmp_path / "clip", "clip", fps=FPS, mesh=mesh)
    for extractor in (four, clip):
        video_features = extractor.encode_fn(np.zeros((4, 5, SIDE, SIDE, 3), np.uint8))
        assert {shard.data.shape for shard in video_features.addressable_shards} == {(1, 5, 6)}


@pytest.mark.parametrize("seamless", [False, True])
def test_rows_follow_the_grouping(tmp_path, shards, extractor, seamless):
    grouping = feature_shards.Grouping(2, seamless)
    feature_shards.extract_set(shards, tmp_path, extractor, grouping=grouping)
    extract = features.extract_seamless if seamless else features.extract
    official = 0
    for old, new in zip(_clips(shards, "train"), _clips(tmp_path, "train")):
        want = extract(extractor.encode_fn, old.frames_THWC(), group_frames=2)
        np.testing.assert_allclose(new.cavp_TD, want, atol=3e-4)
        official += np.allclose(new.cavp_TD, _features(extractor, old), atol=3e-4)
    assert official == (5 if seamless else 0)  # short clips have no border to overlap
    with pytest.raises(ValueError, match=r"grouping differ"):
        feature_shards.extract_set(shards, tmp_path, extractor)


def test_folders_of_earlier_versions_are_grouped_officially(tmp_path, shards, extractor):
    whole = feature_shards.extract_set(shards, tmp_path, extractor)
    path = tmp_path / divided_shards.SETTINGS_NAME
    settings = json.loads(path.read_text())
    del settings["grouping"]
    path.write_text(json.dumps(settings))
    for note in tmp_path.glob(".done-*"):
        note.unlink()
    assert feature_shards.extract_set(shards, tmp_path, extractor) == whole
    with pytest.raises(ValueError, match=r"grouping differ"):
        other = feature_shards.Grouping(32)
        feature_shards.extract_set(shards, tmp_path, extractor, grouping=other)


def test_command_line_without_a_model_is_one_clear_line(tmp_path, shards, capsys):
    with pytest.raises(SystemExit, match="1"):
        feature_shards.main([str(shards), str(tmp_path / "out"), f"--model={tmp_path / 'none'}"])
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: ") and str(tmp_path) in message
    assert jax.devices()  # the process lives


def _image_encoder(folder):
    """A tiny CLIP tower in a folder like the converter's."""
    fields = {"width": 4, "num_layers": 1, "num_heads": 2, "patch": 4, "embed_dim": 6}
    model = {"encoder": "clip", "image_size": SIDE, **fields}
    network = compiled.build(lambda keys: image_encoders.from_config(model, rngs=keys))
    _, params, rest = nnx.split(network, nnx.Param, ...)
    run_directory.save_model(
        folder,
        config=ml_collections.ConfigDict({"model": model}),
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
    )
    return network


@pytest.mark.slow
def test_rows_of_another_image_encoder(shards, tmp_path, capsys):
    network = _image_encoder(tmp_path / "clip")
    command = [str(shards), str(tmp_path / "out"), f"--model={tmp_path / 'clip'}", "--encoder=clip"]
    feature_shards.main(command)
    assert "features of 6 numbers" in capsys.readouterr().out
    source = data_pipeline.open_source(tmp_path / "out", "train")
    frames = _clip("train", 0, 5).frames_THWC()
    want = compiled.run(network, image_encoders.encode_frames, frames[None])[0][0]
    np.testing.assert_allclose(source[0].cavp_TD, want, atol=2e-3)  # kept in half precision
    assert np.ptp(source[0].cavp_TD, axis=0).max() > 1e-3


def test_folder_of_another_encoder_is_refused(shards, run, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        feature_shards.main(
            [str(shards), str(tmp_path / "out"), f"--model={run}", "--encoder=resnet50"]
        )
    message = capsys.readouterr().err
    assert "holds no resnet50 weights" in message and "torchvision/resnet50" in message
