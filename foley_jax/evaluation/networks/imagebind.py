"""ImageBind-huge's towers of images and of audio: 1024 numbers each, compared by their cosine.

B batch, K clips, L audio samples, T F frames and mel bins, H W image, C channels, P patches.
Source: ImageBind 53680b0, imagebind/models/{imagebind_model,multimodal_preprocessors}.py.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from foley_jax.evaluation.networks import convolution
from foley_jax.layers import dense, encoder_block, norm, patch_embedding

RATE_HZ = 16000
EMBED_DIM = 1024
IMAGE_SIZE = 224
CLIP_FRAMES = 2
MELS, FRAMES = 128, 204
# of RGB in [0, 1]: OpenAI CLIP's
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
MAX_LOGIT_SCALE = 100.0
_EPSILON, _STEM_EPSILON = 1e-6, 1e-5
_NORM_EPSILON = 1e-12  # of vectors' lengths
_AUDIO_PATCH, _AUDIO_STRIDE = 16, 10
_IMAGE_PATCH = (CLIP_FRAMES, 14, 14)


def unit(x: jax.Array) -> jax.Array:
    """Vectors of the last axis at length 1. Source: torch `functional.normalize`."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), _NORM_EPSILON)


class Trunk(nnx.Module):
    """Class token, positions, blocks, and a linear map of the class token."""

    def __init__(
        self,
        width: int,
        num_tokens: int,
        num_layers: int,
        num_heads: int,
        *,
        first_norm: bool,
        extra_key: bool,
        rngs: nnx.Rngs,
    ):
        """Args:
        num_tokens: with the class token.
        first_norm: a layer norm before the first block.
        extra_key: see `encoder_block.SelfAttention`.
        """
        make_norm = lambda: norm.layer_norm(width, epsilon=_EPSILON, rngs=rngs)  # noqa: E731
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width), jnp.float32))
        self.pos_embed = nnx.Param(jnp.zeros((1, num_tokens, width), jnp.float32))
        self.pre_norm = make_norm() if first_norm else None
        self.blocks = nnx.List(
            [
                encoder_block.EncoderBlock(
                    width, num_heads, epsilon=_EPSILON, extra_key=extra_key, rngs=rngs
                )
                for _ in range(num_layers)
            ]
        )
        self.head_norm = make_norm()
        self.head = dense.dense(width, EMBED_DIM, use_bias=False, rngs=rngs)

    def tokens(self, patches_BPC: jax.Array) -> jax.Array:
        """What the first block reads: [B, P, C] -> [B, 1 + P, C]."""
        x = encoder_block.with_token(self.cls_token, patches_BPC) + self.pos_embed[...]
        return x if self.pre_norm is None else self.pre_norm(x)

    def __call__(self, patches_BPC: jax.Array) -> jax.Array:
        """[B, P, C] -> unit vectors [B, 1024]."""
        x = self.tokens(patches_BPC)
        for block in self.blocks:
            x = block(x)
        return unit(self.head(self.head_norm(x[:, 0])))


class Vision(nnx.Module):
    """ViT-H on clips of two frames."""

    def __init__(
        self, width: int = 1280, num_layers: int = 32, num_heads: int = 16, *, rngs: nnx.Rngs
    ):
        self.stem = patch_embedding.PatchEmbedding(
            3, width, _IMAGE_PATCH, use_bias=False, rngs=rngs
        )
        num_patches = (IMAGE_SIZE // _IMAGE_PATCH[1]) ** 2
        kind = {"first_norm": True, "extra_key": False}
        self.trunk = Trunk(width, 1 + num_patches, num_layers, num_heads, **kind, rngs=rngs)

    def __call__(self, clips_BTHWC: jax.Array) -> jax.Array:
        """Unit vectors of clips.

        Args:
          clips_BTHWC: float [B, 2, 224, 224, 3], RGB less `MEAN`, over `STD`.
        Returns:
          float32 [B, 1024].
        Raises:
          ValueError: clips of another size.
        """
        want = (CLIP_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)
        if clips_BTHWC.shape[1:] != want:
            raise ValueError(f"clips are {clips_BTHWC.shape}, expected [B, {want}]")
        return self.trunk(self.stem(clips_BTHWC))

    def embed(self, clips_BKTHWC: jax.Array) -> jax.Array:
        """Vectors of videos: [B, K, 2, 224, 224, 3] uint8 -> [B, 1024].

        The mean over a video's clips and crops, whose length is not 1.
        """
        shape = (1,) * (clips_BKTHWC.ndim - 1) + (3,)
        mean, std = (jnp.asarray(values).reshape(shape) for values in (MEAN, STD))
        x = (clips_BKTHWC.astype(jnp.float32) / 255.0 - mean) / std
        # one clip of every video at a time: activations of all together would take gigabytes
        return jax.lax.map(self, x.swapaxes(0, 1)).mean(axis=0)


class Audio(nnx.Module):
    """ViT-B on mels of two seconds, with one more key and value in every block."""

    def __init__(
        self, width: int = 768, num_layers: int = 12, num_heads: int = 12, *, rngs: nnx.Rngs
    ):
        rows, columns = ((n - _AUDIO_PATCH) // _AUDIO_STRIDE + 1 for n in (MELS, FRAMES))
        size = (_AUDIO_PATCH, _AUDIO_PATCH)
        self.stem = convolution.Conv(1, width, size, stride=_AUDIO_STRIDE, bias=False, rngs=rngs)
        self.stem_norm = norm.layer_norm(width, epsilon=_STEM_EPSILON, rngs=rngs)
        kind = {"first_norm": False, "extra_key": True}
        self.trunk = Trunk(width, 1 + rows * columns, num_layers, num_heads, **kind, rngs=rngs)
        self.log_logit_scale = nnx.Param(jnp.zeros((), jnp.float32))

    def patches(self, mel_BFT: jax.Array) -> jax.Array:
        """Overlapping patches by rows of one frequency: [B, 128, 204] -> [B, 228, C]."""
        x = self.stem(mel_BFT[..., None])  # [B, F, T, C]
        return self.stem_norm(x.reshape(x.shape[0], -1, x.shape[-1]))

    def __call__(self, mel_BFT: jax.Array) -> jax.Array:
        """Vectors of mels: float [B, 128, 204] -> float32 [B, 1024], of length 20 by its file."""
        scale = jnp.minimum(jnp.exp(self.log_logit_scale[...]), MAX_LOGIT_SCALE)
        return self.trunk(self.patches(mel_BFT)) * scale.reshape(1, 1)

    def embed(self, mel_BKFT: jax.Array) -> jax.Array:
        """Vectors of audio clips: the mean over a clip's K parts of 2 s: [B, K, F, T] -> [B, D]."""
        b, k = mel_BKFT.shape[:2]
        return self(mel_BKFT.reshape(b * k, *mel_BKFT.shape[2:])).reshape(b, k, -1).mean(axis=1)


class ImageBind(nnx.Module):
    """Both towers."""

    def __init__(self, *, vision_layers: int = 32, audio_layers: int = 12, rngs: nnx.Rngs):
        self.vision = Vision(num_layers=vision_layers, rngs=rngs)
        self.audio = Audio(num_layers=audio_layers, rngs=rngs)
