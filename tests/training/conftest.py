"""A data folder and a config for the toy task."""

import numpy as np
import pytest

from foley_jax.data import records

NUM_TRAIN, NUM_TEST = 40, 12


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Shards of 40 + 12 one-second clips of noise in three files."""
    folder = tmp_path_factory.mktemp("toy_shards")
    rng = np.random.default_rng(0)
    infos = []
    for split, number, count in (("train", 0, 25), ("train", 1, 15), ("test", 0, NUM_TEST)):
        with records.ShardWriter(folder, split, number) as writer:
            for i in range(count):
                frames = records.encode_frames(np.full((4, 16, 16, 3), 3 * i, np.uint8))
                audio = rng.integers(-9000, 9000, 16000).astype(np.int16)
                name = f"{split}/{number}_{i}"
                writer.add(
                    records.Clip(
                        id=name,
                        split=split,
                        labels=[],
                        source=f"{name}.mp4",
                        start_s=0.0,
                        end_s=1.0,
                        fps=4.0,
                        frames=frames,
                        audio=audio,
                        sample_rate_hz=16000,
                    )
                )
        infos.append(writer.info)
    index = records.Index(4.0, 16, 16, 16000, tuple(infos))
    records.write_index(folder, index)
    return folder
