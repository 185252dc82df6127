"""Networks of runs of ours in the places of released ones, as the demo has them."""

import os
from typing import NamedTuple

import ml_collections

from foley_jax.media import specs
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.models import small_encoders
from foley_jax.runtime import network
from foley_jax.training import task as task_lib
from foley_jax.training.checkpointing import run_directory


class Encoders(NamedTuple):
    """One network in place of CLIP and Synchformer, and what it sees in either place."""

    network: network.Network
    clip_video: specs.VideoSpec
    sync_video: specs.VideoSpec


def autoencoder(run: str | os.PathLike) -> tuple[rates_lib.Rates, network.Network]:
    """Returns the mel autoencoder of a run of configs/mmaudio_vae.py, and its rates.

    Raises:
      FileNotFoundError: no checkpoint.
      ValueError: a run of another stage.
    """
    config, made = _read(run, "mmaudio_vae", "float32")
    return rates_lib.of(specs.AudioSpec(**config.audio)), made


def encoders(cavp: str | os.PathLike, dtype: str = "float32") -> Encoders:
    """Returns the CAVP of a run, which has learnt 12 frames a second, as `SmallEncoders`.

    Raises:
      FileNotFoundError: no checkpoint.
      ValueError: a run of another stage.
    """
    config, made = _read(cavp, "cavp", dtype)
    module = small_encoders.SmallEncoders(made.module())
    videos = small_encoders.videos(config.video.height, config.video.width)
    return Encoders(network.Network.of(module), *videos)


def _read(
    run: str | os.PathLike, stage: str, dtype: str
) -> tuple[ml_collections.ConfigDict, network.Network]:
    config, params, rest = run_directory.load_model_state(run)
    if config.get("task") != stage:
        raise ValueError(f"{run} holds {config.get('task')!r}; wanted here: {stage!r}")
    config.dtype = dtype
    task = task_lib.resolve(config)
    return config, network.Network.rebuild(task.build, task.trainable, params, rest)
