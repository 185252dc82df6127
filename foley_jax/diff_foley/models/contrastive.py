"""CAVP's loss on the global batch, and how well features find their partners.

N features come clip-fastest: video 0 clip 0, video 0 clip 1, ...; B clips, T features, D width.
Source: training/open_cavp_main/src/open_clip/loss.py `ClipLoss_Intra_Contrast`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_PART = 128  # of the width


def _symmetric_cross_entropy(logits: jax.Array) -> jax.Array:
    """Mean of both directions over square [..., K, K] logits whose diagonal holds the pairs."""
    rows = jax.nn.log_softmax(logits, axis=-1)
    columns = jax.nn.log_softmax(logits, axis=-2)
    pairs = jnp.diagonal(rows + columns, axis1=-2, axis2=-1)
    return -0.5 * pairs.mean()


def _logits(video_ND: jax.Array, audio_ND: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """logit_scale * video @ audio.T, float32 [N, N].

    Summed over parts of the width first: some processors add up all products of two embeddings one
    after another, and at a scale of 100 their rounding shows in the gradients.
    """
    parts = range(0, video_ND.shape[1], _PART)
    video, audio = video_ND.astype(jnp.float32), audio_ND.astype(jnp.float32)
    products = (
        jnp.matmul(video[:, d : d + _PART], audio[:, d : d + _PART].T, precision="highest")
        for d in parts
    )
    return logit_scale * sum(products)


def contrastive_loss(
    video_ND: jax.Array,
    audio_ND: jax.Array,
    logit_scale: jax.Array,
    num_clips: int,
    temporal_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Semantic + temporal contrast: CE over all N features + weight * CE among one video's clips.

    Both terms read the same logits, logit_scale * video @ audio.T: the first all of them (other
    clips of a video are negatives too), the second its num_clips x num_clips diagonal blocks.

    Args:
      video_ND, audio_ND: [N, D] unit features of the whole (global) batch, clip-fastest.
      logit_scale: scalar multiplier, i.e. exp of the learned parameter.
      num_clips: clips of one video; divides N.
      temporal_weight: weight of the temporal term.
    Returns:
      Scalar float32 loss and metrics {"semantic", "temporal"}.
    Raises:
      ValueError: shapes differ or N is not a multiple of num_clips.
    """
    if video_ND.shape != audio_ND.shape or video_ND.ndim != 2:
        raise ValueError(
            f"features have shapes {video_ND.shape} and {audio_ND.shape}, expected equal [N, D]"
        )
    n = video_ND.shape[0]
    if n % num_clips:
        raise ValueError(f"{n} features do not divide into videos of {num_clips} clips")
    logits = _logits(video_ND, audio_ND, logit_scale)
    num_videos = n // num_clips
    blocks = logits.reshape(num_videos, num_clips, num_videos, num_clips)
    # [V, K, V, K] -> [V, K, K], one diagonal block per video
    blocks = jnp.diagonal(blocks, axis1=0, axis2=2).transpose(2, 0, 1)
    semantic = _symmetric_cross_entropy(logits)
    temporal = _symmetric_cross_entropy(blocks)
    total = semantic + temporal_weight * temporal
    return total, {"semantic": semantic, "temporal": temporal}


