"""MMAudio's mel autoencoder, on shards of `data_prep.prepare`.

    python -m data_prep.prepare VIDEOS shards
    python -m foley_jax.main --config=configs/mmaudio_vae.py --workdir=runs/mmaudio_vae

16 kHz; sizes of the released network. The recipe is ours, the official one was not published.

Demo (embedded set, small; for configs/mmaudio.py:demo):

    python -m foley_jax.main --config=configs/mmaudio_vae.py:demo \\
        --workdir=demo/embedded/runs/mmaudio_vae
"""

from configs import base


def get_config(arg: str = ""):
    """'' = the released 16 kHz network's sizes; 'demo' = the embedded set."""
    if arg not in ("", "demo"):
        raise base.unknown_variant("mmaudio_vae", arg, ("", "demo"))
    config = base.base("mmaudio_vae")
    config.total_steps = 300_000
    config.batch_size = 64
    config.dtype = "bfloat16"
    config.ema_decay = 0.999
    config.show_every = 0
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 1000, "b2": 0.99, "clip_norm": 1.0})
    config.optimizer.schedule = "constant_then_linear"
    config.audio.update({"num_mels": 80, "fmin_hz": 0.0, "fmax_hz": 8000.0})
    config.loss = base.ConfigDict({"crop_frames": 256, "kl_weight": 1e-5})
    config.model = base.ConfigDict(
        {
            "autoencoder": {"num_mels": 80, "latent_dim": 20, "width": 384},
            "band_mean": -2.5,  # of log10 amplitudes, whose floor is -5
            "band_std": 1.5,
        }
    )
    if arg == "demo":
        config.data.dir = "demo/embedded/shards"
        config.dtype = "float32"
        config.total_steps = 1500
        config.batch_size = 16
        config.ema_decay = 0.0
        config.loss.crop_frames = 64
        config.model.autoencoder.width = 48
        config.optimizer.lr = 2e-3
        config.optimizer.warmup_steps = 50
        config.checkpoint.every_steps = 500
    return config
