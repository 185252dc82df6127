"""The alignment classifier: guides sampling towards audio in time, or judges it (Align Acc).

Guidance classifier (latents noised to a random step, AdamW 5e-5):

    python -m foley_jax.main --config=configs/alignment.py --workdir=runs/alignment

Evaluation classifier (clean latents):

    python -m foley_jax.main --config=configs/alignment.py:eval --workdir=runs/alignment_eval

Demo (embedded set, minutes on one CPU core):

    python -m foley_jax.main --config=configs/alignment.py:demo --workdir=demo/runs/alignment
    python -m foley_jax.main --config=configs/alignment.py:demo_eval \\
        --workdir=demo/runs/alignment_eval

Embedded (12 features a second, with the model of `configs/ldm.py:embedded`): `:embedded` and
`:embedded_eval`.
"""

from configs import autoencoder, base, ldm

VARIANTS = ("", "eval", "demo", "demo_eval", "embedded", "embedded_eval")


def get_config(arg: str = ""):
    """'' = the paper's guidance classifier, 'eval' = its evaluation classifier;
    'demo[_eval]' and 'embedded[_eval]' = those of the models of these names."""
    if arg not in VARIANTS:
        raise base.unknown_variant("alignment", arg, VARIANTS)
    config = base.base("alignment")
    config.total_steps = 100_000  # the paper gives neither steps nor batch size
    config.batch_size = 256
    config.dtype = "bfloat16"
    config.eval_batches = 8
    config.data.dir = "features"
    config.data.window_frames = 512
    config.data.num_rows = base.frames_in(config, base.window_s(config))  # 32
    config.data.true_share = 0.5
    config.data.shifted_share = 0.25
    config.data.min_shift_s = 1.0
    config.optimizer.lr = 5e-5
    config.optimizer.weight_decay = 0.01
    config.init_from = base.ConfigDict({"autoencoder": "runs/sd:autoencoder"})
    config.loss = base.ConfigDict({"noised": not arg.endswith("eval")})
    config.model = base.ConfigDict(
        {
            "classifier": {
                "in_channels": 4,
                "model_channels": 128,
                "channel_mult": (1, 2, 2),
                "num_res_blocks": 1,
                "attention_downsamples": (2, 4),
                "num_heads": 8,
                "context_dim": 512,
                "depth": 1,
                "locality_bias": False,
            },
            "autoencoder": autoencoder.get_config().model.autoencoder.to_dict(),
            "conditioner": {
                "in_dim": 512,
                "out_dim": 512,
                "max_len": base.frames_in(config, 10.0),  # 40
            },
            "latent_scale": 0.18215,
        }
    )
    if arg.startswith(("demo", "embedded")):
        _demo(config, ldm.get_config(arg.removesuffix("_eval")))
    return config


def _demo(config, guided):
    # the latents and features of the model that it guides
    config.audio.hop = guided.audio.hop
    config.video.fps = guided.video.fps
    config.init_from = guided.init_from
    config.model.autoencoder = guided.model.autoencoder
    config.model.conditioner = guided.model.conditioner
    config.model.conditioner.max_len = base.frames_in(config, 10.0)
    config.data.dir = guided.data.dir
    config.dtype = "float32"
    config.total_steps = 600
    config.batch_size = 32
    config.ema_decay = 0.99
    config.optimizer.lr = 1e-3
    config.optimizer.schedule = "constant_then_linear"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 1.0
    config.checkpoint.every_steps = 200
    config.model.classifier = base.ConfigDict(
        {
            "in_channels": config.model.autoencoder.z_channels,
            "model_channels": 32,
            "channel_mult": (1, 2),
            "num_res_blocks": 1,
            "attention_downsamples": (1, 2),
            "self_attention_downsamples": (),
            "num_groups": 8,
            "num_heads": 4,
            "context_dim": 128,
            "depth": 1,
            "locality_bias": True,
        }
    )
