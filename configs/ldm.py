"""Stage 2, latent diffusion on mel spectrograms, conditioned on CAVP features.

Paper (batch 1760, AdamW 1e-4, eps-prediction, from Stable Diffusion v1.4):

    python -m data_prep.features shards features --model=runs/cavp
    python -m foley_jax.convert stable_diffusion/v1 sd-v1-4.ckpt runs/sd
    python -m foley_jax.main --config=configs/ldm.py --workdir=runs/ldm

Demo (embedded set, v-prediction, features aligned by time, locality bias):

    python -m foley_jax.main --config=configs/ldm.py:demo --workdir=demo/runs/ldm

Embedded (the same at 12 features a second, for longer; launch/train_embedded.sh runs it):

    python -m foley_jax.main --config=configs/ldm.py:embedded --workdir=demo/embedded/runs/ldm
"""

from configs import autoencoder, base

# one GPU: the paper's batch in parts that fit with 8 % to spare; 24 GB are for fine-tuning. Checked
# by tests/test_one_gpu_configs.py (slow); the figures are in foley_jax/aot/README.md
CARDS = {
    "h100": {"accumulate": 2},
    "h200": {},  # all of it at once
    "rtx4090": {"batch_size": 200},
}


def get_config(arg: str = ""):
    """'' = the paper; 'h100', 'h200', 'rtx4090' = on one such GPU; 'demo' = the embedded set,
    'embedded' = the same at 12 frames/s, for longer."""
    config = base.base("ldm")
    config.total_steps = 100_000
    config.batch_size = 1760
    config.dtype = "bfloat16"
    config.eval_batches = 8
    config.data.dir = "features"
    config.data.window_frames = 512
    config.data.num_rows = base.frames_in(config, base.window_s(config))  # 32
    config.data.merge_probability = 0.5
    config.data.aligned = False  # True: features chosen and timed exactly (beyond the paper)
    config.cavp = "runs/cavp"  # where sampling finds the video encoder of these features
    config.optimizer.lr = 1e-4
    config.optimizer.warmup_steps = 1000
    config.optimizer.weight_decay = 0.01
    config.mesh.fsdp = 1
    config.init_from = base.ConfigDict(
        {"unet": "runs/sd:unet", "autoencoder": "runs/sd:autoencoder"}
    )
    config.loss = base.ConfigDict(
        {
            "prediction": "eps",  # "eps" | "v"
            "weighting": "uniform",  # "uniform" | "inverse_alpha2"
            "condition_dropout": 0.2,
        }
    )
    config.model = base.ConfigDict(
        {
            "unet": {
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 320,
                "channel_mult": (1, 2, 4, 4),
                "num_res_blocks": 2,
                "attention_downsamples": (1, 2, 4),
                "num_heads": 8,
                "context_dim": 768,
                "depth": 1,
                "locality_bias": False,
                "remat": True,
            },
            "autoencoder": autoencoder.get_config().model.autoencoder.to_dict(),
            "conditioner": {
                "in_dim": 512,
                "out_dim": 768,
                "max_len": base.frames_in(config, 10.0),  # 40
            },
            "latent_scale": 0.18215,
        }
    )
    if arg == "demo":
        _demo(config)
    elif arg == "embedded":
        _embedded(config)
    elif arg in CARDS:
        config.update_from_flattened_dict(CARDS[arg])
    elif arg:
        raise base.unknown_variant("ldm", arg, ("", *CARDS, "demo", "embedded"))
    return config


def _demo(config):
    autoencoder.demo_sizes(config)
    config.data.dir = "demo/features"
    config.data.aligned = True
    config.cavp = "demo/runs/cavp"
    config.dtype = "float32"
    config.total_steps = 900
    config.batch_size = 16
    config.ema_decay = 0.99
    config.optimizer.lr = 1.5e-3
    config.optimizer.schedule = "constant_then_linear"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 1.0
    config.checkpoint.every_steps = 225
    config.init_from = base.ConfigDict(
        {
            "autoencoder": "demo/runs/autoencoder:autoencoder",
            "latent_scale": "demo/runs/autoencoder:latent_scale",
        }
    )
    config.loss.prediction = "v"
    config.model.unet = base.ConfigDict(
        {
            "in_channels": 16,
            "out_channels": 16,
            "model_channels": 32,
            "channel_mult": (1, 2, 3),
            "num_res_blocks": 1,
            "attention_downsamples": (1, 2),  # 1: columns of 125 ms, finer than the features
            "self_attention_downsamples": (),
            "num_groups": 8,
            "num_heads": 4,
            "context_dim": 128,
            "depth": 1,
            "locality_bias": True,
            "remat": False,
        }
    )
    config.model.conditioner = base.ConfigDict(
        {
            "in_dim": 128,
            "out_dim": 128,
            "max_len": base.frames_in(config, 10.0),
            "feature_gain": 10.0,
            "position_std": 0.02,
        }
    )


def _embedded(config):
    """12 features a second; autoencoder and CAVP of the same recipe."""
    _demo(config)
    config.data.dir = "demo/embedded/features"
    config.video.fps = 12.0
    config.cavp = "demo/embedded/runs/cavp"
    config.total_steps = 2500
    config.checkpoint.every_steps = 500
    config.init_from.autoencoder = "demo/embedded/runs/autoencoder:autoencoder"
    config.init_from.latent_scale = "demo/embedded/runs/autoencoder:latent_scale"
