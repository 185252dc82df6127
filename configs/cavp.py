"""Stage 1, CAVP: contrastive audio-video pretraining (SlowOnly-R50 + Cnn14, 3 clips a video).

Paper (VGGSound + AudioSet, 240 videos a step, 300 epochs):

    python -m data_prep.prepare VIDEOS shards
    python -m foley_jax.main --config=configs/cavp.py --workdir=runs/cavp --config.data.dir=shards

Demo (embedded set, 64x64 pixels, minutes on one CPU core; launch/train_demo.sh runs it):

    python -m foley_jax.main --config=configs/cavp.py:demo --workdir=demo/runs/cavp

Embedded (the same set at 12 frames/s, a quarter of an hour; launch/train_embedded.sh runs it):

    python -m foley_jax.main --config=configs/cavp.py:embedded --workdir=demo/embedded/runs/cavp

Any folder of shards trains with either: `--config.data.dir=my/shards`.
"""

from configs import base

# one GPU: fewer videos, since every clip is compared with all others: no parts. Checked by
# tests/test_one_gpu_configs.py (slow); the figures are in foley_jax/aot/README.md
CARDS = {
    "h100": {"batch_size": 104, "model.video.remat": "blocks"},
    "h200": {"batch_size": 188, "model.video.remat": "blocks"},
    "rtx4090": {"batch_size": 30, "model.video.remat": "blocks"},
}


def get_config(arg: str = ""):
    """'' = the paper; 'h100', 'h200', 'rtx4090' = on one such GPU; 'demo' = the embedded set,
    'embedded' = the same at 12 frames/s, for longer."""
    config = base.base("cavp")
    config.audio.hop = 250  # 256 mel frames are 4 s, 64 of them one second
    config.total_steps = 711_000  # 300 epochs of 2370 batches
    config.batch_size = 240  # 30 videos on each of 8 GPUs
    config.dtype = "bfloat16"
    config.eval_every = 2370
    config.eval_clips = 512
    config.data.num_clips = 3
    config.data.clip_frames = base.frames_in(config, 4.0)  # 16
    config.data.min_gap_frames = base.frames_in(config, 2.0)  # 8
    config.optimizer.lr = 8e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 200
    config.optimizer.weight_decay = 0.2
    config.loss.temporal_weight = 1.0
    config.loss.row_weight = 0.0  # beyond the paper: features of the same moment find each other
    config.model = base.ConfigDict(
        {
            "video": {
                "depths": (3, 4, 6, 3),
                "width": 64,
                "inflate": (False, False, True, True),
                "stem": "conv7",
                "remat": "",  # "norms" on v6e, "blocks" on v5e: see foley_jax/aot/README.md
            },
            "audio": {
                "channels": (64, 128, 256, 512, 1024, 2048),
                "dropout": 0.2,
                "time_reduction": 16,  # mel frames of a feature: 4 a second
            },
            "embed_dim": 512,
        }
    )
    if arg == "demo":
        _demo(config)
    elif arg == "embedded":
        _embedded(config)
    elif arg in CARDS:
        config.update_from_flattened_dict(CARDS[arg])
    elif arg:
        raise base.unknown_variant("cavp", arg, ("", *CARDS, "demo", "embedded"))
    return config


def _demo(config):
    config.data.dir = "demo/shards"
    config.video.height = config.video.width = 64
    config.dtype = "float32"
    config.total_steps = 700
    config.batch_size = 16
    config.eval_clips = 64
    config.eval_batches = 4
    config.eval_every = 0
    config.log_every = 20
    config.loss.row_weight = 1.0
    config.optimizer.lr = 2e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every_steps = 175
    config.model = base.ConfigDict(
        {
            "video": {
                "depths": (0, 1, 1, 1),
                "width": 12,
                "inflate": (False, True, True, False),
                "stem": "motion4",
            },
            "audio": {"channels": (16, 24, 48, 64, 96), "stem": "patch4", "dropout": 0.0},
            "embed_dim": 128,
            "row_norm": True,
        }
    )


def _embedded(config):
    """12 frames/s, where hits are seen to 80 ms, and audio features of an eighth of a second."""
    _demo(config)
    config.data.dir = "demo/embedded/shards"
    config.video.fps = 12.0
    config.total_steps = 1000
    config.batch_size = 12  # 48 frames a clip: three times the demo's
    config.eval_batches = 6
    config.checkpoint.every_steps = 250
    config.model.audio.time_reduction = 8
