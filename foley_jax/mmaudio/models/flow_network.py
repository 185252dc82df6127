"""The flow network: the way from noise to latents of audio, told by frames and text.

B batch, N latent positions, V CLIP frames, S positions of synchronisation features, T text tokens,
C latent channels, D width. Times go from noise (0) to data (1). Lengths are those of the arguments.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.layers import rotary
from foley_jax.mmaudio.models import blocks, feed_forward, time_embedding

SYNC_GROUP = 8  # features of one segment of 16 frames
OFFICIAL_CLIP, OFFICIAL_SYNC = 64, 192  # lengths of V and S for 8 s


class Constant(nnx.Variable):
    """Statistics and features that are saved with the network and never trained."""


class Conditions(NamedTuple):
    """What the network is told, in its own width; made once for all steps.

    Attributes:
      clip_BVD: of CLIP's image features.
      sync_BSD: of the synchronisation features, before they are stretched over the latents.
      text_BTD: of CLIP's text features.
      global_BD: of the means of frames and text, to be added to the time's embedding.
    """

    clip_BVD: jax.Array
    sync_BSD: jax.Array
    text_BTD: jax.Array
    global_BD: jax.Array


def stretched(num_sources: int, num_targets: int) -> np.ndarray:
    """Returns the source of every target, floor((i + 1/2) sources / targets), in float32.

    Exact arithmetic gives others: of 192 -> 345, for the targets 57 and 172. They matter.
    Source: torch `interpolate(mode="nearest-exact")`.
    """
    scale = np.float32(num_sources) / np.float32(num_targets)
    places = (np.arange(num_targets, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(np.floor(places).astype(np.int32), num_sources - 1)


class FlowNetwork(nnx.Module):
    """Joint blocks over latents, frames and text, then blocks over the latents alone.

    Fields of the released networks: `CONFIGS`. Source: MMAudio mmaudio/model/networks.py `MMAudio`.
    """

    def __init__(
        self,
        *,
        latent_dim: int = 20,
        width: int = 448,
        num_heads: int = 7,
        depth: int = 12,
        fused_depth: int = 8,
        clip_dim: int = 1024,
        sync_dim: int = 768,
        text_dim: int = 1024,
        text_length: int = 77,
        v2: bool = False,
        final_by_position: bool = False,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args:
        depth: blocks in all, of which the last `fused_depth` are over the latents alone.
        text_length: tokens of the stored features of "".
        v2: input projections and time embedding of the second version.
        final_by_position: the last layer is modulated at every position, as the joint blocks are;
          the released networks were trained with the mean alone.
        remat: the inside of every block is made again in the backward pass, which saves memory.
        """
        if not 0 < fused_depth < depth:
            raise ValueError(f"fused_depth is {fused_depth}, expected 1 to {depth - 1} (depth - 1)")
        build = {"dtype": dtype, "rngs": rngs}
        self._project(latent_dim, clip_dim, sync_dim, text_dim, width, v2, build)
        self.clip_cond_proj = feed_forward.layer(width, width, 1, **build)
        self.text_cond_proj = feed_forward.layer(width, width, 1, **build)
        self.global_cond_mlp = feed_forward.GatedFeedForward(width, **build)
        self.t_embed = time_embedding.TimeEmbedding(width, v2=v2, rngs=rngs)
        num_joint = depth - fused_depth
        self.joint_blocks = nnx.List(
            [
                blocks.JointBlock(width, num_heads, pre_only=i == num_joint - 1, **build)
                for i in range(num_joint)
            ]
        )
        self.fused_blocks = nnx.List(
            [blocks.StreamBlock(width, num_heads, 3, **build) for _ in range(fused_depth)]
        )
        self.final_layer = blocks.FinalLayer(width, latent_dim, **build)
        self.sync_pos_emb = nnx.Param(jnp.zeros((1, 1, SYNC_GROUP, sync_dim)))
        self.empty_clip_feat = nnx.Param(jnp.zeros((1, clip_dim)))
        self.empty_sync_feat = nnx.Param(jnp.zeros((1, sync_dim)))
        self.empty_string_feat = Constant(jnp.zeros((text_length, text_dim)))
        # not known before the latents of a training set are
        self.latent_mean = Constant(jnp.full((1, 1, latent_dim), jnp.nan))
        self.latent_std = Constant(jnp.full((1, 1, latent_dim), jnp.nan))
        self.head_dim = width // num_heads
        self.final_by_position, self.remat = final_by_position, remat
        self.dtype = dtype

    def _project(self, latent_dim, clip_dim, sync_dim, text_dim, width, v2, build) -> None:
        """Makes the four input projections."""

        def projection(in_dim, kernel_size, inner_kernel_size, v1_activation):
            return feed_forward.InputProjection(
                in_dim,
                width,
                kernel_size=kernel_size,
                inner_kernel_size=inner_kernel_size,
                activation="silu" if v2 else v1_activation,
                **build,
            )

        self.audio_input_proj = projection(latent_dim, 7, 7, "selu")
        self.clip_input_proj = projection(clip_dim, 1, 3, "none")
        self.sync_input_proj = projection(sync_dim, 7, 3, "selu")
        self.text_input_proj = projection(text_dim, 1, 1, "none")

    def preprocess_conditions(
        self, clip_BVD: jax.Array, sync_BSD: jax.Array, text_BTD: jax.Array
    ) -> Conditions:
        """Returns what `predict_flow` needs of the features, once for all steps.

        Args:
          clip_BVD: CLIP's image features of frames at 8/s, unit rows.
          sync_BSD: Synchformer's features, 8 for each segment, S divisible by 8.
          text_BTD: CLIP's text features of all tokens, unit rows.
        Raises:
          ValueError: S is not divisible by 8, or another width.
        """
        self._check("CLIP features", clip_BVD, self.empty_clip_feat)
        self._check("synchronisation features", sync_BSD, self.empty_sync_feat)
        self._check("text features", text_BTD, self.empty_string_feat)
        b, s, width = sync_BSD.shape
        if s % SYNC_GROUP:
            raise ValueError(
                f"{s} synchronisation features, expected a multiple of {SYNC_GROUP}: every segment "
                f"of 16 frames has {SYNC_GROUP}"
            )
        grouped = sync_BSD.reshape(b, -1, SYNC_GROUP, width)  # [B, S/8, 8, sync_dim]
        sync = (grouped + self.sync_pos_emb[...]).reshape(b, s, width)
        clip = self.clip_input_proj(clip_BVD.astype(self.dtype))
        text = self.text_input_proj(text_BTD.astype(self.dtype))
        # the mean of the text is over the padding too, as in training
        means = self.clip_cond_proj(clip.mean(1)) + self.text_cond_proj(text.mean(1))
        return Conditions(
            clip, self.sync_input_proj(sync.astype(self.dtype)), text, self.global_cond_mlp(means)
        )

    def empty_conditions(
        self,
        batch: int,
        negative_text_BTD: jax.Array | None = None,
        *,
        clip_length: int = OFFICIAL_CLIP,
        sync_length: int = OFFICIAL_SYNC,
    ) -> Conditions:
        """Returns the conditions of no video and no text, or a negative text, for guidance.

        Args:
          batch: examples.
          negative_text_BTD: text features of one example, or of each; None is the text "".
          clip_length, sync_length: V and S, those of the conditions beside it; 8 s by default.
        Raises:
          ValueError: a negative text for another number of examples.
        """
        text = self.empty_string_feat[...][None] if negative_text_BTD is None else negative_text_BTD
        if text.shape[0] not in (1, batch):
            raise ValueError(f"negative text of {text.shape[0]} examples, expected 1 or {batch}")
        examples = text.shape[0]
        conditions = self.preprocess_conditions(
            self.empty_clip(examples, clip_length), self.empty_sync(examples, sync_length), text
        )
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), conditions)

    def empty_clip(self, batch: int, length: int = OFFICIAL_CLIP) -> jax.Array:
        """Returns the features that stand for no video: [B, V, clip_dim]."""
        empty = self.empty_clip_feat[...][None]
        return jnp.broadcast_to(empty, (batch, length, empty.shape[-1]))

    def empty_sync(self, batch: int, length: int = OFFICIAL_SYNC) -> jax.Array:
        """Returns the synchronisation features that stand for no video: [B, S, sync_dim]."""
        empty = self.empty_sync_feat[...][None]
        return jnp.broadcast_to(empty, (batch, length, empty.shape[-1]))

    def predict_flow(
        self, latent_BNC: jax.Array, t_B: jax.Array, conditions: Conditions
    ) -> jax.Array:
        """Returns the velocity at a point of the way from noise to latents.

        Args:
          latent_BNC: float, normalised latents.
          t_B: times in [0, 1].
          conditions: of `preprocess_conditions` or `empty_conditions`.
        Returns:
          float32 [B, N, C].
        Raises:
          ValueError: another number of latent channels.
        """
        self._check("latents", latent_BNC, self.latent_mean)
        n, v = latent_BNC.shape[1], conditions.clip_BVD.shape[1]
        x = self.audio_input_proj(latent_BNC.astype(self.dtype))
        time_BD = self.t_embed(t_B).astype(self.dtype)
        g = (time_BD + conditions.global_BD)[:, None]  # [B, 1, D]
        e = g + conditions.sync_BSD[:, stretched(conditions.sync_BSD.shape[1], n)]  # [B, N, D]
        # frames count in latents
        latent_angles, clip_angles = (
            rotary.angles(positions, self.head_dim)
            for positions in (np.arange(n), np.arange(v) * (n / v))
        )
        streams = [x, conditions.clip_BVD, conditions.text_BTD]
        for block in self.joint_blocks:
            streams = self._run(block, streams, (e, g, g), (latent_angles, clip_angles, None))
        x = streams[0]
        for block in self.fused_blocks:
            x = self._run(block, x, e, latent_angles)
        return self.final_layer(x, e if self.final_by_position else g).astype(jnp.float32)

    def _run(self, block: nnx.Module, *args: Any) -> Any:
        """A block's output; with `remat` nothing but what it is given is kept for gradients."""
        run = lambda *args: block(*args)  # noqa: E731
        return (jax.checkpoint(run) if self.remat else run)(*args)

    def __call__(self, latent_BNC: jax.Array, t_B: jax.Array, conditions: Conditions) -> jax.Array:
        """`predict_flow`."""
        return self.predict_flow(latent_BNC, t_B, conditions)

    def normalise(self, latent_BNC: jax.Array) -> jax.Array:
        """Latents of the autoencoder -> latents of the flow."""
        return (latent_BNC - self.latent_mean[...]) / self.latent_std[...]

    def unnormalise(self, latent_BNC: jax.Array) -> jax.Array:
        """Latents of the flow -> latents of the autoencoder."""
        return latent_BNC * self.latent_std[...] + self.latent_mean[...]

    def _check(self, what: str, x: jax.Array, like: nnx.Variable) -> None:
        if x.ndim != 3 or x.shape[-1] != like.shape[-1]:
            raise ValueError(
                f"{what} have shape {x.shape}, expected [batch, length, {like.shape[-1]}]"
            )


_LARGE = {"latent_dim": 40, "width": 896, "num_heads": 14, "depth": 21, "fused_depth": 14}
# the released networks
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "small_16k": {},
    "small_44k": {"latent_dim": 40},
    "medium_44k": {**_LARGE, "depth": 12, "fused_depth": 8},
    "large_44k": _LARGE,
    "large_44k_v2": {**_LARGE, "v2": True},
}
