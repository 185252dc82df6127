"""Official checkpoints of Diff-Foley and of what it starts from: names only.

Every kind says how the dotted PyTorch keys become our paths; see `layers/torch_checkpoint.py`
for the meaning of the fields and `foley_jax/convert.py` for the engine.
"""

import functools

from foley_jax.diff_foley import (
    audio_encoder,
    cavp,
    diffusers_names,
    latent_diffusion,
    video_encoder,
)
from foley_jax.layers import configured, torch_checkpoint

Checkpoint = torch_checkpoint.Checkpoint
_CAVP = cavp.default_config()
_LDM = latent_diffusion.default_config()

# CompVis latent diffusion -> ours; the nesting of the blocks is the official one
_LATENT_DIFFUSION = (
    (r"^model\.diffusion_model\.", "unet."),
    (r"^first_stage_model\.", "autoencoder."),
    (r"^cond_stage_model\.", "conditioner."),
    (r"^conditioner\.embedder\.0\.", "conditioner.embedder."),
    (r"^unet\.time_embed\.2\.", "unet.time_embed.1."),
    (r"^unet\.out\.0\.", "unet.norm_out."),
    (r"^unet\.out\.2\.", "unet.conv_out."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time_proj."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.(skip_connection|nin_shortcut)\.", ".shortcut."),
    (r"\.to_out\.0\.", ".to_out."),
    (r"\.ff\.net\.0\.proj\.", ".ff.proj_in."),
    (r"\.ff\.net\.2\.", ".ff.proj_out."),
)
# the noise schedule's tables (derived from the config), EMA copies that the official code drops
# too, and what training kept beside the first stage
_NOT_WEIGHTS = (
    r"betas|logvar|scale_factor|lvlb_weights|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?",
    r"sqrt_recip(m1)?_alphas_cumprod",
    r"posterior_(variance|log_variance_clipped|mean_coef[12])",
    r"model_ema\..*",
    r"first_stage_model\.loss\..*",
)

KINDS: dict[str, Checkpoint] = {
    # cavp_epoch66.ckpt, or the "state_dict" of the official training code: our names are theirs
    "diff_foley/cavp": Checkpoint(build=cavp.from_config, model=_CAVP, stage="cavp"),
    # Cnn14_mAP=0.431.pth and relatives: the convolutions and fc1. PANNs' bn0 has 64 mels and
    # fc_audioset has 527 classes, so `bn` and `final_project` stay at their initialisation.
    "panns/cnn14": Checkpoint(
        build=functools.partial(configured.build, audio_encoder.Cnn14),
        model={**_CAVP["audio"], "embed_dim": _CAVP["embed_dim"]},
        ignore=(
            r"bn0\..*",
            r"fc_audioset\..*",
            r"spectrogram_extractor\..*",
            r"logmel_extractor\..*",
        ),
        init=(r"bn/.*", r"final_project/.*"),
        containers=("model", "state_dict"),
    ),
    # mmaction2 slowonly_r50_256p_4x16x1_256e_kinetics400_rgb: the whole backbone, not the head.
    "mmaction/slowonly_r50": Checkpoint(
        build=functools.partial(configured.build, video_encoder.SlowOnly),
        model=_CAVP["video"],
        renames=((r"^backbone\.", ""),),
        ignore=(r"cls_head\..*", r"data_preprocessor\..*"),
    ),
    # ldm_epoch240.ckpt: U-Net, autoencoder and conditioner; the latent scale is in no file
    "diff_foley/ldm": Checkpoint(
        build=latent_diffusion.from_config,
        model=_LDM,
        stage="ldm",
        renames=_LATENT_DIFFUSION,
        ignore=_NOT_WEIGHTS,
        init=(r"latent_scale",),
    ),
    # sd-v1-4.ckpt or a diffusers folder: what Diff-Foley starts from. Its text encoder has no
    # place here, and our conditioner starts fresh.
    "stable_diffusion/v1": Checkpoint(
        build=latent_diffusion.from_config,
        model=_LDM,
        stage="ldm",
        renames=_LATENT_DIFFUSION,
        ignore=(*_NOT_WEIGHTS, r"cond_stage_model\..*"),
        init=(r"latent_scale", r"conditioner/.*"),
        folders=("unet", "vae"),
        prepare=diffusers_names.to_compvis,
    ),
}
