"""ResNet-50 and CLIP's image tower against torch modules with seeded weights."""

import filled
from flax import nnx
import numpy as np
import pytest
import torch
from torch import nn

from foley_jax.diff_foley.models import image_encoders
from foley_jax.diff_foley.weights import image_weights
from foley_jax.interop import fill, registry


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    monkeypatch.setattr(registry, "kinds", lambda: dict(image_weights.KINDS))


class _Bottleneck(nn.Module):
    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        if downsample:
            conv = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class _ResNet(nn.Module):
    """torchvision's layout and names."""

    def __init__(self, depths, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.num, channels = len(depths), width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(_Bottleneck(channels, width * 2**i, stride, not j))
                channels = 4 * width * 2**i
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for i in range(self.num):
            x = getattr(self, f"layer{i + 1}")(x)
        return x.mean((2, 3))


class _Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class _Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in ("q", "k", "v", "out"):
            setattr(self, f"{name}_proj", nn.Linear(width, width))


class _Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attn, self.mlp, self.heads = _Attention(width), _Mlp(width), heads
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        a, h = self.self_attn, self.layer_norm1(x)
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        y = nn.functional.scaled_dot_product_attention(
            split(a.q_proj(h)), split(a.k_proj(h)), split(a.v_proj(h))
        )
        x = x + a.out_proj(y.transpose(1, 2).flatten(2))
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))


class _Clip(nn.Module):
    """The image half in Hugging Face's layout and names."""

    def __init__(self, width, layers, heads, patch, embed, size):
        super().__init__()
        vision = self.vision_model = nn.Module()
        vision.embeddings = nn.Module()
        vision.embeddings.class_embedding = nn.Parameter(torch.randn(width))
        vision.embeddings.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        vision.embeddings.position_embedding = nn.Embedding((size // patch) ** 2 + 1, width)
        vision.pre_layrnorm, vision.post_layernorm = nn.LayerNorm(width), nn.LayerNorm(width)
        vision.encoder = nn.Module()
        vision.encoder.layers = nn.ModuleList([_Layer(width, heads) for _ in range(layers)])
        self.visual_projection = nn.Linear(width, embed, bias=False)
        self.logit_scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        vision, places = self.vision_model, self.vision_model.embeddings
        x = places.patch_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([places.class_embedding.expand(len(x), 1, -1), x], 1)
        x = vision.pre_layrnorm(x + places.position_embedding.weight)
        for layer in vision.encoder.layers:
            x = layer(x)
        return self.visual_projection(vision.post_layernorm(x[:, 0]))


CASES = {
    "torchvision/resnet50": (
        lambda: _ResNet((2, 1), 4),
        {"depths": (2, 1), "width": 4, "image_size": 32},
        (image_encoders.IMAGENET_MEAN, image_encoders.IMAGENET_STD),
    ),
    "clip/vit_b32": (
        lambda: _Clip(12, 2, 3, 8, 6, 32),
        {
            "width": 12,
            "num_layers": 2,
            "num_heads": 3,
            "patch": 8,
            "embed_dim": 6,
            "image_size": 32,
        },
        (image_encoders.CLIP_MEAN, image_encoders.CLIP_STD),
    ),
}


def _torch(kind):
    torch.manual_seed(0)
    model = CASES[kind][0]().eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point() and value.ndim == 1:
                value.normal_(0.5, 0.3)
    return model


@pytest.mark.parametrize("kind", CASES)
def test_converted_rows_match_torch(kind):
    reference, (_, fields, (mean, std)) = _torch(kind), CASES[kind]
    state = {key: value.detach().numpy() for key, value in reference.state_dict().items()}
    model = registry.from_state_dict(kind, state, **fields)
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    x = (frames.reshape(6, 32, 32, 3) / 255.0 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        want = reference(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    want = want.reshape(2, 3, -1)
    graphdef, state = nnx.split(model)
    run = filled.jit(lambda state, x: image_encoders.encode_frames(nnx.merge(graphdef, state), x))
    got = np.asarray(run(nnx.to_pure_dict(state), frames))
    want = want / np.linalg.norm(want, axis=-1, keepdims=True)
    assert want.std(axis=(0, 1)).max() > 1e-3  # features differ between frames
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_conversion_is_strict(kind):
    state = {key: value.detach().numpy() for key, value in _torch(kind).state_dict().items()}
    dropped = next(key for key in state if "conv1.weight" in key or "q_proj.bias" in key)
    del state[dropped]
    state["stranger.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(fill.ConversionError, match="stranger.weight"):
        registry.from_state_dict(kind, state, **CASES[kind][1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'vgg', expected one of clip, resnet50"):
        image_encoders.from_config({"encoder": "vgg"}, rngs=nnx.Rngs(0))
    fields = CASES["clip/vit_b32"][1]
    model = filled.module(lambda keys: image_encoders.ClipImage(**fields, rngs=keys))
    with pytest.raises(ValueError, match="images of 16x16, expected 32x32"):
        model(np.zeros((1, 1, 16, 16, 3), np.float32))
