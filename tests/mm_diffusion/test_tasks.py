"""Training of the coupled U-Net as a task: record in, loss and gradients out."""

import filled
from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from foley_jax.data import records
from foley_jax.diffusion import schedule
from foley_jax.mm_diffusion.tasks import base
from foley_jax.training import task as task_lib

FRAMES, RATE, FPS = 4, 80, 10.0


def config(**data):
    return ml_collections.ConfigDict(
        {
            "task": "mm_diffusion",
            "dtype": "float32",
            "audio": {"sample_rate_hz": RATE},
            "video": {"fps": FPS, "height": 8, "width": 8},
            "data": {"num_frames": FRAMES, **data},
            "loss": {},
            "model": {
                "model_channels": 32,
                "channel_mult": (1,),
                "num_res_blocks": 0,
                "cross_attention_downsamples": (1,),
                "cross_attention_windows": (2,),
                "video_attention_downsamples": (),
                "dropout": 0.1,
                "head_channels": 16,
            },
        }
    )


def clip(num_frames):
    """Frame i is of grey 10 * i, but black on its left half; sample n has value n."""
    frames = np.repeat(10 * np.arange(num_frames, dtype=np.uint8), 8 * 8 * 3)
    frames = frames.reshape(num_frames, 8, 8, 3)
    frames[:, :, :4] = 0
    return records.Clip(
        id="a",
        split="train",
        labels=[],
        source="a.mp4",
        start_s=0.0,
        end_s=num_frames / FPS,
        fps=FPS,
        frames=records.encode_frames(frames),
        audio=np.arange(num_frames * RATE // FPS, dtype=np.int16),
        sample_rate_hz=RATE,
    )


@pytest.mark.parametrize("train", [True, False])
def test_windows_of_image_and_audio_are_of_one_time(train):
    transform = task_lib.resolve(config()).transform(train=train)
    starts = set()
    for seed in range(20):
        example = transform([clip(12)], 0, np.random.default_rng(seed))
        assert example["frames_BFHWC"].shape == (FRAMES, 8, 8, 3)
        assert example["frames_BFHWC"].dtype == np.uint8
        grey = example["frames_BFHWC"][:, 2, 7, 0].astype(float)
        start = round(grey[0] / 10)
        np.testing.assert_allclose(grey, 10 * (start + np.arange(FRAMES)), atol=3)  # JPEG
        want = np.arange(start * 8, (start + FRAMES) * 8)
        np.testing.assert_array_equal(example["audio_BL"], want)
        starts.add(start)
    assert starts == ({4} if not train else starts) and (len(starts) > 4) == train


def test_a_short_record_is_repeated():
    transform = task_lib.resolve(config()).transform(train=True)
    example = transform([clip(3)], 0, np.random.default_rng(0))
    np.testing.assert_array_equal(example["audio_BL"], np.arange(32) % 24)
    np.testing.assert_array_equal(example["frames_BFHWC"][3], example["frames_BFHWC"][0])


def test_mirror_is_for_the_released_weights_only():
    source, rng = [clip(4)], np.random.default_rng(0)
    plain = task_lib.resolve(config()).transform(train=True)(source, 0, rng)
    mirrored = task_lib.resolve(config(mirror=True)).transform(train=True)(source, 0, rng)
    np.testing.assert_array_equal(mirrored["frames_BFHWC"], plain["frames_BFHWC"][:, :, ::-1])
    assert not np.array_equal(mirrored["frames_BFHWC"], plain["frames_BFHWC"])


def test_records_of_another_size():
    wrong = config()
    wrong.video.width = 16
    with pytest.raises(ValueError, match="8x8 images"):
        task_lib.resolve(wrong).transform(train=True)([clip(4)], 0, np.random.default_rng(0))


def test_losses_are_the_mean_squares_of_each_modality():
    def network(video, audio, t_B, shifts_N, dropout_key):
        return 0.0 * video, 2.0 * jnp.ones_like(audio)

    x0 = {"video": jnp.zeros((2, 4, 2, 2, 3)), "audio": jnp.zeros((2, 32, 1))}
    noise = {"video": 3.0 * jnp.ones((2, 4, 2, 2, 3)), "audio": jnp.ones((2, 32, 1))}
    got = base.losses(schedule.linear(), network, x0, jnp.asarray([1, 999]), noise, None)
    np.testing.assert_allclose(got[0], [9.0, 9.0])
    np.testing.assert_allclose(got[1], [1.0, 1.0])


@pytest.mark.slow
def test_loss_of_a_batch():
    task = task_lib.resolve(config())
    graphdef, state = nnx.split(filled.module(task.build))
    example = task.transform(train=True)([clip(12)], 0, np.random.default_rng(0))
    batch = {name: np.stack([x, x]) for name, x in example.items()}

    def loss(state, batch, key):
        return task.loss(nnx.merge(graphdef, state), batch, key, train=True)

    total, metrics = filled.jit(loss)(nnx.to_pure_dict(state), batch, jax.random.key(0))
    np.testing.assert_allclose(total, metrics["loss_video"] + metrics["loss_audio"], rtol=1e-6)
    # zero-mean predictions of unit noise: one per modality at least
    assert 1.0 < total < 1e3


@pytest.mark.slow
def test_shows_real_clips_and_sampled_ones():
    task = task_lib.resolve(config())
    module = filled.module(task.build)
    example = task.transform(train=False)([clip(12)], 0, np.random.default_rng(0))
    batch = {name: np.stack([x, x]) for name, x in example.items()}
    found = filled.shown(task, module, batch, 2)
    kinds = [f"{what}_{name}" for what in ("clip", "sound") for name in ("real", "sampled")]
    assert set(found) == {f"{kind}/{i}" for kind in kinds for i in (0, 1)}
    real = found["clip_real/0"].pixels_HWC
    assert real.shape == found["clip_sampled/0"].pixels_HWC.shape == (14 + 8, 4 * 9 - 1, 3)
    # `to_uint8` cuts down
    np.testing.assert_allclose(real[14:, :8], example["frames_BFHWC"][0].astype(int), atol=1)
    np.testing.assert_allclose(
        found["sound_real/0"].audio_L, example["audio_BL"] / 32768, atol=1e-6
    )
    assert found["sound_sampled/1"].audio_L.shape == (32,)
    assert found["sound_sampled/1"].sample_rate_hz == RATE
    # two examples have noise of their own
    assert (found["sound_sampled/0"].audio_L != found["sound_sampled/1"].audio_L).any()
