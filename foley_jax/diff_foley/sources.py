"""Videos and audio as they come in, and what is kept of them.

Axis letters: B clips of 4 s, T frames, H W, C channels, D width of CAVP's features.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foley_jax.diff_foley.sampling import features, similarity
from foley_jax.media import editing
from foley_jax.media import video as video_io
from foley_jax.runtime import grouped

HELD_BYTES = 64 << 20  # of a video's decoded frames; those of a longer one are never all in memory


class Source(NamedTuple):
    """A video to make audio for.

    Attributes:
      path: where it came from.
      frames_THWC: uint8 [T, H, W, 3], or what gives them one by one where they are too many.
      duration_s: its length in seconds.
      kept: audio of which only a span is made anew, if any.
      varied: audio that `settings.vary` begins with, if any.
    """

    path: Path
    frames_THWC: np.ndarray | video_io.Stream
    duration_s: float
    kept: editing.Kept | None = None
    varied: editing.Kept | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all its frames, those that are not in memory included.

        Batches are cut by them.
        """
        return self.frames_THWC.nbytes


class Viewed(NamedTuple):
    """The part of a `Source` that is kept when its frames are gone.

    `clips_BD` is for `Similarity`.
    """

    path: Path
    duration_s: float
    clips_BD: np.ndarray
    kept: editing.Kept | None = None
    varied: editing.Kept | None = None


class Audio(NamedTuple):
    """A decoded audio track, float32 [samples] at the model's rate."""

    path: Path
    audio: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.audio.nbytes


def view(
    sources: Sequence[Source],
    encode_fn: grouped.EncodeFn,
    score: similarity.Similarity,
    *,
    official: bool,
    batch: int,
) -> tuple[list[Viewed], list[np.ndarray]]:
    """Walks through every video once.

    Args:
      sources: the videos.
      encode_fn: makes CAVP features, see `features.extract_batch`.
      score: makes what scores need.
      official: whether features are those of the official groups, or seamless.
      batch: groups of frames that are encoded at once.
    Returns:
      What is kept of them; and their features, float32 [T, D] each.
    Raises:
      foley_jax.media.video.MediaError: a video cannot be decoded.
      ValueError: a video without frames.
    """
    divided = features.official_groups if official else features.seamless_groups
    embedded: list[list[np.ndarray]] = [[] for _ in sources]

    def groups_of(source: Source, embedded: list[np.ndarray]) -> Iterable[grouped.Group]:
        return divided(score.passing(source.frames_THWC, embedded))

    video_features = grouped.encode(encode_fn, map(groups_of, sources, embedded), batch=batch)
    clips = [np.concatenate(own) if own else np.zeros((0, 0), np.float32) for own in embedded]
    seen = [Viewed(s.path, s.duration_s, own, s.kept, s.varied) for s, own in zip(sources, clips)]
    return seen, video_features
