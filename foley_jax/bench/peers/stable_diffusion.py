"""Stable Diffusion's U-Net and autoencoder as diffusers writes them, with our weights.

diffusers computes attention by torch's `scaled_dot_product_attention`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from foley_jax.bench.peers import torch_side
from foley_jax.diff_foley.weights import diffusers_names


def absent() -> str:
    """Why there can be no such peer; "" if there can."""
    reason = torch_side.absent()
    if reason:
        return reason
    try:
        import diffusers
    except ImportError:
        return "diffusers is not installed (`pip install 'foley_jax[bench]'`): no such peers"
    diffusers.utils.logging.set_verbosity_error()  # it warns of every change of dtype
    return ""


def _part(
    module: Any, state: Mapping[str, np.ndarray], prefix: str, rename: Any
) -> dict[str, np.ndarray]:
    """The module's own names -> arrays of the official state dict."""
    return {key: state[prefix + rename(key)] for key in module.state_dict()}


def _levels(config: Mapping[str, Any], plain: str, attended: str) -> tuple[list[str], list[str]]:
    """Names of the blocks on the way down and up."""
    wanted = config["attention_downsamples"]
    has = [2**i in wanted for i in range(len(config["channel_mult"]))]
    down = [(attended if h else plain).format("Down") for h in has]
    up = [(attended if h else plain).format("Up") for h in reversed(has)]
    return down, up


def unet(
    state: Mapping[str, np.ndarray], config: Mapping[str, Any], *, ours: str = "float32"
) -> Any:
    """diffusers' `UNet2DConditionModel`.

    Args:
      state: official state dict (CompVis names) with "model.diffusion_model." in front.
      config: fields of `unet.UNet`; what diffusers lacks must be absent or off.
      ours: dtype of our computation.
    Raises:
      ValueError: a field that diffusers' network does not have.
    """
    for name in ("locality_bias", "self_attention_downsamples"):
        if config.get(name):
            raise ValueError(f"diffusers' U-Net knows no {name}; there is no peer of this network")
    import diffusers
    import torch

    down, up = _levels(config, "{}Block2D", "CrossAttn{}Block2D")
    with torch.device("meta"):
        module = diffusers.UNet2DConditionModel(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            block_out_channels=[m * config["model_channels"] for m in config["channel_mult"]],
            layers_per_block=config["num_res_blocks"],
            cross_attention_dim=config["context_dim"],
            attention_head_dim=config["num_heads"],  # diffusers' name of SD v1's number of heads
            norm_num_groups=config.get("num_groups", 32),
            down_block_types=down,
            up_block_types=up,
        )
    own = _part(module, state, "model.diffusion_model.", diffusers_names.unet_name)
    return torch_side.fill(module, own, ours=ours)


def autoencoder(
    state: Mapping[str, np.ndarray], config: Mapping[str, Any], *, ours: str = "float32"
) -> Any:
    """diffusers' `AutoencoderKL`.

    Args:
      state: official state dict (CompVis names) with "first_stage_model." in front.
      config: fields of `autoencoder.AutoencoderKL`, without patches.
      ours: dtype of our computation.
    Raises:
      ValueError: a field that diffusers' network does not have.
    """
    if tuple(config.get("patch", (1, 1))) != (1, 1) or not config.get("attention", True):
        raise ValueError("diffusers' autoencoder has attention and no patches; there is no peer")
    import diffusers
    import torch

    count = len(config["ch_mult"])
    with torch.device("meta"):
        module = diffusers.AutoencoderKL(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            latent_channels=config["z_channels"],
            block_out_channels=[m * config["ch"] for m in config["ch_mult"]],
            layers_per_block=config["num_res_blocks"],
            norm_num_groups=config.get("num_groups", 32),
            down_block_types=["DownEncoderBlock2D"] * count,
            up_block_types=["UpDecoderBlock2D"] * count,
        )
    own = _part(module, state, "first_stage_model.", diffusers_names.vae_name)
    for key, value in own.items():
        if ".attentions." in key and value.ndim == 4:
            own[key] = value[:, :, 0, 0]  # 1x1 convolutions are dense layers there
    return torch_side.fill(module, own, ours=ours)


def conditioner(state: Mapping[str, np.ndarray], prefix: str, *, ours: str = "float32") -> Any:
    """Diff-Foley's conditioner: a module from features [B, L, D] to context features.

    Args:
      state: official state dict.
      prefix: "cond_stage_model." of latent diffusion, "cond_model." of the classifiers.
    """
    import torch

    class Conditioner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            out_dim, in_dim = state[prefix + "embedder.0.weight"].shape
            self.embedder = torch.nn.Sequential(torch.nn.Linear(in_dim, out_dim))
            self.pos_emb = torch.nn.Embedding(*state[prefix + "pos_emb.weight"].shape)

        def forward(self, features_BLD):
            return self.embedder(features_BLD) + self.pos_emb.weight[: features_BLD.shape[1]]

    with torch.device("meta"):
        module = Conditioner()
    own = {key: state[prefix + key] for key in module.state_dict()}
    return torch_side.fill(module, own, ours=ours)


def alignment(
    state: Mapping[str, np.ndarray], config: Mapping[str, Any], *, ours: str = "float32"
) -> Any:
    """The guidance classifier, of diffusers' blocks: (latents, times, raw features) -> logits [B].

    Args:
      state: official state dict of the classifier.
      config: its `config.model`.
    """
    import diffusers
    import torch

    fields = config["classifier"]
    down, up = _levels(fields, "{}Block2D", "CrossAttn{}Block2D")
    width = fields["channel_mult"][-1] * fields["model_channels"]
    pooled = state["model.classifier.weight"].shape[1]

    class Alignment(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = diffusers.UNet2DConditionModel(
                in_channels=fields["in_channels"],
                block_out_channels=[m * fields["model_channels"] for m in fields["channel_mult"]],
                layers_per_block=fields["num_res_blocks"],
                cross_attention_dim=fields["context_dim"],
                attention_head_dim=fields["num_heads"],
                norm_num_groups=fields.get("num_groups", 32),
                down_block_types=down,
                up_block_types=up,
            )
            del self.unet.up_blocks
            self.unet.conv_norm_out = torch.nn.GroupNorm(fields.get("num_groups", 32), width)
            self.unet.conv_out = torch.nn.Conv2d(width, pooled, 3, padding=1)
            self.head = torch.nn.Linear(pooled, 1)

        def forward(self, x, t_B, features_BLD):
            unet, context = self.unet, embed(features_BLD)
            time = unet.time_embedding(unet.time_proj(t_B).to(x.dtype))
            h = unet.conv_in(x)
            for block in unet.down_blocks:
                attends = getattr(block, "has_cross_attention", False)
                h, _ = block(h, time, **({"encoder_hidden_states": context} if attends else {}))
            h = unet.mid_block(h, time, encoder_hidden_states=context)
            h = unet.conv_out(torch.nn.functional.silu(unet.conv_norm_out(h)))
            return self.head(h.mean((2, 3)))[:, 0]

    embed = conditioner(state, "cond_model.", ours=ours)
    with torch.device("meta"):
        module = Alignment()

    def name(key: str) -> str:
        if key.startswith("head."):
            return "classifier." + key.removeprefix("head.")
        blocks = fields["num_res_blocks"]
        return diffusers_names.unet_name(key.removeprefix("unet."), blocks_per_level=blocks)

    return torch_side.fill(module, _part(module, state, "model.", name), ours=ours)
