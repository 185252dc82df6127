"""Public checkpoints of the image encoders that CAVP is compared with: names only."""

import numpy as np

from foley_jax.diff_foley.models import image_encoders
from foley_jax.interop import spec
from foley_jax.layers import configured


def _patches(weight: np.ndarray) -> np.ndarray:
    """Patch convolution [out, 3, p, p] -> dense kernel [p*p*3, out]."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


KINDS = {
    # resnet50-*.pth of torchvision: everything but the classifier
    "torchvision/resnet50": spec.Checkpoint(
        build=image_encoders.from_config,
        model={"encoder": "resnet50", **configured.defaults(image_encoders.ResNet50)},
        renames=(
            (r"^", "body."),
            (r"^body\.conv1\.", "body.conv1.conv."),
            (r"^body\.bn1\.", "body.conv1.bn."),
            (r"(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
            (r"(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
            (r"\.downsample\.0\.", ".downsample.conv."),
            (r"\.downsample\.1\.", ".downsample.bn."),
        ),
        ignore=(r"fc\..*",),
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
    ),
}
