"""Features of clips of one length: what the flow network is trained on.

B clips, L audio samples, V frames of CLIP, S features of Synchformer, T tokens, N latents, C
channels, D width.
"""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import specs
from foley_jax.mmaudio import mel, tokens
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio.sampling import features
from foley_jax.runtime import grouped, network


class Seen(NamedTuple):
    """A clip as it is read.

    Attributes:
      audio_L: float32 in [-1, 1], `lengths.samples` of it.
      clip_frames: uint8 [V, H, W, 3]; None without a video.
      sync_frames: uint8 [T, H, W, 3], 25 a second.
      text: "" is none.
    """

    audio_L: np.ndarray
    clip_frames: np.ndarray | None = None
    sync_frames: np.ndarray | None = None
    text: str = ""


class Extractor:
    """The frozen networks of MMAudio, on clips of `window_s` seconds.

    Args:
      rates: "16k" or "44k" of `rates.RATES`.
      autoencoder, clip, sync: of mels, of images and text, of segments of frames.
      tokenizer: texts to ids [B, 77].
      batch: clips that are encoded together.
      videos: what `clip` and `sync` see.
    """

    def __init__(
        self,
        rates: rates_lib.Rates,
        *,
        autoencoder: network.Network,
        clip: network.Network,
        sync: network.Network,
        tokenizer: tokens.Tokenizer,
        window_s: float = rates_lib.WINDOW_S,
        batch: int = 4,
        videos: tuple[specs.VideoSpec, specs.VideoSpec] = (
            rates_lib.CLIP_VIDEO,
            rates_lib.SYNC_VIDEO,
        ),
    ):
        self.videos = videos
        self.rates, self.window_s, self.batch = rates, window_s, batch
        self.lengths = rates.lengths(window_s)
        self.tokenizer = tokenizer
        self._images = clip.jit(features.encode_images)
        self._texts = clip.jit(features.encode_texts)
        self._segments = sync.jit(features.encode_segments)
        self._audio = autoencoder.jit(self._posterior)
        self.weights = {
            name: one.crc32()
            for name, one in {"autoencoder": autoencoder, "clip": clip, "sync": sync}.items()
        }

    def _posterior(self, autoencoder: nnx.Module, audio_BL: jax.Array) -> jax.Array:
        """Mean and deviation of latents, float32 [B, 2, N, C]; runs inside jit."""
        mean, logvar = autoencoder.encode(mel.log_mel(audio_BL, self.rates))
        return jnp.stack([mean, jnp.exp(logvar / 2)], axis=1)

    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        """CLIP's features of texts, float16 [B, T, D]."""
        full = [*texts, *[""] * (-len(texts) % self.batch)]
        groups = (full[i : i + self.batch] for i in range(0, len(full), self.batch))
        found = [np.asarray(self._texts(self.tokenizer(group))) for group in groups]
        return np.concatenate(found)[: len(texts)].astype(np.float16)

    def __call__(self, clips: Sequence[Seen]) -> list[dict[str, np.ndarray]]:
        """Features of clips by their names in a record; see `tasks.flow`.

        Args:
          clips: at most `batch`.
        """
        audio_BL = np.stack([one.audio_L for one in clips])
        audio_BL = np.pad(audio_BL, [(0, self.batch - len(clips)), (0, 0)])
        posterior = np.asarray(self._audio(audio_BL))
        made = [{"mean_NC": mean, "std_NC": std} for mean, std in posterior[: len(clips)]]
        seen = [i for i, one in enumerate(clips) if one.clip_frames is not None]
        if seen:
            images = (features.single(clips[i].clip_frames) for i in seen)
            segments = (
                itertools.islice(features.segments(clips[i].sync_frames), self.lengths.segments)
                for i in seen
            )
            clip = grouped.encode(self._images, images, batch=self.batch)
            sync = grouped.encode(self._segments, segments, batch=self.batch)
            for i, clip_VD, sync_SD in zip(seen, clip, sync):
                made[i] |= {"clip_VD": np.float16(clip_VD), "sync_SD": np.float16(sync_SD)}
        said = [i for i, one in enumerate(clips) if one.text]
        if said:
            for i, text_TD in zip(said, self.of_texts([clips[i].text for i in said])):
                made[i]["text_TD"] = text_TD
        return made
