"""Official checkpoints of MM-Diffusion: names only.

See `interop/spec.py` for the meaning of the fields and `foley_jax/convert.py` for the
engine.
"""

from foley_jax.interop import spec
from foley_jax.layers import configured
from foley_jax.mm_diffusion.models import coupled_unet, super_resolution

Checkpoint = spec.Checkpoint

# the nesting of the blocks is the official one
_RENAMES = (
    (r"(_layers\.0|_out\.0|norm)\.GroupNorm\.", r"\1."),
    (r"^time_embed\.2\.", "time_embed.1."),
    (r"^(video|audio)_out\.0\.", r"\1_norm_out."),
    (r"^(video|audio)_out\.2\.\1_conv\.", r"\1_conv_out."),
    (r"\.(video|audio)_in_layers\.0\.", r".\1_norm1."),
    (r"\.(video|audio)_in_layers\.2\.", r".\1_conv1."),
    (r"\.(video|audio)_out_layers\.0\.", r".\1_norm2."),
    (r"\.(video|audio)_out_layers\.3\.\1_conv\.", r".\1_conv2."),
    (r"\.(video|audio)_skip_connection\.\1_conv\.", r".\1_shortcut."),
    (r"\.video_conv_(spatial|temporal)\.", r".\1."),
    (r"\.audio_(conv1?)\.audio_conv\.", r".audio_\1."),
    (r"\.emb_layers\.1\.", ".time_proj."),
    (r"\.(spatial|temporal|audio)_attention_block\.", r".\1_attention."),
    (r"\.v_(norm|qkv)\.", r".video_\1."),
    (r"\.a_(norm|qkv)\.", r".audio_\1."),
    (r"\.(video|audio)_proj_out\.\1_conv\.", r".\1_proj."),
)
_IMAGE_RENAMES = (
    (r"^time_embed\.2\.", "time_embed.1."),
    (r"^out\.0\.", "norm_out."),
    (r"^out\.2\.", "conv_out."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time_proj."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.skip_connection\.", ".shortcut."),
)
_WRITING = spec.Writing(
    container="",
    kernel_axes=(
        (r".*\.video_(skip_connection|out_layers\.3|proj_out)\.video_conv\.weight", 3),
        (r".*(qkv|attention_block\.proj_out|audio_conv|video_conv_temporal)\.weight", 1),
    ),
    never=(r".*_proj_out\.audio_conv\.audio_conv\..*",),
)
_IMAGE_WRITING = spec.Writing(
    container="",
    kernel_axes=((r".*\.skip_connection\.weight", 2), (r".*\.(qkv|proj_out)\.weight", 1)),
)
_IMAGE_SIGNATURE = (
    r"input_blocks\.0\.0\.weight",
    r"input_blocks\.3\.0\.in_layers\.2\.weight",
    r"middle_block\.1\.qkv\.weight",
    r"out\.2\.weight",
)

KINDS: dict[str, Checkpoint] = {
    # model*.pt and ema_0.9999_*.pt of the base model: a bare state dict
    "mm_diffusion/base": Checkpoint(
        build=coupled_unet.from_config,
        model=configured.defaults(coupled_unet.CoupledUNet),
        stage="mm_diffusion:released",
        renames=_RENAMES,
        signature=(
            r"input_blocks\.0\.0\.video_conv\.video_conv_spatial\.weight",
            r"middle_blocks\.1\.v_qkv\.weight",
            r"audio_out\.2\.audio_conv\.weight",
        ),
        writing=_WRITING,
    ),
    # the same files of the super-resolution model
    "mm_diffusion/super_resolution": Checkpoint(
        build=super_resolution.from_config,
        model=configured.defaults(super_resolution.SuperResolution),
        stage="mm_super_resolution:released",
        renames=_IMAGE_RENAMES,
        signature=_IMAGE_SIGNATURE,
        writing=_IMAGE_WRITING,
    ),
    # what the official super-resolution starts its training from
    "guided_diffusion/upsampler_64_256": Checkpoint(
        build=super_resolution.from_config,
        model=configured.defaults(super_resolution.SuperResolution),
        stage="mm_super_resolution:released",
        renames=_IMAGE_RENAMES,
        ignore=(
            (
                r"label_emb\.weight",
                "embedding of ImageNet's classes; frames of videos have none, and MM-Diffusion "
                "drops it too",
            ),
        ),
        signature=(*_IMAGE_SIGNATURE, r"label_emb\.weight"),
        file_names=("64_256_upsampler.pt", "guided-diffusion_64_256_upsampler.pt"),
    ),
}
