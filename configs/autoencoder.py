"""The mel autoencoder (KL, f8) that latent diffusion works in, for those without SD weights.

    python -m foley_jax.main --config=configs/autoencoder.py --workdir=runs/autoencoder
    python -m foley_jax.main --config=configs/autoencoder.py:demo --workdir=demo/runs/autoencoder
    python -m foley_jax.main --config=configs/autoencoder.py:embedded \\
        --workdir=demo/embedded/runs/autoencoder

With Stable Diffusion's own autoencoder, skip this stage:
`python -m foley_jax.convert stable_diffusion/v1 sd-v1-4.ckpt runs/sd` and
`--config.init_from.unet=runs/sd:unet` in configs/ldm.py.
"""

from configs import base


def get_config(arg: str = ""):
    """'' = Stable Diffusion's sizes; 'demo' = the embedded set, 'embedded' = that, for longer."""
    config = base.base("autoencoder")
    config.total_steps = 100_000
    config.batch_size = 64
    config.dtype = "bfloat16"
    config.ema_decay = 0.999
    config.optimizer.lr = 1e-4
    config.optimizer.warmup_steps = 1000
    config.loss = base.ConfigDict(
        {
            "crop_frames": 512,
            "reconstruction": "l1",
            "kl_weight": 1e-6,
            "adversarial_weight": 0.0,
            "adversarial_start": 0,
        }
    )
    config.model.autoencoder = base.ConfigDict(
        {
            "in_channels": 3,
            "out_channels": 3,
            "z_channels": 4,
            "ch": 128,
            "ch_mult": (1, 2, 4, 4),
            "num_res_blocks": 2,
            "attention": True,
            "patch": (1, 1),
        }
    )
    if arg in ("demo", "embedded"):
        demo_sizes(config)
        config.data.dir = "demo/shards"
        config.dtype = "float32"
        config.total_steps = 600
        config.batch_size = 16
        config.ema_decay = 0.0
        config.loss.crop_frames = 128
        config.loss.kl_weight = 1e-4
        config.optimizer.lr = 2e-3
        config.optimizer.schedule = "constant_then_linear"
        config.optimizer.warmup_steps = 20
        config.optimizer.clip_norm = 1.0
        config.checkpoint.every_steps = 300
    if arg == "embedded":
        config.data.dir = "demo/embedded/shards"
        config.total_steps = 2000  # 600 leave it the ceiling of hard scenes
        config.checkpoint.every_steps = 500
    elif arg not in ("", "demo"):
        raise base.unknown_variant("autoencoder", arg, ("", "demo", "embedded"))
    return config


def demo_sizes(config):
    """The demo's autoencoder and front end; configs/ldm.py:demo uses the same."""
    config.audio.hop = 250  # 8 s are 512 frames and 32 features, exactly
    config.model.autoencoder = base.ConfigDict(
        {
            "in_channels": 1,
            "out_channels": 1,
            "z_channels": 16,
            "ch": 64,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "attention": False,
            "patch": (16, 4),  # latents of 4x64x16 for 8 s: four times fewer pixels than 16x64
            "num_groups": 8,
        }
    )
