"""How well an audio clip fits a video, by CAVP.

Axis letters: B clips at once, T frames, H W, C channels, F mels, D width of CAVP's features.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diffusion import tape
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs, spool
from foley_jax.runtime import network

SECONDS = 4.0  # CAVP compares video and audio over clips of this length
CLIPS = 4  # of them at once


class Similarity:
    """The compiled programs of one CAVP, and the rates it was trained at."""

    def __init__(self, cavp: network.Network, video: specs.VideoSpec, audio: specs.AudioSpec):
        self.audio = audio
        self.clip_frames = round(SECONDS * video.fps)
        self._embed_video = cavp.jit(_embed_video, name="embed_video")
        self._compare = cavp.jit(_compare, name="compare")

    def passing(
        self, frames: Iterable[np.ndarray], embedded: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Passes frames on, and adds [B, D] of their clips of 4 s to `embedded` by and by.

        Args:
          frames: uint8 [H, W, 3] at the CAVP rate.
        """
        held: list[np.ndarray] = []
        for frame in frames:
            held.append(frame)
            if len(held) == CLIPS * self.clip_frames:
                embedded.append(self._embed(held, CLIPS))
                held = []
            yield frame
        count = len(held) // self.clip_frames
        if count:
            batch = CLIPS if embedded else tape.power_of_two(count)
            embedded.append(self._embed(held[: count * self.clip_frames], batch))

    def _embed(self, frames: list[np.ndarray], batch: int) -> np.ndarray:
        frames_THWC = np.stack(frames)
        clips_BTHWC = frames_THWC.reshape(-1, self.clip_frames, *frames_THWC.shape[1:])
        return _padded(self._embed_video, batch, clips_BTHWC)

    def __call__(
        self, embedded_BD: Sequence[np.ndarray], audios: Sequence[np.ndarray]
    ) -> list[float]:
        """Mean cosine similarity of pairs over clips of 4 s; nan for those that are shorter.

        Args:
          embedded_BD: what `passing` has for each video.
          audios: float32 [samples], starting with the first frame.
        """
        mel_frames = round(SECONDS / self.audio.frame_s)
        similar = []
        for video_BD, audio in zip(embedded_BD, audios):
            count = min(len(video_BD), self.audio.num_frames(len(audio)) // mel_frames)
            batch, parts = min(CLIPS, tape.power_of_two(count)), []
            for at in range(0, count, batch):
                stop = min(at + batch, count)
                mel_FT = self._mel(audio, at * mel_frames, stop * mel_frames)
                mel_BFT = np.stack(np.split(mel_FT, stop - at, axis=1))
                parts.append(_padded(self._compare, batch, video_BD[at:stop], mel_BFT))
            similar.append(float(np.concatenate(parts).mean()) if parts else float("nan"))
        return similar

    def _mel(self, audio_L: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Frames [F, start:stop] of an audio clip's log-mel, from the samples that reach them."""
        hop = self.audio.hop
        reach = -(-self.audio.n_fft // (2 * hop))  # frames whose centres a window may touch
        first = max(0, start - reach)
        audio_L = spool.part(audio_L, slice(first * hop, (stop + reach) * hop))
        mel_FT = np.asarray(mel_lib.log_mel(audio_L[None], self.audio))[0]
        return mel_FT[:, start - first : stop - first]


def _padded(program: Callable[..., jax.Array], batch: int, *arrays: np.ndarray) -> np.ndarray:
    """A program over the leading axis of at most `batch` entries; the last one fills it up."""
    count = len(arrays[0])
    index = np.minimum(np.arange(batch), count - 1)
    return np.asarray(program(*(array[index] for array in arrays)))[:count]


def _embed_video(cavp: nnx.Module, frames_BTHWC: jax.Array) -> jax.Array:
    frames_BTHWC = frames_BTHWC.astype(jnp.float32) / 255.0
    return cavp.encode_video(frames_BTHWC, normalize=True, pool=True)


def _compare(cavp: nnx.Module, video_BD: jax.Array, mel_BFT: jax.Array) -> jax.Array:
    return (video_BD * cavp.encode_spec(mel_BFT, normalize=True, pool=True)).sum(-1)
