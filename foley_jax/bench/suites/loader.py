"""Batches out of shards, as contrastive training takes them: read, decoded, cut, stacked.

T frames, H W image, L samples.
"""

from collections.abc import Iterator
import itertools
import pathlib
import tempfile
from typing import Any

from absl import flags
import numpy as np

from configs import cavp as cavp_config
from foley_jax.bench import case
from foley_jax.bench.peers import torch_side
from foley_jax.data import clips, pipeline, records
from foley_jax.media import specs

SECONDS = clips.CLIP_SECONDS
READ_THREADS = 4  # as config.data has it


class Loader:
    """Our pipeline in the place of a compiled program.

    Every call opens it anew, so that nothing was read ahead while a peer had its turn.
    """

    flops = 0.0

    def __init__(self, source: pipeline.Source, transform: Any, batch: int, count: int):
        self._source, self._transform, self._batch, self._count = source, transform, batch, count

    def compile(self) -> float:
        """There is nothing to compile."""
        return 0.0

    def memory_bytes(self) -> None:
        """Not known."""

    def __call__(self) -> list[dict[str, np.ndarray]]:
        """So many batches."""
        batches = pipeline.make_iterator(
            self._source,
            self._transform,
            global_batch=self._batch,
            seed=0,
            position=0,
            process_index=0,
            process_count=1,
            read_threads=READ_THREADS,
            workers=0,
        )
        return list(itertools.islice(batches, self._count))


def loader(ask: case.Ask) -> Iterator[case.Case]:
    """Batches of 8 videos of 10 s, 3 clips of each."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain looks at absl's flags
    config = cavp_config.get_config()
    side = config.video.height = config.video.width = ask.of(tiny=32, small=224, paper=224)
    batch = ask.of(tiny=2, small=8, paper=8)
    video, audio = specs.VideoSpec(**config.video), specs.AudioSpec(**config.audio)
    transform = clips.CavpClips(video, audio)
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), video, audio, count=ask.of(tiny=8, small=64, paper=64))
        source = pipeline.open_source(folder, "train")
        count = ask.of(tiny=2, small=16, paper=16)
        peers = {}
        if ask.peers and not torch_side.absent():
            from foley_jax.bench.peers import loading

            peers = {"DataLoader": loading.peer(source, transform, batch, count, shapes)}
        yield case.Case(
            "loader",
            f"{side}x{side}, batch {batch}",
            ask.size,
            Loader(source, transform, batch, count),
            batch * count,
            "video",
            peers,
            tolerance=0.0,
            output=shapes,
            note="torch's DataLoader runs our reader and transform in the process itself; ours, of "
            f"{READ_THREADS} threads, is opened anew for every {count} batches. Orders differ, so "
            "shapes are compared",
        )


def shapes(batches: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """The shapes of all batches' arrays."""
    return [{name: np.array(np.shape(x)) for name, x in sorted(batch.items())} for batch in batches]


def write(
    folder: pathlib.Path, video: specs.VideoSpec, audio: specs.AudioSpec, *, count: int
) -> None:
    """A set of one shard: moving ramps, which JPEG packs as it packs images, and noise."""
    rng = np.random.default_rng(0)
    frames = video.num_frames(SECONDS)
    ramp = np.add.outer(np.arange(video.height), np.arange(video.width))
    with records.ShardWriter(folder, "train", 0) as writer:
        for i in range(count):
            phase = rng.integers(0, 256, 3) + np.arange(frames)[:, None]
            images = (ramp[None, ..., None] + 7 * phase[:, None, None]) % 256
            grain = rng.integers(0, 24, images.shape)
            writer.add(
                records.Clip(
                    id=f"train/noise_{i:05d}#0",
                    split="train",
                    labels=[],
                    source=f"noise_{i:05d}.mp4",
                    start_s=0.0,
                    end_s=SECONDS,
                    fps=video.fps,
                    frames=records.encode_frames(((images + grain) // 2).astype(np.uint8)),
                    audio=rng.normal(0, 3000, audio.num_samples(SECONDS)).astype(np.int16),
                    sample_rate_hz=audio.sample_rate_hz,
                )
            )
    records.write_index(
        folder,
        records.Index(video.fps, video.height, video.width, audio.sample_rate_hz, (writer.info,)),
    )
