"""Runs of the smallest Diff-Foley that makes audio, and videos for it."""

from collections.abc import Sequence
import functools
import pathlib
import shutil
import tempfile

import filled
import ml_collections
import numpy as np

from configs import alignment as alignment_config
from configs import cavp as cavp_config
from configs import ldm as ldm_config
from foley_jax.media import video as video_io


def cavp() -> ml_collections.ConfigDict:
    """Its config."""
    config = cavp_config.get_config("demo")
    config.video.height = config.video.width = 16
    config.model.embed_dim = 8
    config.model.row_norm = False
    config.model.video = {"depths": (0, 1), "width": 4, "inflate": (False, True), "stem": "patch4"}
    config.model.audio = {"channels": (2, 4, 4, 4, 4), "stem": "patch4", "dropout": 0.0}
    return config


def ldm() -> ml_collections.ConfigDict:
    """Its config."""
    config = ldm_config.get_config("demo")
    config.data.window_frames, config.data.num_rows = 64, 4  # windows of one second
    config.cavp = "elsewhere/cavp"
    config.model.unet.update(
        {"model_channels": 8, "channel_mult": (1,), "num_groups": 4, "num_heads": 2}
    )
    config.model.unet.update({"attention_downsamples": (1,), "self_attention_downsamples": ()})
    config.model.unet.context_dim = config.model.conditioner.out_dim = 8
    config.model.conditioner.in_dim = 8
    config.model.autoencoder.update({"ch": 8, "num_groups": 4})
    return config


def alignment() -> ml_collections.ConfigDict:
    """Its config."""
    config = alignment_config.get_config("demo")
    config.model.autoencoder = ldm().model.autoencoder
    config.model.classifier.update(
        {"model_channels": 8, "channel_mult": (1,), "num_groups": 4, "num_heads": 2}
    )
    config.model.classifier.update({"attention_downsamples": (1,), "context_dim": 8})
    config.model.conditioner.update({"in_dim": 8, "out_dim": 8})
    return config


@functools.cache
def _saved() -> tempfile.TemporaryDirectory:
    """The folder that `save_runs` copies, made once for all files of tests."""
    folder = tempfile.TemporaryDirectory()
    for config in (cavp, ldm, alignment):
        filled.save_run(pathlib.Path(folder.name) / config.__name__, config())
    return folder


def save_runs(folder: pathlib.Path) -> pathlib.Path:
    """Writes cavp/, ldm/ and alignment/ into a folder; returns the folder."""
    shutil.copytree(_saved().name, folder, dirs_exist_ok=True)
    return folder


def write_videos(folder: pathlib.Path, lengths_s: Sequence[float]) -> list[pathlib.Path]:
    """Writes silent videos of noise, v<seconds>.mp4; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for seconds in lengths_s:
        frames = rng.integers(0, 255, (round(seconds * 10), 32, 48, 3), dtype=np.uint8)
        paths.append(folder / f"v{seconds}.mp4")
        video_io.write_video(paths[-1], frames, 10)
    return paths
