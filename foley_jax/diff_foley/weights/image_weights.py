"""Public checkpoints of the image encoders that CAVP is compared with: names, and HF's configs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from foley_jax.diff_foley.models import image_encoders
from foley_jax.interop import spec
from foley_jax.layers import configured


def _patches(weight: np.ndarray) -> np.ndarray:
    """Patch convolution [out, 3, p, p] -> dense kernel [p*p*3, out]."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _check(config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses a config.json whose fields, where it has them, are not the expected ones."""
    if wrong := {k: config[k] for k, v in expected.items() if k in config and config[k] != v}:
        told = ", ".join(f"{k} {value!r} (not {expected[k]!r})" for k, value in wrong.items())
        raise ValueError(f"this module cannot be a model of {told}")


def clip_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ClipImage` for a config.json of transformers.

    Args:
      config: of `CLIPModel` or of `CLIPVisionModelWithProjection`; an absent field has its default.
    Raises:
      ValueError: another model, activation, epsilon, or width of the MLP.
    Source: transformers `CLIPConfig`, `CLIPVisionConfig`.
    """
    whole = "vision_config" in config
    _check(config, {"model_type": "clip" if whole else "clip_vision_model"})
    vision = config["vision_config"] if whole else config
    width = vision.get("hidden_size", 768)
    expected = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3}
    _check({"intermediate_size": 3072, **vision}, {**expected, "intermediate_size": 4 * width})
    return {
        "width": width,
        "num_layers": vision.get("num_hidden_layers", 12),
        "num_heads": vision.get("num_attention_heads", 12),
        "patch": vision.get("patch_size", 32),
        "embed_dim": (config if whole else vision).get("projection_dim", 512),
        "image_size": vision.get("image_size", 224),
    }


def resnet_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ResNet50` for a config.json of transformers' ResNet.

    Args:
      config: of `ResNetForImageClassification` or `ResNetModel`; an absent field has its default.
    Raises:
      ValueError: another model, or another kind of blocks.
    Source: transformers `ResNetConfig`.
    """
    width = config.get("embedding_size", 64)
    depths = tuple(config.get("depths", (3, 4, 6, 3)))
    expected = {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "num_channels": 3,
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "hidden_sizes": [4 * width * 2**i for i in range(len(depths))],
    }
    _check({"hidden_sizes": [256, 512, 1024, 2048], **config}, expected)
    return {"depths": depths, "width": width}


# transformers' names of a ResNet -> torchvision's
_RESNET_OF_TRANSFORMERS = (
    (r"^(resnet\.)?embedder\.embedder\.convolution\.", "conv1."),
    (r"^(resnet\.)?embedder\.embedder\.normalization\.", "bn1."),
    *((rf"^(resnet\.)?encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)

KINDS = {
    # resnet50-*.pth of torchvision, or a folder of microsoft/resnet-50: all but the classifier
    "torchvision/resnet50": spec.Checkpoint(
        build=image_encoders.from_config,
        model={"encoder": "resnet50", **configured.defaults(image_encoders.ResNet50)},
        renames=(
            *_RESNET_OF_TRANSFORMERS,
            (r"^", "body."),
            (r"^body\.conv1\.", "body.conv1.conv."),
            (r"^body\.bn1\.", "body.conv1.bn."),
            (r"(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
            (r"(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
            (r"\.downsample\.0\.", ".downsample.conv."),
            (r"\.downsample\.1\.", ".downsample.bn."),
        ),
        ignore=(r"(fc|classifier)\..*",),
        configure=resnet_fields,
    ),
    # openai/clip-vit-base-patch32 as Hugging Face stores it: the image half
    "clip/vit_b32": spec.Checkpoint(
        build=image_encoders.from_config,
        model={"encoder": "clip", **configured.defaults(image_encoders.ClipImage)},
        renames=(
            (r"^vision_model\.embeddings\.position_embedding\.weight$", "position_embedding"),
            (r"^vision_model\.(embeddings|encoder)\.", ""),
            (r"^vision_model\.pre_layrnorm\.", "pre_norm."),  # their spelling
            (r"^vision_model\.post_layernorm\.", "post_norm."),
            (r"^visual_projection\.", "projection."),
            (r"\.(self_attn|mlp)\.", "."),
        ),
        ignore=(r"text_model\..*", r"text_projection\.weight", r"logit_scale", r".*position_ids"),
        transforms=((r"patch_embedding\.weight", _patches),),
        configure=clip_fields,
    ),
}
