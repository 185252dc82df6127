"""How well a sound fits a picture, by CAVP.

Axis letters: B clips at once, T frames, H W, C channels, F mels, D width of CAVP's rows.
"""

from collections.abc import Callable, Sequence

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diff_foley import tape
from foley_jax.layers import network
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs

SECONDS = 4.0  # CAVP compares picture and sound over clips of this length
CLIPS = 4  # of them at once


class Similarity:
    """The compiled programs of one CAVP, and the rates it was trained at."""

    def __init__(self, cavp: network.Network, video: specs.VideoSpec, audio: specs.AudioSpec):
        self.video, self.audio = video, audio
        self._embed_video = cavp.jit(_embed_video, name="embed_video")
        self._compare = cavp.jit(_compare, name="compare")

    def __call__(
        self, videos_THWC: Sequence[np.ndarray], audios: Sequence[np.ndarray]
    ) -> list[float]:
        """Mean cosine similarity of pairs over clips of 4 s; nan for those that are shorter.

        A picture that comes with several sounds is embedded once.

        Args:
          videos_THWC: uint8 frames at the CAVP rate.
          audios: float32 [samples], starting with the first frame.
        """
        clip_frames = round(SECONDS * self.video.fps)
        mel_frames = round(SECONDS / self.audio.frame_s)
        similar, embedded = [], {}
        for frames, audio in zip(videos_THWC, audios):
            mel_count = self.audio.num_frames(len(audio))
            count = min(len(frames) // clip_frames, mel_count // mel_frames)
            if not count:
                similar.append(float("nan"))
                continue
            mel_FT = np.asarray(mel_lib.log_mel(audio[None], self.audio))[0]
            mel_BFT = np.stack(np.split(mel_FT[:, : count * mel_frames], count, axis=1))
            if (id(frames), count) not in embedded:
                cut = frames[: count * clip_frames]
                clips_BTHWC = cut.reshape(count, clip_frames, *cut.shape[1:])
                embedded[id(frames), count] = _in_batches(self._embed_video, clips_BTHWC)
            video_BD = embedded[id(frames), count]
            similar.append(float(_in_batches(self._compare, video_BD, mel_BFT).mean()))
        return similar


def _in_batches(program: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """A program over the leading axis, `CLIPS` entries at once."""
    count = len(arrays[0])
    batch = min(CLIPS, tape.power_of_two(count))
    parts = []
    for at in range(0, count, batch):
        index = np.minimum(np.arange(at, at + batch), count - 1)  # pads the last
        parts.append(np.asarray(program(*(array[index] for array in arrays))))
    return np.concatenate(parts)[:count]


def _embed_video(cavp: nnx.Module, frames_BTHWC: jax.Array) -> jax.Array:
    frames_BTHWC = frames_BTHWC.astype(jnp.float32) / 255.0
    return cavp.encode_video(frames_BTHWC, normalize=True, pool=True)


def _compare(cavp: nnx.Module, video_BD: jax.Array, mel_BFT: jax.Array) -> jax.Array:
    return (video_BD * cavp.encode_spec(mel_BFT, normalize=True, pool=True)).sum(-1)
