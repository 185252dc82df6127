"""Official checkpoints of Diff-Foley and of what it starts from: names only.

Every kind says how the dotted PyTorch keys become our paths; see `interop/spec.py`
for the meaning of the fields and `foley_jax/convert.py` for the engine.
"""

import functools

from foley_jax.diff_foley.models import (
    alignment,
    audio_encoder,
    cavp,
    latent_diffusion,
    video_encoder,
)
from foley_jax.diff_foley.weights import compvis_ema, diffusers_names
from foley_jax.interop import spec
from foley_jax.layers import configured

Checkpoint = spec.Checkpoint
_CAVP = cavp.default_config()
_LDM = latent_diffusion.default_config()

# CompVis latent diffusion -> ours; the nesting of the blocks is the official one
_BLOCKS = (
    (r"^first_stage_model\.", "autoencoder."),
    (r"^conditioner\.embedder\.0\.", "conditioner.embedder."),
    (r"^(unet|classifier)\.time_embed\.2\.", r"\1.time_embed.1."),
    (r"^(unet|classifier)\.out\.0\.", r"\1.norm_out."),
    (r"^(unet|classifier)\.out\.2\.", r"\1.conv_out."),
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
_LATENT_DIFFUSION = (
    (r"^model\.diffusion_model\.", "unet."),
    (r"^cond_stage_model\.", "conditioner."),
    *_BLOCKS,
)
_ALIGNMENT = (
    (r"^model\.classifier\.", "classifier.head."),
    (r"^model\.", "classifier."),
    (r"^cond_model\.", "conditioner."),
    (r"^scale_factor$", "latent_scale"),
    *_BLOCKS,
)
# (pattern, reason)
_TABLES = (
    (
        r"betas|logvar|lvlb_weights|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?"
        r"|sqrt_recip(m1)?_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12])",
        "table of the noise schedule, derived from the config",
    ),
    (r"model_ema\..*", "averaged copy of the U-Net; --ema takes it in place of the last weights"),
    (r"first_stage_model\.loss\..*", "the autoencoder's training loss"),
)
_SCALE = (r"scale_factor", "scale of the latents, which comes from the config")

# of the single file, or of a diffusers folder
_SD_SIGNATURE = (
    r"(model\.diffusion_model\.input_blocks\.0\.0|unet\.conv_in)\.weight",
    r"(first_stage_model|vae)\.encoder\.conv_in\.weight",
)
# of the official networks, for the way back
_WRITING = spec.Writing(
    kernel_axes=(
        (r".*\.(proj_in|proj_out|skip_connection|nin_shortcut|(post_)?quant_conv)\.weight", 2),
        (r"first_stage_model\..*\.attn_\d+\.(q|k|v)\.weight", 2),
    ),
    never=(
        r"(unet|autoencoder|conditioner|classifier)\..*",
        r"first_stage_model\..*\.(in_layers|out_layers|emb_layers|skip_connection)\..*",
        r"(?!first_stage_model\.).*\.nin_shortcut\..*",
        r".*\.transformer_blocks\..*\.(in|out)_layers\..*",
        r"model\.head\..*",
    ),
)
_ALIGNMENT_SIGNATURE = (r"model\.classifier\.weight", r"cond_model\.pos_emb\.weight")

KINDS: dict[str, Checkpoint] = {
    # cavp_epoch66.ckpt, or the "state_dict" of the official training code: our names are theirs
    "diff_foley/cavp": Checkpoint(
        build=cavp.from_config,
        model=_CAVP,
        stage="cavp",
        signature=(
            r"video_encoder\.conv1\.conv\.weight",
            r"spec_encoder\.bn\.weight",
            r"logit_scale",
        ),
        file_names=("cavp_epoch66.ckpt",),
        writing=spec.Writing(kernel_axes=((r"video_encoder\..*conv\.weight", 3),)),
    ),
    # Cnn14_mAP=0.431.pth and relatives: the convolutions and fc1. PANNs' bn0 has 64 mels and
    # fc_audioset has 527 classes, so `bn` and `final_project` stay at their initialisation.
    "panns/cnn14": Checkpoint(
        build=functools.partial(configured.build, audio_encoder.Cnn14),
        model={**_CAVP["audio"], "embed_dim": _CAVP["embed_dim"]},
        ignore=(
            (r"bn0\..*", "norm over PANNs' 64 mels; ours has 128"),
            (r"fc_audioset\..*", "classes of AudioSet"),
            (r"(spectrogram|logmel)_extractor\..*", "front end; mels are computed elsewhere"),
        ),
        init=(r"bn/.*", r"final_project/.*"),
        signature=(r"conv_block6\.conv2\.weight", r"fc_audioset\.weight"),
        containers=("model", "state_dict"),
    ),
    # mmaction2 slowonly_r50_256p_4x16x1_256e_kinetics400_rgb: the whole backbone, not the head.
    "mmaction/slowonly_r50": Checkpoint(
        build=functools.partial(configured.build, video_encoder.SlowOnly),
        model=_CAVP["video"],
        renames=((r"^backbone\.", ""),),
        ignore=(
            (r"cls_head\..*", "classes of Kinetics"),
            (r"data_preprocessor\..*", "mean and deviation of images; ours are in [0, 1]"),
        ),
        signature=(r"backbone\.conv1\.conv\.weight", r"backbone\.layer4\.2\.conv3\.conv\.weight"),
    ),
    # ldm_epoch240.ckpt: U-Net, autoencoder and conditioner; the latent scale is in no file
    "diff_foley/ldm": Checkpoint(
        build=latent_diffusion.from_config,
        model=_LDM,
        stage="ldm",
        renames=_LATENT_DIFFUSION,
        ignore=(*_TABLES, _SCALE),
        init=(r"latent_scale",),
        signature=(*_SD_SIGNATURE, r"cond_stage_model\.pos_emb\.weight"),
        file_names=("ldm_epoch240.ckpt",),
        writing=_WRITING,
    ),
    # sd-v1-4.ckpt or a diffusers folder: what Diff-Foley starts from. Its text encoder has no
    # place here, and our conditioner starts fresh.
    "stable_diffusion/v1": Checkpoint(
        build=latent_diffusion.from_config,
        model=_LDM,
        stage="ldm",
        renames=_LATENT_DIFFUSION,
        ignore=(
            *_TABLES,
            _SCALE,
            (r"cond_stage_model\..*", "the text encoder, which video features replace"),
        ),
        init=(r"latent_scale", r"conditioner/.*"),
        folders=("unet", "vae"),
        signature=_SD_SIGNATURE,
        averaged=compvis_ema.averaged,
        prepare=diffusers_names.to_compvis,
    ),
    # double_guidance_classifier.ckpt: classifier and conditioner. Training left the autoencoder
    # beside them in some files; guidance works on latents and has no use for it.
    "diff_foley/guidance_classifier": Checkpoint(
        build=alignment.from_config,
        model=alignment.default_config(),
        stage="alignment",
        renames=_ALIGNMENT,
        ignore=(
            *_TABLES,
            _SCALE,
            (r"first_stage_model\..*", "the autoencoder: guidance works on latents"),
        ),
        signature=_ALIGNMENT_SIGNATURE,
        file_names=("double_guidance_classifier.ckpt",),
        writing=_WRITING,
    ),
    # eval_classifier.ckpt: the same networks trained on clean latents, with the autoencoder and
    # the scale of its latents.
    "diff_foley/eval_classifier": Checkpoint(
        build=alignment.from_config,
        model=alignment.default_config(autoencoder=True),
        stage="alignment:eval",
        renames=_ALIGNMENT,
        ignore=_TABLES,
        signature=(*_ALIGNMENT_SIGNATURE, r"first_stage_model\.encoder\.conv_in\.weight"),
        file_names=("eval_classifier.ckpt",),
        writing=_WRITING,
    ),
}
