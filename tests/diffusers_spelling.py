"""CompVis tensor names in the words of a diffusers folder: the way back from `diffusers_names`.

Written from the published folders' names, not from the code under test.
"""

import re

OLD_ATTENTION = {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"}
NEW_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def unet(name):
    """`input_blocks.4.1.proj_in.weight` -> `down_blocks.1.attentions.0.proj_in.weight`."""
    for compvis, diffusers in _UNET_ENDS.items():
        if name.startswith(compvis + "."):
            return diffusers + name.removeprefix(compvis)
    side, index, rest = re.fullmatch(r"(input|middle|output)_blocks?\.(\d+)\.(.*)", name).groups()
    index = int(index)
    if side == "middle":
        place = {0: "resnets.0", 1: "attentions.0", 2: "resnets.1"}[index]
        return f"mid_block.{place}.{_resnet(rest)}"
    part, rest = rest.split(".", 1)
    if side == "input":
        level, block = divmod(index - 1, 3)  # two blocks and a downsampler
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        return f"down_blocks.{level}.{_kind(rest)}.{block}.{_resnet(rest)}"
    level, block = divmod(index, 3)  # three blocks, the last also with the upsampler
    if rest.startswith("conv."):
        assert block == 2 and part in "12"
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    return f"up_blocks.{level}.{_kind(rest)}.{block}.{_resnet(rest)}"


def _kind(rest):
    return "resnets" if rest.split(".")[0] in {k.split(".")[0] for k in _RESNET} else "attentions"


def _resnet(rest):
    for compvis, diffusers in _RESNET.items():
        if rest.startswith(compvis + "."):
            return diffusers + rest.removeprefix(compvis)
    return rest


def vae(name, attention):
    """`decoder.up.3.block.0.norm1.weight` -> `decoder.up_blocks.0.resnets.0.norm1.weight`."""
    name = name.replace("nin_shortcut", "conv_shortcut").replace(".norm_out.", ".conv_norm_out.")
    name = re.sub(r"down\.(\d)\.block", r"down_blocks.\1.resnets", name)
    name = re.sub(r"down\.(\d)\.downsample", r"down_blocks.\1.downsamplers.0", name)
    up = lambda match: f"up_blocks.{3 - int(match[1])}."  # noqa: E731
    name = re.sub(r"\bup\.(\d)\.", up, name)
    name = re.sub(r"(up_blocks\.\d)\.block", r"\1.resnets", name)
    name = name.replace(".upsample.", ".upsamplers.0.")
    name = re.sub(r"mid\.block_([12])", lambda m: f"mid_block.resnets.{int(m[1]) - 1}", name)
    match = re.fullmatch(r"(.*)\.mid\.attn_1\.(\w+)\.(\w+)", name)
    if match:
        part = "group_norm" if match[2] == "norm" else attention[match[2]]
        name = f"{match[1]}.mid_block.attentions.0.{part}.{match[3]}"
    return name


def folder(state, attention):
    """{"unet.NAME" | "vae.NAME": tensor} of a CompVis state dict; the VAE attends by matrices."""
    found = {}
    for key, value in state.items():
        if key.startswith("model.diffusion_model."):
            found["unet." + unet(key.removeprefix("model.diffusion_model."))] = value
        elif key.startswith("first_stage_model."):
            name = vae(key.removeprefix("first_stage_model."), attention)
            if "attentions" in name and value.ndim == 4:
                value = value[:, :, 0, 0]
            found["vae." + name] = value
    return found
