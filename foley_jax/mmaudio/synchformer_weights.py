"""Synchformer's checkpoint, of which MMAudio uses the visual encoder: names only.

See `interop/spec.py` for the fields and `foley_jax/convert.py` for the engine.
"""

import functools

from foley_jax.interop import spec
from foley_jax.layers import configured
from foley_jax.mmaudio.models import synchformer

FILE_NAMES = ("synchformer_state_dict.pth", "24-01-04T16-39-21.pt")
UNUSED_PATCHES = (
    r"(vfeat_extractor\.)?patch_embed\.proj\..*",
    "patches of single images, which the video encoder does not use",
)
# torch's TransformerEncoderLayer -> ours
AGGREGATOR = (
    (r"_attn_agg\.(norm\d)\.", r"_attn_agg.block.\1."),
    (r"_attn_agg\.self_attn\.in_proj_", r"_attn_agg.block.attn.qkv."),
    (r"_attn_agg\.self_attn\.out_proj\.", r"_attn_agg.block.attn.proj."),
    (r"_attn_agg\.linear(\d)\.", r"_attn_agg.block.mlp.fc\1."),
)
VISUAL = (*AGGREGATOR, (r"patch_embed_3d\.proj\.", "patch_embed_3d."))

KINDS: dict[str, spec.Checkpoint] = {
    # synchformer_state_dict.pth of MMAudio: the visual encoder, of the whole or alone
    "synchformer/visual": spec.Checkpoint(
        build=functools.partial(configured.build, synchformer.VisualEncoder),
        model=configured.defaults(synchformer.VisualEncoder),
        strip=("vfeat_extractor.",),
        renames=VISUAL,
        ignore=(
            UNUSED_PATCHES,
            (
                r"afeat_extractor\..*|[av]proj\..*|transformer\..*",
                "Synchformer's audio encoder and joint transformer (kind synchformer)",
            ),
        ),
        containers=("model", "state_dict"),
        signature=(r"blocks\.11\.timeattn\.qkv\.weight", r"temp_embed"),
        file_names=FILE_NAMES,
    ),
}
