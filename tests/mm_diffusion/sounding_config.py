"""A coupled model small enough for tests: 4 frames of 8x8 at 10 fps, 8 kHz."""

import ml_collections

from configs import mm_diffusion, mm_super_resolution


def tiny(**loss: str) -> ml_collections.ConfigDict:
    """The demo's config, made small; `loss` changes its loss fields."""
    config = mm_diffusion.get_config("demo")
    config.data.num_frames = 4
    config.video.height = config.video.width = 8
    config.loss.update(loss)
    config.model.update(
        {
            "num_frames": 4,
            "video_patch": 2,
            "model_channels": 32,
            "channel_mult": (1,),
            "num_res_blocks": 0,
            "cross_attention_downsamples": (1,),
            "cross_attention_windows": (2,),
            "video_attention_downsamples": (),
        }
    )
    return config


def tiny_upscaler() -> ml_collections.ConfigDict:
    """8x8 -> 16x16."""
    config = mm_super_resolution.get_config("demo")
    config.video.height = config.video.width = 16
    config.data.degradation.height = config.data.degradation.width = 8
    config.model.update({"channel_mult": (1,), "num_res_blocks": 1})
    return config
