"""A BigVGAN vocoder of our own 16 kHz mels, in place of Griffin-Lim.

    python -m foley_jax.main --config=configs/vocoder.py --workdir=runs/vocoder
    python -m foley_jax.main --config=configs/vocoder.py:demo --workdir=demo/runs/vocoder

With critics (loss.adversarial_weight above 0) audio clips are sharper and a step takes about three
times as long; start them once the mel loss has settled (loss.adversarial_start). For mels of hop
250, as the demo's, set audio.hop=250 and upsample_rates whose product is 250.
"""

from configs import autoencoder, base


def get_config(arg: str = ""):
    """'' = the sizes and losses of BigVGAN v2; 'demo' = the embedded set, without critics."""
    config = base.base("vocoder")
    config.total_steps = 1_000_000
    config.batch_size = 32
    config.ema_decay = 0.999
    config.optimizer.lr = 1e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 1000
    config.optimizer.b1 = 0.8
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 500.0
    config.loss = base.ConfigDict(
        {
            "crop_frames": 256,
            "mel_weight": 15.0,
            "mel_windows": (32, 64, 128, 256, 512, 1024, 2048),
            "mel_bins": (5, 10, 20, 40, 80, 160, 320),
            "adversarial_weight": 1.0,
            "adversarial_start": 0,
            "feature_weight": 2.0,
        }
    )
    config.model.vocoder = base.ConfigDict(
        {
            "upsample_rates": (4, 4, 2, 2, 2, 2),  # product: the hop
            "upsample_kernel_sizes": (8, 8, 4, 4, 4, 4),
            "upsample_initial_channel": 1536,
            "resblock": "1",
            "resblock_kernel_sizes": (3, 7, 11),
            "resblock_dilation_sizes": ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
            "activation": "snakebeta",
            "snake_logscale": True,
            "use_tanh_at_final": False,
            "use_bias_at_final": False,
        }
    )
    config.model.discriminators = base.ConfigDict(
        {
            "periods": (2, 3, 5, 7, 11),
            "resolutions": ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
            "channels": 32,
        }
    )
    if arg == "demo":
        autoencoder.demo_sizes(config)  # the front end of the demo: hop 250
        del config.model.autoencoder
        config.data.dir = "demo/shards"
        config.total_steps = 600
        config.batch_size = 4
        config.ema_decay = 0.0
        config.optimizer.lr = 2e-3
        config.optimizer.schedule = "constant_then_linear"
        config.optimizer.warmup_steps = 20
        config.optimizer.weight_decay = 0.0
        config.checkpoint.every_steps = 300
        config.loss.crop_frames = 32
        config.loss.adversarial_weight = 0.0
        config.loss.mel_windows = (64, 256, 512, 1024)
        config.loss.mel_bins = (10, 40, 80, 128)
        config.model.vocoder.upsample_rates = (5, 5, 5, 2)
        config.model.vocoder.upsample_kernel_sizes = (11, 11, 11, 4)
        config.model.vocoder.upsample_initial_channel = 64
        config.model.vocoder.resblock_kernel_sizes = (5,)
        config.model.vocoder.resblock_dilation_sizes = ((1, 3),)
    elif arg:
        raise base.unknown_variant("vocoder", arg, ("", "demo"))
    return config
