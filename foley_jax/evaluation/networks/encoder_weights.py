"""Checkpoints of Synchformer, PaSST and ImageBind: names only.

See `interop/spec.py` for the fields and `foley_jax/convert.py` for the engine.
"""

import functools
from typing import Any

from foley_jax.evaluation.networks import imagebind, passt, synchformer
from foley_jax.interop import spec
from foley_jax.layers import configured
from foley_jax.mmaudio import synchformer_weights

# Hugging Face's AST -> ours
_AST = (
    (
        r"^afeat_extractor\.ast\.embeddings\.patch_embeddings\.projection\.",
        "afeat_extractor.patches.",
    ),
    (r"^afeat_extractor\.ast\.(embeddings\.|encoder\.)?", "afeat_extractor."),
    (r"^afeat_extractor\.layer\.", "afeat_extractor.layers."),
    (r"^afeat_extractor\.layernorm\.", "afeat_extractor.norm."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
_JOINT = (
    (r"^([av]proj)\.", r"joint.\1."),
    (r"^transformer\.(pos_emb_cfg\.)?", "joint."),
    (r"^(joint\.blocks\.\d+)\.ln(\d)\.", r"\1.norm\2."),
    (r"^(joint\.blocks\.\d+)\.mlp\.0\.", r"\1.mlp.fc1."),
    (r"^(joint\.blocks\.\d+)\.mlp\.2\.", r"\1.mlp.fc2."),
)
_SYNCHFORMER = (*_AST, *_JOINT, *synchformer_weights.VISUAL)
_IMAGEBIND = (
    (r"^modality_(preprocessors|trunks)\.(vision|audio)\.", r"\2.trunk."),
    (r"\.trunk\.pos_embedding_helper\.", ".trunk."),
    (r"^vision\.trunk\.rgbt_stem\.proj\.1\.", "vision.stem."),
    (r"^audio\.trunk\.rgbt_stem\.proj\.", "audio.stem."),
    (r"^audio\.trunk\.rgbt_stem\.norm_layer\.", "audio.stem_norm."),
    (r"\.pre_transformer_layer\.0\.", ".pre_norm."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.norm_(\d)\.", r".norm\1."),
    (r"^modality_heads\.(vision|audio)\.0\.", r"\1.trunk.head_norm."),
    (r"^modality_heads\.(vision|audio)\.2\.", r"\1.trunk.head."),
    (r"^modality_postprocessors\.audio\.1\.", "audio."),
)


def _kind(build: type, **fields: Any) -> spec.Checkpoint:
    return spec.Checkpoint(
        build=functools.partial(configured.build, build),
        model=configured.defaults(build),
        containers=("model", "state_dict"),
        **fields,
    )


def _synchformer(
    build: type, *, own: str = "", others: str = "", signature: tuple[str, ...]
) -> spec.Checkpoint:
    """The whole file, or of it the attribute `own`; `others` match the keys of the rest."""
    ignore = (synchformer_weights.UNUSED_PATCHES,)
    return _kind(
        build,
        renames=(*_SYNCHFORMER, *(((rf"^{own}\.", ""),) if own else ())),
        ignore=(*ignore, *(((others, "another part of Synchformer"),) if others else ())),
        signature=signature,
        file_names=synchformer_weights.FILE_NAMES,
    )


def _imagebind(build: type, own: str = "", *, signature: tuple[str, ...]) -> spec.Checkpoint:
    """Both towers, or that of `own` alone."""
    rest = "text|depth|thermal|imu" + {"": "", "vision": "|audio", "audio": "|vision"}[own]
    why = "texts, depth, heat and motion, which no metric reads" + (
        ", and the other tower" * bool(own)
    )
    return _kind(
        build,
        renames=(*_IMAGEBIND, *(((rf"^{own}\.", ""),) if own else ())),
        ignore=((rf"modality_\w+\.({rest})\..*", why),),
        signature=signature,
        file_names=("imagebind_huge.pth",),
    )


_TOKEN = r"afeat_extractor\.freq_attn_agg\.cls_token"
_TEMPORAL = r"vfeat_extractor\.temp_embed"
_OFFSET = r"transformer\.OFF_tok"
_SCALE = r"modality_postprocessors\.audio\.1\.log_logit_scale"
_LAST_BLOCK = r"modality_trunks\.vision\.blocks\.31\.norm_1\.weight"

KINDS: dict[str, spec.Checkpoint] = {
    # synchformer_state_dict.pth of MMAudio, or 24-01-04T16-39-21.pt of Synchformer
    "synchformer": _synchformer(synchformer.Synchformer, signature=(_TOKEN, _TEMPORAL, _OFFSET)),
    "synchformer/audio": _synchformer(
        synchformer.AudioEncoder,
        own="afeat_extractor",
        others=r"vfeat_extractor\..*|[av]proj\..*|transformer\..*",
        signature=(_TOKEN,),
    ),
    "synchformer/joint": _synchformer(
        synchformer.Joint,
        own="joint",
        others=r"[av]feat_extractor\..*",
        signature=(_OFFSET,),
    ),
    # passt-s-f128-p16-s10-ap.476-swa.pt of PaSST
    "passt": _kind(
        passt.Passt,
        renames=(
            (r"^patch_embed\.proj\.", "patch_embed."),
            (r"^head\.0\.", "head_norm."),
            (r"^head\.1\.", "head."),
        ),
        ignore=((r"head_dist\..*", "the distillation token's classifier, which nobody asks"),),
        signature=(r"time_new_pos_embed", r"freq_new_pos_embed", r"head_dist\.weight"),
        file_names=("passt-s-f128-p16-s10-ap.476-swa.pt",),
    ),
    # imagebind_huge.pth: six modalities, of which two are used
    "imagebind": _imagebind(imagebind.ImageBind, signature=(_LAST_BLOCK, _SCALE)),
    "imagebind/vision": _imagebind(imagebind.Vision, "vision", signature=(_LAST_BLOCK,)),
    "imagebind/audio": _imagebind(imagebind.Audio, "audio", signature=(_SCALE,)),
}
