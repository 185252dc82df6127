"""Official checkpoints of MMAudio and of the networks it stands on: names only.

See `interop/spec.py` for the meaning of the fields and `foley_jax/convert.py` for the engine.
"""

import functools

import numpy as np

from foley_jax.interop import spec
from foley_jax.layers import configured
from foley_jax.mmaudio.models import flow_network

Checkpoint = spec.Checkpoint


def _apart(array: np.ndarray, count: int = 3) -> np.ndarray:
    """Rows [..., channel, part] as [part, ..., channel], columns of a kernel: q, k, v one by one.

    The official code mixes the parts of every channel: row = channel * 3 + part.
    """
    rows = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    return rows.T  # of a bias: itself


def _flow(name: str) -> Checkpoint:
    fields = flow_network.CONFIGS[name]
    # the second version has an activation between, which takes a number
    mlp = 2 if fields.get("v2") else 1
    return Checkpoint(
        build=functools.partial(configured.build, flow_network.FlowNetwork),
        model={**configured.defaults(flow_network.FlowNetwork), **fields},
        renames=(
            (r"^(\w+)_input_proj\.0\.", r"\1_input_proj.layer."),
            (r"^(audio|sync)_input_proj\.2\.", r"\1_input_proj.mlp."),
            (rf"^(clip|text)_input_proj\.{mlp}\.", r"\1_input_proj.mlp."),
            (r"adaLN_modulation\.1\.", "modulation.linear."),
            (r"^t_embed\.mlp\.0\.", "t_embed.first."),
            (r"^t_embed\.mlp\.2\.", "t_embed.second."),
        ),
        ignore=((r"t_embed\.freqs|latent_rot|clip_rot", "tables, which are made here"),),
        transforms=((r".*\.attn\.qkv\.(weight|bias)", _apart),),
        signature=(
            rf"clip_input_proj\.{mlp}\.w1\.weight",
            r"joint_blocks\.0\.latent_block\.attn\.q_norm\.weight",
            rf"fused_blocks\.{fields.get('fused_depth', 8) - 1}\.ffn\.w1\.weight",
        ),
        file_names=(f"mmaudio_{name}.pth",),
    )


KINDS: dict[str, Checkpoint] = {f"mmaudio/{name}": _flow(name) for name in flow_network.CONFIGS}
