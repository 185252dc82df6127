"""The CAVP stage: loss, what is trained and clamped, held-out metrics."""

import functools

import compiled
import filled
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from foley_jax.diff_foley.models import cavp
from foley_jax.diff_foley.tasks import cavp as cavp_task
from foley_jax.media import mel

B, N, T, SIDE = 3, 2, 4, 8
CONFIG = {
    "task": "cavp",
    "dtype": "float32",
    "eval_clips": 0,
    "audio": {"hop": 250, "num_mels": 64},
    "video": {"fps": 4.0, "height": SIDE, "width": SIDE},
    "data": {"num_clips": N, "clip_frames": T, "min_gap_frames": 2},
    "loss": {"temporal_weight": 1.0},
    "model": {
        "embed_dim": 6,
        "video": {"depths": (1,), "width": 4, "inflate": (True,), "stem": "patch4"},
        "audio": {"channels": (4, 4, 4, 4, 32), "stem": "patch4", "num_mels": 64, "dropout": 0.1},
    },
}


@pytest.fixture(scope="module")
def task():
    return cavp_task.CavpTask(ml_collections.ConfigDict(CONFIG))


@pytest.fixture(scope="module")
def parts(task):
    graphdef, params, rest = nnx.split(compiled.build(task.build), task.trainable, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "frames_BNTHWC": rng.integers(0, 256, (B, N, T, SIDE, SIDE, 3), dtype=np.uint8),
        "audio_BL": rng.integers(-9000, 9000, (B, 40000), dtype=np.int16),
        "mel_start_BN": np.array([[0, 64], [16, 80], [32, 96]], np.int32),
    }


@functools.lru_cache
def _jitted(task, train):
    def fn(graphdef, params, rest, batch):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            value, metrics = task.loss(model, batch, jax.random.key(0), train=train)
            after = nnx.to_pure_dict(nnx.split(model, task.trainable, ...)[2])
            return value, (metrics, after)

        return jax.value_and_grad(loss, has_aux=True)(params)

    return filled.jit(fn, static_argnums=0)


@pytest.mark.slow
def test_loss_gradients_and_statistics(task, parts, batch):
    graphdef, params, rest = parts
    (loss, (metrics, after)), grads = _jitted(task, True)(graphdef, params, rest, batch)
    np.testing.assert_allclose(loss, metrics["semantic"] + metrics["temporal"], rtol=1e-6)
    np.testing.assert_allclose(metrics["logit_scale"], np.exp(2.0), rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), rest, after)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_evaluation_leaves_the_statistics_alone(task, parts, batch):
    (_, (_, after)), _ = _jitted(task, False)(*parts, batch)
    jax.tree.map(np.testing.assert_array_equal, after, parts[2])


def test_clips_are_slices_of_the_whole_audio_mel(task, batch):
    whole = mel.log_mel(cavp_task.pcm_to_float(jnp.asarray(batch["audio_BL"])), task.audio)
    cut = cavp_task.cut_clips(whole, jnp.asarray(batch["mel_start_BN"]), 64)
    assert cut.shape == (B, N, 64, 64)
    np.testing.assert_array_equal(cut[1, 1], whole[1, :, 80:144])
    with pytest.raises(ValueError, match="a clip needs 256"):
        cavp_task.cut_clips(whole, jnp.asarray(batch["mel_start_BN"]), 256)


def test_a_clips_rows_depend_on_its_own_frames_and_audio(task, parts, batch):
    graphdef, params, rest = parts
    model = nnx.merge(graphdef, params, rest)
    encode = functools.partial(task.encode, key=None, train=False)
    frames = batch["frames_BNTHWC"].copy()
    frames[1, 0] = 0
    starts = batch["mel_start_BN"].copy()
    starts[2, 1] += 16
    changed = {**batch, "frames_BNTHWC": frames, "mel_start_BN": starts}
    video, audio = compiled.run(model, encode, batch)[0]
    video2, audio2 = compiled.run(model, encode, changed)[0]
    np.testing.assert_array_equal((video != video2).any(-1), [[0, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal((audio != audio2).any(-1), [[0, 0], [0, 0], [0, 1]])


def test_only_kernels_decay(task, parts):
    mask = task.weight_decay_mask(parts[1])
    flat = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(mask)}
    assert not flat["['logit_scale']"]
    for name, decays in flat.items():
        assert decays == ("kernel" in name), name


@pytest.mark.parametrize("value,want", [(-1.0, 0.0), (2.0, 2.0), (9.0, cavp.LOGIT_SCALE_MAX)])
def test_the_logit_scale_is_clamped(task, parts, value, want):
    params = {**parts[1], "logit_scale": jnp.float32(value)}
    fixed = task.constrain(params)
    assert fixed["logit_scale"] == pytest.approx(want)
    assert fixed["video_encoder"] is params["video_encoder"]


def test_evaluation_of_perfect_and_of_shuffled_rows(task):
    rows = np.eye(12, dtype=np.float32).reshape(2, 3, 2, 6 * 2)  # two batches of 3 videos, 2 clips
    perfect = task.evaluate(lambda fn, batch: (rows[batch], rows[batch]), [0, 1])
    assert perfect["recall1_v2a"] == perfect["recall1_a2v"] == perfect["temporal_accuracy"] == 1.0
    assert perfect["num_videos"] == 6
    swapped = rows[:, :, ::-1]
    wrong = task.evaluate(lambda fn, batch: (rows[batch], swapped[batch]), [0, 1])
    assert wrong["temporal_accuracy"] == wrong["recall1_v2a"] == 0.0


def test_evaluation_takes_as_many_videos_as_asked_for(parts, batch):
    task = cavp_task.CavpTask(ml_collections.ConfigDict({**CONFIG, "eval_clips": 4}))
    model = nnx.merge(*parts)
    metrics = task.evaluate(lambda fn, batch: compiled.run(model, fn, batch)[0], [batch, batch])
    assert metrics["num_videos"] == 4
    assert {"recall1_v2a", "recall5_a2v", "recall10_v2a", "temporal_accuracy"} <= set(metrics)


def test_shows_a_clip_and_how_alike_rows_are(task, parts, batch):
    found = filled.shown(task, nnx.merge(*parts), batch, 2)
    names = ("clip", "rows", "sound_of_clip")
    assert set(found) == {f"{name}/{i}" for name in names for i in (0, 1)}
    # under a caption: frames with a pixel between, then 64 mel bins, twice as large
    assert found["clip/0"].pixels_HWC.shape == (14 + SIDE + 3 + 2 * 64, T * (SIDE + 1) - 1, 3)
    strip = found["clip/1"].pixels_HWC[14 : 14 + SIDE]
    np.testing.assert_array_equal(
        strip[:, SIDE + 1 : 2 * SIDE + 1], batch["frames_BNTHWC"][1, 0, 1]
    )
    rows = N * T
    assert found["rows/0"].pixels_HWC.shape == (14 + 256 // rows * rows, 256 // rows * rows, 3)
    waveform = found["sound_of_clip/1"]
    start = 16 * 250
    wanted = batch["audio_BL"][1, start : start + 16000] / 32768
    np.testing.assert_allclose(waveform.audio_L, wanted, atol=1e-6)
    assert waveform.sample_rate_hz == 16000
