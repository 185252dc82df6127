"""CAVP: features of video and audio, and one update of both encoders.

B videos or clips, N clips of a video, T frames, H W image, F mel bins, L mel frames or samples.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import cavp as cavp_config
from foley_jax.bench import case, weights
from foley_jax.bench.peers import torch_side
from foley_jax.bench.suites import steps
from foley_jax.diff_foley.models import cavp
from foley_jax.diff_foley.tasks import cavp as cavp_task
from foley_jax.media import mel

FRAMES = 32  # 8 s
MEL_PER_FRAME = 16  # hop 250 at 16 kHz beside 4 frames a second


def stage(ask: case.Ask) -> ml_collections.ConfigDict:
    """configs/cavp.py; "tiny" is narrow and shallow, with images of 32 pixels."""
    config = steps.plain(cavp_config.get_config(), ask)
    config.model.audio.dropout = 0.0  # the peer would draw another mask
    if ask.size == "tiny":
        config.model.video.depths, config.model.video.width = (1, 1), 8
        config.model.video.inflate = (False, True)
        config.model.audio.channels = (4, 4, 8, 8, 8, 16)
        config.model.embed_dim = 16
        config.video.height = config.video.width = 32
    return config


def cavp_encode(ask: case.Ask) -> Iterator[case.Case]:
    """Unit features of 8 s of images, and of 8 s of audio."""
    config = stage(ask)
    network = weights.network(
        lambda keys: cavp.from_config(config.model, dtype=ask.dtype, rngs=keys)
    )
    frames = ask.of(tiny=4, small=16, paper=FRAMES)
    rng = np.random.default_rng(0)
    side = config.video.height
    given = {
        "frames": rng.random((1, frames, side, side, 3), np.float32),
        "audio": rng.random((1, config.audio.num_mels, MEL_PER_FRAME * frames), np.float32),
    }
    peers = _encoders(ask, weights.official("diff_foley/cavp", network.state))
    encoders = {"frames": "encode_video", "audio": "encode_spec"}
    for name, method in encoders.items():
        x = given[name]
        run = jax.jit(lambda state, x, method=method: getattr(network.module(state), method)(x))
        made = {}
        if peers:
            made = torch_side.both(
                lambda module, x: module(x),
                peers[name],
                torch_side.tensor(x, ours=ask.dtype),
                output=torch_side.array,
            )
        yield case.Case(
            "cavp_encode",
            f"{name}, {frames / config.video.fps:g} s",
            ask.size,
            case.Program(run, (network.state, jnp.asarray(x))),
            1,
            "clip",
            made,
            tolerance=ask.tolerance(1e-3, 0.3),
        )


def _encoders(ask: case.Ask, official: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if not ask.peers or torch_side.absent():
        return {}
    from foley_jax.bench.peers import cavp as peer

    made = {"frames": peer.video_encoder(official), "audio": peer.audio_encoder(official)}
    return {name: torch_side.placed(module, ours=ask.dtype) for name, module in made.items()}


def cavp_train(ask: case.Ask) -> Iterator[case.Case]:
    """One update on 3 clips of 4 s of some videos."""
    config = stage(ask)
    on_cpu = jax.default_backend() == "cpu"
    for videos in ask.of(tiny=(2,), small=(1,), paper=(2,) if on_cpu else (30,)):
        batch = train_batch(config, videos, ask)
        made = steps.Step(config, batch)
        yield case.Case(
            "cavp_train",
            f"{videos} videos of 3 clips",
            ask.size,
            made.program,
            videos,
            "video",
            _train_peers(ask, made, batch),
            tolerance=ask.tolerance(1e-3, 5e-2),
            output=steps.compared,
            note="torch is given the mels, ours makes them; no dropout on either side",
        )


def train_batch(
    config: ml_collections.ConfigDict, videos: int, ask: case.Ask
) -> dict[str, np.ndarray]:
    """Noise as uint8 images and int16 audio."""
    rng = np.random.default_rng(0)
    clips, frames = config.data.num_clips, ask.of(tiny=4, small=16, paper=16)
    side = config.video.height
    shape = (videos, clips, frames, side, side, 3)
    seconds = 2 * clips * frames / config.video.fps
    length = int(seconds * config.audio.sample_rate_hz)
    starts = np.arange(clips) * 2 * MEL_PER_FRAME * frames
    return {
        "frames_BNTHWC": rng.integers(0, 256, shape, np.uint8),
        "audio_BL": rng.normal(0.0, 3000.0, (videos, length)).astype(np.int16),
        "mel_start_BN": np.tile(starts.astype(np.int32), (videos, 1)),
    }


def _train_peers(
    ask: case.Ask, made: steps.Step, batch: Mapping[str, np.ndarray]
) -> dict[str, case.Peer]:
    if not ask.peers or torch_side.absent():
        return {}
    from foley_jax.bench.peers import cavp_training

    task = made.task
    frames = batch["frames_BNTHWC"]
    mel_BFT = jax.jit(lambda pcm: mel.log_mel(cavp_task.pcm_to_float(pcm), task.audio))(
        jnp.asarray(batch["audio_BL"])
    )
    mel_BNFT = cavp_task.cut_clips(
        mel_BFT, jnp.asarray(batch["mel_start_BN"]), MEL_PER_FRAME * frames.shape[2]
    )
    return cavp_training.peers(
        weights.official("diff_foley/cavp", made.whole_state()),
        # [B, N, ...] -> [B*N, ...], clip-fastest
        frames.reshape(-1, *frames.shape[2:]),
        np.asarray(mel_BNFT).reshape(-1, *mel_BNFT.shape[2:]),
        frames.shape[1],
        made.config.optimizer.to_dict(),
        ours=ask.dtype,
    )
