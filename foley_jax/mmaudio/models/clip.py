"""CLIP's image and text towers, ViT-H/14 at 378 pixels with QuickGELU: what the flow is told.

B batch, H W pixels, P patches, T tokens, N heads, C channels.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import encoder_block, initializers, norm, patch_embedding

EPSILON = 1e-5
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
_UNIT_EPSILON = 1e-12


def unit(x: jax.Array) -> jax.Array:
    """Rows of unit L2 norm, computed in float32."""
    x = x.astype(jnp.float32)
    length = jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
    return x / jnp.maximum(length, _UNIT_EPSILON)


def _blocks(width: int, num_layers: int, num_heads: int, **build) -> nnx.List:
    return nnx.List(
        [
            encoder_block.EncoderBlock(
                width, num_heads, epsilon=EPSILON, gelu_form="quick", **build
            )
            for _ in range(num_layers)
        ]
    )


class ImageTower(nnx.Module):
    """A vision transformer; the class token's output, projected.

    Source: open_clip `VisionTransformer`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        embed_dim: int,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.num_patches = (image_size // patch_size) ** 2
        self.image_size, self.dtype = image_size, dtype
        self.conv1 = patch_embedding.PatchEmbedding(
            3, width, (patch_size, patch_size), use_bias=False, **build
        )
        normal = initializers.normal(width**-0.5)
        self.class_embedding = nnx.Param(normal(rngs.params(), (width,)))
        shape = (1 + self.num_patches, width)
        self.positional_embedding = nnx.Param(normal(rngs.params(), shape))
        self.ln_pre = norm.layer_norm(width, epsilon=EPSILON, **build)
        self.resblocks = _blocks(width, num_layers, num_heads, **build)
        self.ln_post = norm.layer_norm(width, epsilon=EPSILON, **build)
        self.proj = nnx.Param(normal(rngs.params(), (width, embed_dim)))

    def __call__(self, image_BHWC: jax.Array) -> jax.Array:
        """Images in [0, 1] -> [B, embed_dim]; pixels that fill no patch are left out.

        Raises:
          ValueError: another number of patches than that of `image_size`.
        """
        mean, std = (np.asarray(v, np.float32).reshape(1, 1, 1, 3) for v in (PIXEL_MEAN, PIXEL_STD))
        x = self.conv1(((image_BHWC.astype(jnp.float32) - mean) / std).astype(self.dtype))
        if x.shape[1] != self.num_patches:
            raise ValueError(
                f"images of {image_BHWC.shape[1:3]} pixels give {x.shape[1]} patches, expected "
                f"{self.num_patches}: {self.image_size} pixels, or a few more, on both sides"
            )
        first = self.class_embedding[...].astype(x.dtype)
        first = jnp.broadcast_to(first, (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([first, x], axis=1)
        x = self.ln_pre(x + self.positional_embedding[...].astype(x.dtype)[None])
        for block in self.resblocks:
            x = block(x)
        return jnp.matmul(self.ln_post(x[:, 0]), self.proj[...].astype(x.dtype))


class TextTower(nnx.Module):
    """A causal transformer over tokens; the output of every token, not projected.

    Source: open_clip `CLIP.encode_text` without pooling, as MMAudio patches it.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        width: int,
        num_layers: int,
        num_heads: int,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        table, positions = initializers.normal(0.02), initializers.normal(0.01)
        self.token_embedding = nnx.Param(table(rngs.params(), (vocabulary, width)))
        self.positional_embedding = nnx.Param(positions(rngs.params(), (length, width)))
        self.resblocks = _blocks(width, num_layers, num_heads, **build)
        self.ln_final = norm.layer_norm(width, epsilon=EPSILON, **build)
        self.length, self.dtype = length, dtype

    def __call__(self, ids_BT: jax.Array) -> jax.Array:
        """Token ids -> [B, T, width].

        Raises:
          ValueError: another number of tokens.
        """
        if ids_BT.ndim != 2 or ids_BT.shape[1] != self.length:
            raise ValueError(f"ids have shape {ids_BT.shape}, expected [batch, {self.length}]")
        x = self.token_embedding[...][ids_BT] + self.positional_embedding[...][None]
        x = x.astype(self.dtype)
        later = np.triu(np.ones((self.length, self.length), bool), 1)
        bias = jnp.where(later, -jnp.inf, 0.0)[None, None]
        for block in self.resblocks:
            x = block(x, bias_BNTS=bias)
        return self.ln_final(x)


class Clip(nnx.Module):
    """Both towers. The defaults are those of DFN5B-CLIP-ViT-H-14-378."""

    def __init__(
        self,
        *,
        embed_dim: int = 1024,
        image_size: int = 378,
        patch_size: int = 14,
        vision_width: int = 1280,
        vision_layers: int = 32,
        vision_heads: int = 16,
        vocabulary: int = 49408,
        text_length: int = 77,
        text_width: int = 1024,
        text_layers: int = 24,
        text_heads: int = 16,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        build = {"dtype": dtype, "rngs": rngs}
        self.visual = ImageTower(
            image_size=image_size,
            patch_size=patch_size,
            width=vision_width,
            num_layers=vision_layers,
            num_heads=vision_heads,
            embed_dim=embed_dim,
            **build,
        )
        self.text = TextTower(
            vocabulary=vocabulary,
            length=text_length,
            width=text_width,
            num_layers=text_layers,
            num_heads=text_heads,
            **build,
        )

    def encode_image(self, image_BHWC: jax.Array, normalize: bool = True) -> jax.Array:
        """Returns the features of images.

        Args:
          image_BHWC: float [B, H, W, 3] in [0, 1], 378 or 384 pixels wide and high (the last six
            of 384 fill no patch).
          normalize: rows of unit L2 norm.
        Returns:
          float32 [B, embed_dim].
        Raises:
          ValueError: another size.
        """
        x = self.visual(image_BHWC).astype(jnp.float32)
        return unit(x) if normalize else x

    def encode_text(self, ids_BT: jax.Array, normalize: bool = True) -> jax.Array:
        """Returns the features of all tokens of texts, those behind the end too.

        Args:
          ids_BT: int [B, 77]: start 49406, tokens, end 49407, zeros.
          normalize: rows of unit L2 norm.
        Returns:
          float32 [B, 77, text_width].
        Raises:
          ValueError: another number of tokens.
        """
        x = self.text(ids_BT).astype(jnp.float32)
        return unit(x) if normalize else x
