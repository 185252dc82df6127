"""Feature shards: the right rows beside the right sound, resumable, with honest controls."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import compiled
import filled
from flax import nnx
import jax
import ml_collections
import numpy as np
import pytest

from data_prep import features as feature_shards
from foley_jax.data import pipeline as data_pipeline
from foley_jax.data import records
from foley_jax.diff_foley import features, image_encoders
from foley_jax.diff_foley.tasks import cavp as cavp_task
from foley_jax.media import specs
from foley_jax.training import checkpoint

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


def _fresh(config):
    return cavp_task.CavpTask(config).build(nnx.Rngs(0))


def _near_one(config):
    return compiled.build(lambda: _fresh(config))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return filled.save_run(tmp_path_factory.mktemp("runs") / "cavp", _config(), _near_one)


@pytest.fixture(scope="module")
def extractor(run):
    return feature_shards.load(run)


def _clips(folder, split):
    source = data_pipeline.open_source(folder, split)
    return [source[i] for i in range(len(source))]


def _rows(extractor, clip):
    return features.extract(extractor.encode_fn, clip.frames_THWC())


def test_every_clip_keeps_its_sound_and_gets_its_own_rows(tmp_path, shards, extractor):
    index = feature_shards.extract_set(shards, tmp_path, extractor, batch=2)
    assert index.cavp_dim == 6 and records.read_index(tmp_path) == index
    for split in LENGTHS:
        before, after = _clips(shards, split), _clips(tmp_path, split)
        assert len(before) == len(after)
        for old, new in zip(before, after):
            assert new.frames == [] and new.cavp_TD.dtype == np.float16
            np.testing.assert_array_equal(new.audio, old.audio)
            assert (new.id, new.events, new.labels) == (old.id, old.events, old.labels)
            # float16 rounds unit rows by at most 2^-12
            np.testing.assert_allclose(new.cavp_TD, _rows(extractor, old), atol=3e-4)


def test_permuted_training_clips_have_the_rows_of_others(tmp_path, shards, extractor):
    feature_shards.extract_set(shards, tmp_path, extractor, permute=True, batch=3)
    before, after = _clips(shards, "train"), _clips(tmp_path, "train")
    own = [_rows(extractor, clip) for clip in before]
    donors = []
    for number, clip in enumerate(after):
        assert len(clip.cavp_TD) == len(before[number].frames)
        # a shorter donor is repeated, a longer one cut
        fits = [
            donor
            for donor, rows in enumerate(own)
            if np.allclose(clip.cavp_TD, rows[np.arange(len(clip.cavp_TD)) % len(rows)], atol=3e-4)
        ]
        assert len(fits) == 1 and fits[0] != number
        donors.append(fits[0])
    assert sorted(donors) == list(range(len(before)))
    for old, new in zip(_clips(shards, "test"), _clips(tmp_path, "test")):
        np.testing.assert_allclose(new.cavp_TD, _rows(extractor, old), atol=3e-4)


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
    other = feature_shards.load(filled.save_run(tmp_path / "run", _config(), _fresh))
    out = tmp_path / "rows"
    feature_shards.extract_set(shards, out, extractor)
    with pytest.raises(ValueError, match=r"weights_crc32 differ"):
        feature_shards.extract_set(shards, out, other)
    with pytest.raises(ValueError, match=r"permute_seed differ"):
        feature_shards.extract_set(shards, out, extractor, permute=True)
    with pytest.raises(ValueError, match="folder of their own"):
        feature_shards.extract_set(shards, shards, extractor)


def test_pictures_of_another_size_are_refused(tmp_path, shards, extractor):
    wider = dataclasses.replace(extractor, video=specs.VideoSpec(FPS, 16, 16))
    with pytest.raises(ValueError, match="prepare the videos with --fps=4 --size=16"):
        feature_shards.extract_set(shards, tmp_path, wider)
    boxed = dataclasses.replace(extractor.video, fit="letterbox")
    with pytest.raises(ValueError, match="fit=stretch.*wanted were fit=letterbox"):
        feature_shards.extract_set(shards, tmp_path, dataclasses.replace(extractor, video=boxed))


def test_command_line(tmp_path, shards, run):
    command = [sys.executable, "-m", "data_prep.features", str(shards), str(tmp_path / "out")]
    root = pathlib.Path(feature_shards.__file__).parents[1]
    options = {"cwd": root, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([*command, f"--model={run}", "--batch=2"], **options)
    assert done.returncode == 0, done.stderr
    assert "2 test, 5 train clips with rows of 6 numbers" in done.stdout
    settings = json.loads((tmp_path / "out" / feature_shards.SETTINGS_NAME).read_text())
    assert settings["permute_seed"] is None


def test_command_line_without_a_model_is_one_clear_line(tmp_path, shards):
    with pytest.raises(SystemExit) as caught:
        feature_shards.main([str(shards), str(tmp_path / "out"), f"--model={tmp_path / 'none'}"])
    message = str(caught.value)
    assert message.startswith("error: ") and "\n" not in message and str(tmp_path) in message
    assert jax.devices()  # the process lives


def _image_encoder(folder):
    """A tiny CLIP tower in a folder like the converter's."""
    fields = {"width": 4, "num_layers": 1, "num_heads": 2, "patch": 4, "embed_dim": 6}
    model = {"encoder": "clip", "image_size": SIDE, **fields}
    network = compiled.build(lambda: image_encoders.from_config(model, rngs=nnx.Rngs(0)))
    _, params, rest = nnx.split(network, nnx.Param, ...)
    checkpoint.save_model(
        folder,
        config=ml_collections.ConfigDict({"model": model}),
        params=nnx.to_pure_dict(params),
        rest=nnx.to_pure_dict(rest),
    )
    return network


def test_rows_of_another_picture_encoder(shards, tmp_path, capsys):
    network = _image_encoder(tmp_path / "clip")
    command = [str(shards), str(tmp_path / "out"), f"--model={tmp_path / 'clip'}", "--encoder=clip"]
    feature_shards.main(command)
    assert "rows of 6 numbers" in capsys.readouterr().out
    source = data_pipeline.open_source(tmp_path / "out", "train")
    frames = _clip("train", 0, 5).frames_THWC()
    want = image_encoders.encode_frames(network, frames[None])[0]
    np.testing.assert_allclose(source[0].cavp_TD, want, atol=2e-3)  # kept in half precision
    assert np.ptp(source[0].cavp_TD, axis=0).max() > 1e-3


def test_folder_of_another_encoder_is_refused(shards, run, tmp_path):
    with pytest.raises(SystemExit, match="holds no resnet50 weights; .*torchvision/resnet50"):
        feature_shards.main(
            [str(shards), str(tmp_path / "out"), f"--model={run}", "--encoder=resnet50"]
        )
