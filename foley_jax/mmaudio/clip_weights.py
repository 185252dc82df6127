"""CLIP's checkpoint, in open_clip's spelling or that of transformers: names only.

See `interop/spec.py` for the fields and `foley_jax/convert.py` for the engine.
"""

import functools
import re

import numpy as np

from foley_jax.interop import spec
from foley_jax.layers import configured
from foley_jax.mmaudio.models import clip

# transformers' names -> open_clip's; the three layers of an attention are joined before
_OF_TRANSFORMERS = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^text_projection\.weight$", "text_projection"),
)
_QUERY = re.compile(r"(.*)\.self_attn\.q_proj\.(weight|bias)")
_IN_PROJ = "{}.self_attn.{}_proj.{}"


def open_clip_names(state: spec.StateDict) -> spec.StateDict:
    """State dict of transformers' CLIPModel as open_clip has it; another one as it is."""
    if not any(key.startswith("vision_model.") for key in state):
        return state
    renamed: dict[str, np.ndarray] = {}
    joined = dict(state)
    for key in state:
        found = _QUERY.fullmatch(key)
        names = [_IN_PROJ.format(found[1], part, found[2]) for part in "qkv"] if found else []
        if names and all(name in joined for name in names):
            parts = [np.asarray(joined.pop(name)) for name in names]
            joined[f"{found[1]}.attn.in_proj_{found[2]}"] = np.concatenate(parts)
    for key, value in joined.items():
        for pattern, replacement in _OF_TRANSFORMERS:
            key = re.sub(pattern, replacement, key)
        if key == "visual_projection.weight":
            key, value = "visual.proj", np.asarray(value).T
        renamed[key] = value
    return renamed


KINDS: dict[str, spec.Checkpoint] = {
    # apple/DFN5B-CLIP-ViT-H-14-384: open_clip_pytorch_model.bin, or a folder of transformers
    "open_clip/vit_h_14_378": spec.Checkpoint(
        build=functools.partial(configured.build, clip.Clip),
        model=configured.defaults(clip.Clip),
        renames=(
            (r"^visual\.transformer\.", "visual."),
            (r"^transformer\.", "text."),
            (r"^token_embedding\.weight$", "text.token_embedding"),
            (r"^(positional_embedding$|ln_final\.)", r"text.\1"),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
        ignore=(
            (r"text_projection", "MMAudio takes the tokens before it"),
            (r"logit_scale", "of the contrastive loss"),
            (r"(text|vision)_model\.embeddings\.position_ids", "0, 1, 2, ..."),
        ),
        signature=(
            r"visual\.transformer\.resblocks\.31\.ln_1\.weight"
            r"|vision_model\.encoder\.layers\.31\.layer_norm1\.weight",
            r"transformer\.resblocks\.23\.ln_1\.weight"
            r"|text_model\.encoder\.layers\.23\.layer_norm1\.weight",
        ),
        file_names=(
            "open_clip_pytorch_model.bin",
            "open_clip_model.safetensors",
            "model.safetensors",
            "pytorch_model.bin",
        ),
        prepare=open_clip_names,
    ),
}
