"""MM-Diffusion's super-resolution of frames, 64x64 -> 256x256.

Paper (batch 48, AdamW 1e-4, EMA 0.9999, from guided diffusion's ImageNet upsampler):

    python -m data_prep.prepare VIDEOS shards_256 --fps=10 --size=256 --fit=letterbox
    python -m foley_jax.convert guided_diffusion/upsampler_64_256 64_256_upsampler.pt runs/upsampler
    python -m foley_jax.main --config=configs/mm_super_resolution.py \\
        --workdir=runs/mm_super_resolution

Demo (embedded set, 32x32 -> 128x128):

    python -m foley_jax.main --config=configs/mm_super_resolution.py:demo \\
        --workdir=demo/runs/mm_super_resolution
"""

from configs import base

VARIANTS = ("", "released", "demo")


def get_config(arg: str = ""):
    """'' = the paper; 'released' = with the official degradation; 'demo' = embedded set."""
    config = base.base("mm_super_resolution")
    config.total_steps = 100_000
    config.batch_size = 48
    config.dtype = "bfloat16"
    config.ema_decay = 0.9999
    config.eval_batches = 8
    config.data.dir = "shards_256"
    config.optimizer.lr = 1e-4
    config.video = base.ConfigDict(
        {"fps": 10.0, "height": 256, "width": 256, "fit": "letterbox", "antialias": True}
    )
    config.data.degradation = base.ConfigDict({"height": 64, "width": 64, "preset": "default"})
    config.loss = base.ConfigDict(
        {"prediction": "eps", "schedule": {"beta_start": 1e-4, "beta_end": 0.02, "num_steps": 1000}}
    )
    # every part of the network; `freeze` keeps nothing
    config.init_from = base.ConfigDict(
        {
            part: f"runs/upsampler:{part}"
            for part in (
                "time_embed",
                "input_blocks",
                "middle_block",
                "output_blocks",
                "norm_out",
                "conv_out",
            )
        }
    )
    config.model = base.ConfigDict(
        {
            "picture_channels": 3,
            "model_channels": 192,
            "channel_mult": (1, 1, 2, 2, 4, 4),
            "num_res_blocks": 2,
            "attention_downsamples": (8, 16, 32),
            "num_heads": 4,
            "remat": True,
        }
    )
    if arg == "released":
        config.data.degradation.preset = "official"
    elif arg == "demo":
        _demo(config)
    elif arg:
        raise base.unknown_variant("mm_super_resolution", arg, VARIANTS)
    return config


def _demo(config):
    config.data.dir = "demo/mm_shards_large"
    config.dtype = "float32"
    config.total_steps = 2000
    config.batch_size = 2
    config.ema_decay = 0.99
    config.init_from = base.ConfigDict()
    config.optimizer.lr = 1e-3
    config.optimizer.schedule = "constant_then_linear"
    config.optimizer.warmup_steps = 30
    config.optimizer.clip_norm = 1.0
    config.checkpoint.every_steps = 500
    # frames are frames after far fewer steps than with noise predicted
    config.loss.prediction = "v"
    config.video.height = config.video.width = 128
    config.video.fit = "stretch"
    config.data.degradation.height = config.data.degradation.width = 32
    config.model.update(
        {
            "model_channels": 32,
            "channel_mult": (1, 1, 2, 2),
            "num_res_blocks": 1,
            "attention_downsamples": (),
            "remat": False,
        }
    )
