"""Image encoders against transformers' CLIP and ResNet, from the folders that it writes."""

import json

import filled
from flax import nnx
import numpy as np
import pytest
import torch

from foley_jax import convert
from foley_jax.diff_foley.models import image_encoders
from foley_jax.diff_foley.weights import image_weights
from foley_jax.interop import registry

SIZE = 32
CLIP = {
    "hidden_size": 24,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "patch_size": 8,
    "projection_dim": 10,
    "image_size": SIZE,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 2, 1, 1]}


def _seeded(model):
    """Random weights of unit scale, in the place of transformers' very small ones."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or not value.ndim:
                continue
            noise = torch.randn(value.shape, generator=rng)
            if name.endswith("running_var"):
                value.copy_(torch.exp(0.1 * noise))
            elif value.ndim > 1:
                value.copy_(noise * (value[0].numel() ** -0.5))
            else:
                value.copy_(float(name.endswith("weight")) + 0.1 * noise)
    return model.eval()


def _clip(transformers, *, whole):
    """CLIP's image half, saved alone or with the half for text."""
    config = transformers.CLIPVisionConfig(**CLIP)
    half = saved = _seeded(transformers.CLIPVisionModelWithProjection(config))
    if whole:
        text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        sizes = {"text_config": {**text, "vocab_size": 20}, "vision_config": CLIP}
        config = transformers.CLIPConfig(**sizes, projection_dim=CLIP["projection_dim"])
        saved = transformers.CLIPModel(config)
        saved.vision_model.load_state_dict(half.vision_model.state_dict())
        saved.visual_projection.load_state_dict(half.visual_projection.state_dict())
    stats = (image_encoders.CLIP_MEAN, image_encoders.CLIP_STD)
    return "clip/vit_b32", saved, lambda x: half(x).image_embeds, stats


def _resnet(transformers):
    config = transformers.ResNetConfig(**RESNET, num_labels=5)
    model = _seeded(transformers.ResNetForImageClassification(config))
    stats = (image_encoders.IMAGENET_MEAN, image_encoders.IMAGENET_STD)
    features = lambda x: model.resnet(x).pooler_output.flatten(1)  # noqa: E731
    return "torchvision/resnet50", model, features, stats


CASES = {
    "clip": lambda transformers: _clip(transformers, whole=False),
    "whole clip": lambda transformers: _clip(transformers, whole=True),
    "resnet": _resnet,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_folder_of_transformers_is_read_by_its_config(tmp_path, name):
    kind, model, features, (mean, std) = CASES[name](pytest.importorskip("transformers"))
    model.save_pretrained(tmp_path / "folder")
    assert (tmp_path / "folder/config.json").is_file()
    fields = {"image_size": SIZE} if name == "resnet" else {}  # which ResNet's config leaves open
    ours = convert.load_torch(kind, tmp_path / "folder", **fields)
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, SIZE, SIZE, 3), dtype=np.uint8)
    x = (frames.reshape(4, SIZE, SIZE, 3) / 255.0 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        want = features(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    graphdef, state = nnx.split(ours)
    run = filled.jit(lambda state, x: nnx.merge(graphdef, state)(x.astype(np.float32) / 255.0))
    got = np.asarray(run(nnx.to_pure_dict(state), frames)).reshape(4, -1)
    assert got.shape == want.shape and want.std(axis=0).max() > 1e-2
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


def test_the_command_keeps_the_sizes_of_the_config(tmp_path):
    transformers = pytest.importorskip("transformers")
    vision = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**CLIP))
    vision.save_pretrained(tmp_path / "folder")
    assert convert.main(["clip/vit_b32", str(tmp_path / "folder"), str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["model"]["width"] == CLIP["hidden_size"]
    assert config["model"]["num_layers"] == CLIP["num_hidden_layers"]


def test_absent_fields_are_those_of_vit_b32_and_resnet50():
    """As transformers leaves out of a config.json what is its default."""
    clip = image_weights.KINDS["clip/vit_b32"].model
    assert image_weights.clip_fields({}) == {k: v for k, v in clip.items() if k != "encoder"}
    resnet = image_weights.KINDS["torchvision/resnet50"].model
    assert image_weights.resnet_fields({}) == {k: resnet[k] for k in ("depths", "width")}


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        ("clip/vit_b32", {"hidden_act": "gelu"}, "hidden_act 'gelu' .not 'quick_gelu'"),
        ("clip/vit_b32", {"hidden_size": 64}, "intermediate_size 3072 .not 256"),
        ("clip/vit_b32", {"model_type": "siglip"}, "model_type 'siglip'"),
        ("torchvision/resnet50", {"layer_type": "basic"}, "layer_type 'basic'"),
        ("torchvision/resnet50", {"hidden_sizes": [64, 128, 256, 512]}, "hidden_sizes"),
        ("torchvision/resnet50", [], "expected an object"),
    ],
)
def test_configs_of_other_models_are_refused(tmp_path, kind, config, told):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=told):
        registry.fields_of(kind, tmp_path)
