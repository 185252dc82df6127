"""MM-Diffusion's coupled U-Net: sounding videos of 1.6 s, 16 frames of 64x64 and 16 kHz.

Paper (batch 128, AdamW 1e-4, EMA 0.9999, 100k steps):

    python -m data_prep.prepare VIDEOS shards_mm --fps=10 --size=64 --fit=letterbox
    python -m foley_jax.main --config=configs/mm_diffusion.py --workdir=runs/mm_diffusion

Demo (embedded set, simple scenes, 32x32 and 8 kHz; see `launch/mm_demo.sh`):

    python -m foley_jax.main --config=configs/mm_diffusion.py:demo --workdir=demo/runs/mm_diffusion

Embedded (the same with time positions, for longer; hours on one CPU core):

    python -m foley_jax.main --config=configs/mm_diffusion.py:embedded \\
        --workdir=demo/embedded/runs/mm_diffusion
"""

from configs import base

# one GPU: the paper's batch in parts that fit with 8 % to spare; 24 GB are for fine-tuning. Checked
# by tests/test_one_gpu_configs.py (slow); the figures are in foley_jax/aot/README.md
CARDS = {
    "h100": {"accumulate": 2},
    "h200": {},  # all of it at once
    "rtx4090": {"batch_size": 26},
}
VARIANTS = ("", *CARDS, "released", "demo", "embedded")


def get_config(arg: str = ""):
    """'' = the paper; 'h100', 'h200', 'rtx4090' = on one such GPU; 'released' = as the released
    weights were trained; 'demo' = embedded set, 'embedded' = that with time positions."""
    config = base.base("mm_diffusion")
    config.total_steps = 100_000
    config.batch_size = 128
    config.dtype = "bfloat16"
    config.ema_decay = 0.9999
    config.eval_batches = 8
    config.data.dir = "shards_mm"
    config.data.num_frames = 16
    config.data.mirror = False
    config.data.companding = 0.0
    config.optimizer.lr = 1e-4
    config.video = base.ConfigDict(
        {"fps": 10.0, "height": 64, "width": 64, "fit": "letterbox", "antialias": True}
    )
    config.loss = base.ConfigDict(
        {
            "prediction": "eps",  # "eps" | "v" | "x0"
            "weighting": "uniform",  # "uniform" | "inverse_alpha2" | "inverse_sigma2"
            "schedule": {"beta_start": 1e-4, "beta_end": 0.02, "num_steps": 1000},
        }
    )
    config.model = base.ConfigDict(
        {
            "video_patch": 1,
            "audio_patch": 1,
            "num_frames": 16,
            "model_channels": 128,
            "channel_mult": (1, 2, 3, 4),
            "num_res_blocks": 2,
            "cross_attention_downsamples": (2, 4, 8),
            "cross_attention_windows": (1, 4, 8),
            "middle_cross_attention": True,
            "video_attention_downsamples": (2, 4, 8),
            "audio_attention_downsamples": (),
            "head_channels": 64,
            "dropout": 0.1,
            "random_shift": True,
            # beyond the paper: queries and keys of cross-attention know their seconds
            "time_positions": False,
            "remat": True,
        }
    )
    if arg == "released":
        # torchvision of that time did not antialias; RandomHorizontalFlip(p=True) always mirrors
        config.video.antialias = False
        config.data.mirror = True
    elif arg in CARDS:
        config.update_from_flattened_dict(CARDS[arg])
    elif arg == "demo":
        _demo(config)
    elif arg == "embedded":
        _embedded(config)
    elif arg:
        raise base.unknown_variant("mm_diffusion", arg, VARIANTS)
    return config


def _demo(config):
    config.data.dir = "demo/mm_shards"
    config.data.companding = 100.0
    config.dtype = "float32"
    config.total_steps = 700
    config.batch_size = 4
    config.ema_decay = 0.99
    config.optimizer.lr = 2e-3
    config.optimizer.schedule = "constant_then_linear"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 1.0
    config.checkpoint.every_steps = 350
    config.audio.sample_rate_hz = 8000
    config.video.height = config.video.width = 32
    config.video.fit = "stretch"
    config.loss.prediction = "x0"
    config.loss.weighting = "inverse_sigma2"
    config.model.update(
        {
            "video_patch": 8,
            "audio_patch": 32,
            "model_channels": 64,
            "channel_mult": (1, 1, 1),
            "num_res_blocks": 1,
            "cross_attention_downsamples": (1, 2, 4),
            "video_attention_downsamples": (2, 4),
            "head_channels": 32,
            "dropout": 0.0,
            # windows that stay where they are tell which audio belongs to which frame
            "random_shift": False,
            "remat": False,
        }
    )


def _embedded(config):
    """Time positions in windows of the whole clip: each token asks for its own moment.

    10 frames/s, as the detector sees that judges it.
    """
    _demo(config)
    config.total_steps = 6000
    config.ema_decay = 0.999
    config.checkpoint.every_steps = 1000
    config.model.cross_attention_windows = (16, 16, 16)
    config.model.time_positions = True
