"""Shards of MMAudio's features: what is in them, and that they are the same after a stop."""

import filled
from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep import manifest, mmaudio_features
from data_prep.mmaudio_clips import PEAK
from foley_jax.data import pipeline, records
from foley_jax.media import audio
from foley_jax.mmaudio import extraction, mel
from foley_jax.runtime import network
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory
from tests.data_prep import shard_sets
from tests.media import media_files
from tests.mmaudio import flow_records, tiny_mmaudio

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Encoder(nnx.Module):
    """Means that are a map of pairs of mel frames, and deviations of 1."""

    def __init__(self, *, rngs):
        self.map = nnx.Linear(80, 20, rngs=rngs)

    def encode(self, mel_BFT):
        x = jnp.swapaxes(mel_BFT, 1, 2)[:, ::2]
        return self.map(x), jnp.zeros((*x.shape[:2], 20))


@pytest.fixture(scope="module")
def extractor():
    made = tiny_mmaudio.networks()
    return extraction.Extractor(
        tiny_mmaudio.RATES,
        autoencoder=network.Network.of(filled.module(lambda rngs: Encoder(rngs=rngs))),
        clip=made["open_clip/vit_h_14_378"],
        sync=made["synchformer/visual"],
        tokenizer=tiny_mmaudio.Tokenizer(),
        window_s=tiny_mmaudio.WINDOW_S,
        batch=2,
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Files, and the lines of their manifest; the second gives two clips."""
    folder = tmp_path_factory.mktemp("videos")
    for name, seconds in (("a", 2.0), ("b", 3.9), ("c", 2.0)):
        media_files.write(folder / f"{name}.mp4", seconds=seconds, times_s=(0.5, seconds - 0.7))
    audio.write_wav(folder / "d.wav", media_files.clicks([0.3, 1.0], 2.0), 16000)
    audio.write_wav(folder / "quiet.wav", np.zeros(32000, np.float32), 16000)
    media_files.write(folder / "short.mp4", seconds=1.0, times_s=(0.2,))
    (folder / "broken.mp4").write_bytes(b"no video")
    names = ("a.mp4", "b.mp4", "broken.mp4", "d.wav", "quiet.wav", "short.mp4")
    lines = [manifest.Entry(n, n, "train", labels=["dog"]) for n in names]
    return folder, [*lines, manifest.Entry("c.mp4", "c.mp4", "test")]


@pytest.fixture(scope="module")
def made(videos, extractor, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    index = mmaudio_features.extract_set(*sorted_call(videos, out), extractor, shard_size=2)
    return out, index


def sorted_call(videos, out):
    folder, entries = videos
    return folder, out, entries


@pytest.mark.slow
def test_clips_have_what_their_files_have(made, videos, extractor):
    out, index = made
    assert shard_sets.read_ids(out, "train") == ["a.mp4", "b.mp4#0", "b.mp4#1", "d.wav"]
    assert shard_sets.read_ids(out, "test") == ["c.mp4"]
    failed = {one["id"]: one["reason"] for one in shard_sets.read_failures(out)}
    assert failed.pop("broken.mp4")
    assert failed == {"quiet.wav": "silent", "short.mp4": "too_short"}
    assert index.num_failures == 3
    transform = task_lib.resolve(flow_records.config(out)).transform(train=True)
    train = pipeline.open_source(out, "train")
    has = [
        (bool(one["has_video_B"]), bool(one["has_text_B"]))
        for one in (transform(train, i, None) for i in range(4))
    ]
    assert has == [(True, True)] * 3 + [(False, True)]
    test = transform(pipeline.open_source(out, "test"), 0, None)
    assert test["has_video_B"] and not test["has_text_B"]
    # grey frames grow brighter, and the second clip begins where the first one ends
    first, second = (train[i].features["clip_VD"] for i in (1, 2))
    step = first[1] - first[0]
    np.testing.assert_allclose(second[0] - first[0], 15.36 * step, rtol=0.15, atol=0.02)
    sound = audio.load(videos[0] / "d.wav", 16000, duration_s=tiny_mmaudio.WINDOW_S)
    sound *= PEAK / np.abs(sound).max()
    encoder = filled.module(lambda rngs: Encoder(rngs=rngs))
    want = encoder.encode(mel.log_mel(jnp.asarray(sound)[None], tiny_mmaudio.RATES))[0][0]
    np.testing.assert_allclose(train[3].features["mean_NC"], want, atol=1e-4)


@pytest.mark.slow
def test_constants_are_those_of_the_training_clips_with_video(made, extractor):
    out, _ = made
    train = pipeline.open_source(out, "train")
    means = np.concatenate([train[i].features["mean_NC"] for i in range(3)])
    rest = run_directory.load_model_state(out / "constants")[2]
    np.testing.assert_allclose(rest["latent_mean"][0, 0], means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(rest["latent_std"][0, 0], means.std(0, ddof=1), rtol=1e-4)
    np.testing.assert_array_equal(rest["empty_string_feat"], extractor.of_texts([""])[0])


@pytest.mark.slow
def test_stopped_and_divided_work_gives_the_same(made, videos, extractor, tmp_path):
    out, index = made
    call = (*sorted_call(videos, tmp_path / "set"), extractor)
    share = {"shard_size": 2, "process_count": 2}
    assert mmaudio_features.extract_set(*call, process_index=1, **share) is None
    mmaudio_features.extract_set(*call, process_index=0, **share)
    (tmp_path / "set" / records.INDEX_NAME).unlink()
    (tmp_path / "set" / "train-00000.arrayrecord").write_bytes(b"cut")  # as a full disk leaves it
    mmaudio_features.extract_set(*call, shard_size=2)
    assert shard_sets.digests(tmp_path / "set") == shard_sets.digests(out)
    assert shard_sets.read_failures(tmp_path / "set") == shard_sets.read_failures(out)
    with pytest.raises(ValueError, match="begun with other settings .shard_size differ"):
        mmaudio_features.extract_set(*call, shard_size=3)


def test_missing_networks_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of autoencoder .mmaudio/vae_16k., clip"):
        mmaudio_features.load(tmp_path, "16k")
