"""A config of MMAudio's stage with a small network, and shards for it."""

import pathlib

import numpy as np

from configs import mmaudio
from foley_jax.data import records
from foley_jax.training.checkpointing import run_directory
from tests.mmaudio import tiny_mmaudio

N, V, S = 60, 15, 40  # of 1.92 s
MEAN, STD = 3.0, 2.0  # of the latents


def config(folder, **fields):
    """Of `tiny_mmaudio.flow_of`; trains on shards in `folder`."""
    made = mmaudio.get_config()
    made.model.update({"clip_dim": tiny_mmaudio.TEXT, "sync_dim": 24, "text_dim": 16})
    made.model.update({"text_length": tiny_mmaudio.TOKENS, "width": 32, "num_heads": 1})
    made.model.update({"depth": 2, "fused_depth": 1})
    made.data.dir, made.data.window_s = str(folder), tiny_mmaudio.WINDOW_S
    made.update({"dtype": "float32", "batch_size": 8, "eval_batches": 1, "log_every": 1})
    made.optimizer.update({"lr": 3e-3, "warmup_steps": 1, "schedule": "constant"})
    made.update(fields)
    return made


def clip(number, split="train", *, video=True, text=True):
    """Features that tell the latents: their mean is that of the frames' and of the text's."""
    rng = np.random.default_rng(number)
    kind = rng.choice([-1.0, 1.0])
    features = {
        "mean_NC": np.float32(MEAN + STD * kind + 0.1 * rng.standard_normal((N, 20))),
        "std_NC": np.full((N, 20), 0.1, np.float32),
    }
    if video:
        features["clip_VD"] = np.full((V, tiny_mmaudio.TEXT), kind, np.float16)
        features["sync_SD"] = np.full((S, 24), kind, np.float16)
    if text:
        features["text_TD"] = np.full((tiny_mmaudio.TOKENS, 16), kind, np.float16)
    return records.Clip(
        id=f"{split}/{number}",
        split=split,
        labels=[],
        source=f"{number}.mp4",
        start_s=0.0,
        end_s=1.92,
        fps=8.0,
        frames=[],
        audio=np.zeros(0, np.int16),
        sample_rate_hz=16000,
        features=features,
    )


def write(folder: pathlib.Path, num_train: int = 32, num_test: int = 8) -> pathlib.Path:
    """Shards, of which every fourth clip has no video and every fourth no text; and constants."""
    infos = []
    for split, count in (("train", num_train), ("test", num_test)):
        with records.ShardWriter(folder, split, 0) as writer:
            for i in range(count):
                writer.add(clip(i, split, video=i % 4 != 0, text=i % 4 != 1))
        infos.append(writer.info)
    records.write_index(folder, records.Index(8.0, 384, 384, 16000, tuple(infos)))
    constants = {
        "latent_mean": np.full((1, 1, 20), MEAN, np.float32),
        "latent_std": np.full((1, 1, 20), STD, np.float32),
        "empty_string_feat": np.zeros((tiny_mmaudio.TOKENS, 16), np.float32),
    }
    run_directory.save_model(folder / "constants", config={}, params={}, rest=constants)
    return folder
