"""The demo from videos to audio with tiny networks: features, training, sampling with a text."""

import json

import filled
import numpy as np
import pytest
import tiny_foley

from configs import mmaudio, mmaudio_vae
from data_prep import manifest, mmaudio_features
from foley_jax import sample
from foley_jax.mmaudio import own_runs
from foley_jax.training import loop
from tests.media import media_files

pytestmark = pytest.mark.usefixtures("quick_compilation")
WINDOW_S = 1.92


def autoencoder():
    config = mmaudio_vae.get_config("demo")
    config.model.autoencoder.width = 4
    return config


def flow(folder, **fields):
    config = mmaudio.get_config("demo")
    config.model.update({"width": 32, "num_heads": 1, "depth": 2, "fused_depth": 1})
    config.model.update({"clip_dim": 8, "sync_dim": 8})
    config.data.dir, config.data.window_s = str(folder / "features"), WINDOW_S
    config.autoencoder, config.cavp = str(folder / "vae"), str(folder / "cavp")
    config.update({"batch_size": 4, "eval_batches": 0, "log_every": 5, **fields})
    config.optimizer.update({"lr": 3e-3, "warmup_steps": 5})
    return config


@pytest.mark.slow
def test_loss_falls_and_a_text_is_followed(tmp_path, one_device):
    filled.save_run(tmp_path / "vae", autoencoder())
    filled.save_run(tmp_path / "cavp", tiny_foley.cavp())
    for name in ("a", "b"):
        media_files.write(tmp_path / f"{name}.mp4", seconds=4.0, times_s=(0.5, 2.6))
    lines = [manifest.Entry(n, f"{n}.mp4", "train", labels=[n]) for n in ("a", "b")]
    extractor = mmaudio_features.load_small(
        tmp_path / "vae", tmp_path / "cavp", batch=2, window_s=WINDOW_S
    )
    index = mmaudio_features.extract_set(tmp_path, tmp_path / "features", lines, extractor)
    assert index.num_records("train") == 4 and index.height == 16 and not index.num_failures
    run = tmp_path / "flow"
    loop.train(flow(tmp_path, total_steps=50), run)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    means = [row["loss_mean"] for row in rows if row["split"] == "train"]
    assert np.mean(means[-3:]) < 0.8 * means[0], means
    foley = sample.load(run)
    options = {"steps": 2, "duration": 1.0}
    texts = ("a", "b", "")
    made = [foley(tmp_path / "a.mp4", text=text, **options).audio for text in texts]
    assert all(len(audio) == 16000 and np.isfinite(audio).all() for audio in made)
    assert np.abs(made[0] - made[1]).max() > 1e-3 and np.abs(made[0] - made[2]).max() > 1e-3
    assert len(foley(text="a", **options).audio) == 16000
    with pytest.raises(ValueError, match="holds 'cavp'; wanted here: 'mmaudio_vae'"):
        own_runs.autoencoder(tmp_path / "cavp")
