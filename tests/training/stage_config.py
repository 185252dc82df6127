"""Every stage in small, on records of noise: `stage_config.py:STAGE,FOLDER`."""

import importlib

import tiny

BATCH, STEPS = 8, 5
AUDIO = {"hop": 250, "num_mels": 8, "n_fft": 512, "fmin_hz": 0.0}  # 64 mel frames are one second
WINDOW = {"window_frames": 64, "num_rows": 4}
LATENT = {"autoencoder": tiny.MEL_AUTOENCODER, "conditioner": tiny.CONDITIONER, "latent_scale": 0.7}
OFFICIAL_SIZES = {"video_patch": 1, "audio_patch": 1, "num_frames": 4, "channel_mult": (1,)}
MODELS = {
    "cavp": {
        "embed_dim": 6,
        "video": {"depths": (1,), "width": 4, "inflate": (True,), "stem": "patch4"},
        "audio": {"channels": (4, 4, 4, 4, 8), "stem": "patch4", "num_mels": 64, "dropout": 0.1},
    },
    "autoencoder": {
        "autoencoder": tiny.MEL_AUTOENCODER,
        "latent_scale": 1.0,
        "discriminator": {"channels": 4, "num_layers": 1, "num_groups": 2},
    },
    "ldm": {"unet": {**tiny.TRUNK, "num_res_blocks": 1, "locality_bias": True}, **LATENT},
    "alignment": {"classifier": {**tiny.TRUNK, "locality_bias": True}, **LATENT},
    "vocoder": {
        "vocoder": {
            "upsample_rates": (10, 25),
            "upsample_kernel_sizes": (20, 51),
            "upsample_initial_channel": 8,
            "resblock_kernel_sizes": (3,),
            "resblock_dilation_sizes": ((1,),),
        },
        "discriminators": {"periods": (2,), "resolutions": ((64, 16, 40),), "channels": 2},
    },
    "mm_diffusion": {
        **OFFICIAL_SIZES,
        "model_channels": 32,
        "num_res_blocks": 1,
        "cross_attention_downsamples": (1,),
        "cross_attention_windows": (2,),
        "video_attention_downsamples": (),
        "dropout": 0.1,
        "head_channels": 16,
    },
    "mm_super_resolution": {
        "model_channels": 32,
        "channel_mult": (1,),
        "num_res_blocks": 1,
        "attention_downsamples": (),
    },
}
DATA = {
    "cavp": {"num_clips": 2, "clip_frames": 4, "min_gap_frames": 2},
    "ldm": {**WINDOW, "merge_probability": 0.5, "aligned": True},
    "alignment": {**WINDOW, "true_share": 0.5, "shifted_share": 0.25, "min_shift_s": 1.0},
    "mm_diffusion": {"num_frames": 4},
    "mm_super_resolution": {"degradation": {"height": 4, "width": 4, "preset": "default"}},
}
LOSS = {
    "autoencoder": {"crop_frames": 32, "adversarial_weight": 0.5, "adversarial_start": 2},
    "vocoder": {
        "crop_frames": 16,
        "mel_windows": (64, 256),
        "mel_bins": (5, 20),
        "adversarial_start": 2,
    },
}


def sets(stage):
    """Which set of records a stage reads: frames per second, height and width, rate of audio."""
    if stage.startswith("mm"):
        return 10.0, 16 if stage.endswith("resolution") else 8, 80
    return 4.0, 8, 16000


def get_config(arg: str):
    """The stage's own config with its networks and data made small."""
    stage, _, folder = arg.partition(",")
    config = importlib.import_module(f"configs.{stage}").get_config("demo")
    config.update(total_steps=STEPS, batch_size=BATCH, log_every=1, eval_batches=0, eval_clips=0)
    config.ema_decay = 0.9
    config.init_from = {}
    config.data.dir = folder
    config.data.read_threads = 2
    config.checkpoint.every_steps = 1000
    with config.unlocked():
        config.model = MODELS[stage]
        config.data.update(DATA.get(stage, {}))
        config.loss.update(LOSS.get(stage, {}))
        fps, side, rate = sets(stage)
        config.video.update(fps=fps, height=side, width=side)
        if stage.startswith("mm"):
            config.audio.sample_rate_hz = rate
        else:
            config.audio.update({**AUDIO, **({"num_mels": 64} if stage == "cavp" else {})})
    return config
