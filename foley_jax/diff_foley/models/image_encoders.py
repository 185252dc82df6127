"""Image encoders that CAVP is compared with: ResNet-50 (ImageNet) and CLIP's ViT, by frame.

B batch, T frames, N = B*T, H W, C channels, P patches, D width.
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.diff_foley.models import video_encoder
from foley_jax.kernels import dispatch, patches
from foley_jax.layers import configured, dense, norm
from foley_jax.runtime import partition

# per channel, of RGB in [0, 1]; torchvision and OpenAI CLIP preprocessing
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _standardise(x: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    shape = (1,) * (x.ndim - 1) + (3,)
    return (x - jnp.asarray(mean).reshape(shape)) / jnp.asarray(std).reshape(shape)


class ResNet50(nnx.Module):
    """torchvision's resnet50 up to its pooled 2048 numbers; depths and width for tests.

    It is CAVP's image encoder without the convolutions over time.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        image_size: int = 224,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.body = video_encoder.SlowOnly(
            depths, width, (False,) * len(depths), dtype=dtype, rngs=rngs
        )
        self.image_size = image_size

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """RGB in [0, 1], float [B, T, H, W, 3] -> [B, T, D]."""
        return self.body(_standardise(x_BTHWC, IMAGENET_MEAN, IMAGENET_STD), train=False)


class ClipBlock(nnx.Module):
    """Pre-norm attention and MLP with the sigmoid GELU. Source: HF `CLIPEncoderLayer`."""

    def __init__(self, width: int, num_heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        build = {"dtype": dtype, "rngs": rngs}
        self.layer_norm1 = norm.layer_norm(width, **build)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            dense.dense(width, width, **build) for _ in range(4)
        )
        self.layer_norm2 = norm.layer_norm(width, **build)
        self.fc1 = dense.dense(width, 4 * width, **build)
        self.fc2 = dense.dense(4 * width, width, **build)
        self.num_heads = num_heads

    def __call__(self, x_NPD: jax.Array) -> jax.Array:
        """[N, P, D] -> [N, P, D]."""
        h = self.layer_norm1(x_NPD)
        # [N, P, heads*d] -> [N, P, heads, d]
        q, k, v = (
            proj(h).reshape(*h.shape[:2], self.num_heads, -1)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        x_NPD = x_NPD + self.out_proj(dispatch.attention(q, k, v).reshape(h.shape))
        h = self.fc1(self.layer_norm2(x_NPD))
        return x_NPD + self.fc2(h * jax.nn.sigmoid(1.702 * h))


class ClipImage(nnx.Module):
    """CLIP's image tower with its projection, ViT-B/32 by default.

    Source: OpenAI CLIP `VisionTransformer`; names of HF `CLIPVisionModelWithProjection`.
    """

    def __init__(
        self,
        *,
        width: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        patch: int = 32,
        embed_dim: int = 512,
        image_size: int = 224,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if image_size % patch or width % num_heads:
            raise ValueError(
                f"image_size {image_size} and patch {patch}, width {width} and num_heads "
                f"{num_heads}: expected whole patches and whole heads"
            )
        build = {"dtype": dtype, "rngs": rngs}
        places = (image_size // patch) ** 2 + 1
        self.patch_embedding = dense.dense(3 * patch * patch, width, use_bias=False, **build)
        init = jax.nn.initializers.normal(width**-0.5)
        self.class_embedding = nnx.Param(init(rngs.params(), (width,)))
        self.position_embedding = nnx.Param(init(rngs.params(), (places, width)))
        self.pre_norm = norm.layer_norm(width, **build)
        self.layers = nnx.List([ClipBlock(width, num_heads, **build) for _ in range(num_layers)])
        self.post_norm = norm.layer_norm(width, **build)
        self.projection = dense.dense(width, embed_dim, use_bias=False, **build)
        self.patch, self.image_size, self.dtype = patch, image_size, dtype

    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        """RGB in [0, 1], float [B, T, H, W, 3], H = W = image_size -> [B, T, embed_dim]."""
        b, t, h, w, _ = x_BTHWC.shape
        if (h, w) != (self.image_size,) * 2:
            raise ValueError(f"images of {h}x{w}, expected {self.image_size}x{self.image_size}")
        x = _standardise(x_BTHWC, CLIP_MEAN, CLIP_STD).reshape(b * t, h, w, 3)
        x = patches.space_to_depth(x.astype(self.dtype), (self.patch, self.patch))
        x = self.patch_embedding(x.reshape(b * t, -1, x.shape[-1]))  # [N, h, w, C] -> [N, P, C]
        first = jnp.broadcast_to(
            self.class_embedding[...].astype(x.dtype).reshape(1, 1, -1), (b * t, 1, x.shape[-1])
        )
        x = jnp.concatenate([first, x], axis=1)
        x = self.pre_norm(x + self.position_embedding[...].astype(x.dtype)[None])
        for layer in self.layers:
            x = layer(x)
        return self.projection(self.post_norm(x[:, 0])).reshape(b, t, -1)


ENCODERS = {"resnet50": ResNet50, "clip": ClipImage}


def from_config(fields: Mapping[str, Any], *, rngs: nnx.Rngs) -> nnx.Module:
    """Builds the encoder that `fields.encoder` names, with its other fields.

    Raises:
      ValueError: no such encoder or field.
    """
    rest = dict(fields)
    name = rest.pop("encoder", None)
    if name not in ENCODERS:
        raise ValueError(f"encoder is {name!r}, expected one of {', '.join(sorted(ENCODERS))}")
    return configured.build(ENCODERS[name], rest, rngs=rngs)


def encode_frames(model: nnx.Module, frames_BTHWC: jax.Array) -> jax.Array:
    """Unit features [B, T, D] of uint8 frames, as `features.encode_frames` gives CAVP's."""
    frames_BTHWC = partition.shard_batch(frames_BTHWC)
    features = model(frames_BTHWC.astype(jnp.float32) / 255.0).astype(jnp.float32)
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