def same_moments(
    video_BTD: jax.Array, audio_BTD: jax.Array, video_s: float, audio_s: float
) -> tuple[jax.Array, jax.Array]:
    """Features of both sides for the same moments: the finer side's averaged over the coarser's.

    Args:
      video_BTD, audio_BTD: unit features [B, T, D] of clips that begin together, T of each side.
      video_s, audio_s: seconds that one feature of each side stands for.
    Returns:
      Unit features, two of one shape [B, T, D], T the moments that both sides show whole. As many
      features on both sides are taken as they are.
    Raises:
      ValueError: the sides do not share a whole moment.
    """
    num_video, num_audio = video_BTD.shape[1], audio_BTD.shape[1]
    if num_video == num_audio:
        return video_BTD, audio_BTD
    moment_s = max(video_s, audio_s)
    count = int(min(num_video * video_s, num_audio * audio_s) / moment_s + 1e-6)
    if count < 1:
        raise ValueError(
            f"{num_video} video features of {video_s:g} s and {num_audio} audio features of "
            f"{audio_s:g} s share no whole moment of {moment_s:g} s; give longer clips"
        )
    sides = []
    for features_BTD, feature_s in ((video_BTD, video_s), (audio_BTD, audio_s)):
        if feature_s == moment_s:
            sides.append(features_BTD[:, :count])
            continue
        share_MT = _overlaps(count, moment_s, features_BTD.shape[1], feature_s)
        mean_BMD = jnp.einsum("mt,btd->bmd", share_MT, features_BTD, precision="highest")
        square = jnp.sum(mean_BMD * mean_BMD, axis=-1, keepdims=True)
        sides.append(mean_BMD * jax.lax.rsqrt(jnp.maximum(square, 1e-24)))
    return sides[0], sides[1]


def _overlaps(count: int, moment_s: float, num_features: int, feature_s: float) -> np.ndarray:
    """Shares of features in moments, float32 [count, num_features], each row adding to one."""
    start_M1 = np.arange(count)[:, None] * moment_s
    start_T = np.arange(num_features) * feature_s
    end_MT = np.minimum(start_M1 + moment_s, start_T + feature_s)
    shared_MT = np.maximum(end_MT - np.maximum(start_M1, start_T), 0.0)
    return (shared_MT / shared_MT.sum(axis=1, keepdims=True)).astype(np.float32)


def moment_loss(video_BTD: jax.Array, audio_BTD: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Symmetric CE between the features of the same moment among all features of all clips.

    Beyond the paper, whose pooled features need not say when: each of the B*T moments has its
    audio among those of all other moments. Features that show and sound nothing are alike, so the
    loss has a floor well above zero.

    Args:
      video_BTD, audio_BTD: unit features of the global batch, the same moments in both: see
        `same_moments`.
      logit_scale: scalar multiplier.
    Returns:
      Scalar float32.
    Raises:
      ValueError: the shapes differ.
    """
    if video_BTD.shape != audio_BTD.shape:
        raise ValueError(
            f"video has features {video_BTD.shape} and audio {audio_BTD.shape}; the loss between "
            "moments needs one of each per moment: see `same_moments`"
        )
    width = video_BTD.shape[-1]
    video_ND, audio_ND = (x.reshape(-1, width) for x in (video_BTD, audio_BTD))
    return _symmetric_cross_entropy(_logits(video_ND, audio_ND, logit_scale))


def recall_at_k(
    query_ND: np.ndarray, target_ND: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Share of queries whose own target (same feature) is among the k best by inner product.

    Ties count against the query, so constant features score zero and not one.

    Args:
      query_ND, target_ND: [N, D] features; feature i of one belongs to feature i of the other.
      ks: ranks to report; a k above N gives 1.
    """
    scores = np.asarray(query_ND, np.float64) @ np.asarray(target_ND, np.float64).T
    own = np.diagonal(scores)[:, None]
    rank = (scores >= own).sum(axis=1) - 1  # others at least as good
    return {k: float((rank < k).mean()) for k in ks}


def temporal_accuracy(video_VKD: np.ndarray, audio_VKD: np.ndarray) -> float:
    """Share of clips whose own audio scores best among the K clips of the same video.

    Args:
      video_VKD, audio_VKD: [V, K, D] features of V videos with K clips each; chance is 1 / K.
    """
    scores = np.einsum(
        "vkd,vjd->vkj", np.asarray(video_VKD, np.float64), np.asarray(audio_VKD, np.float64)
    )
    own = np.diagonal(scores, axis1=1, axis2=2)[..., None]
    return float(((scores >= own).sum(axis=-1) == 1).mean())
