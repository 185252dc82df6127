"""What ImageBind reads of a file: three mels of two seconds, three crops of every two frames.

N clips of a file, L audio samples, C channels of audio, T F frames and mel bins, H W image.
Source: av-benchmark av_bench/data/ (`ImageBindAudioDataset`, `VideoDataset`, `SpatialCrop`);
ImageBind imagebind/data.py; pytorchvideo `ConstantClipsPerVideoSampler` (ae9cfc6).
"""

from fractions import Fraction
import math

import numpy as np

from foley_jax.evaluation.networks import imagebind
from foley_jax.media import mel_banks

CLIP_S, NUM_CLIPS = 2, 3
_WINDOW, _HOP, _FFT = 400, 160, 512
_LOW_HZ, _HIGH_HZ = 20.0, 8000.0
_PREEMPHASIS = 0.97
_FLOOR = np.float32(1.1920929e-07)
_MEAN, _STD = -4.268, 9.138


def spans(num_samples: int) -> list[tuple[int, int]]:
    """Begin and end of the three clips of an audio file, in samples at 16 kHz.

    They begin at 0, (d - 2) / 2 and d - 2 seconds, d its length, or all at 0 where it is shorter
    than 2 s. Lengths are divided in float64 as in the source: a begin may lie one sample lower.
    """
    rate = imagebind.RATE_HZ
    step = Fraction(max(num_samples / rate - CLIP_S, 0)) / (NUM_CLIPS - 1)
    return [(int(step * k * rate), int((step * k + CLIP_S) * rate)) for k in range(NUM_CLIPS)]


def audio_clips(audio_CL: np.ndarray, *, in_place: bool = False) -> list[np.ndarray]:
    """Three clips of 2 s of a file's first channel, each less its mean over all channels.

    Args:
      audio_CL: float [C, L] in [-1, 1] at 16 kHz.
      in_place: take the mean off the file itself, as the source does: where clips overlap (files
        under 6 s) a later one begins with samples that earlier means have moved.
    Returns:
      three float32 [32000], or shorter ones of a shorter file.
    """
    audio_CL = np.array(audio_CL, np.float32)
    clips = []
    for begin, end in spans(audio_CL.shape[-1]):
        clip_CL = audio_CL[:, begin:end]
        clip_CL = clip_CL if in_place else clip_CL.copy()
        clip_CL -= clip_CL.mean(dtype=np.float64).astype(np.float32)
        clips.append(clip_CL[0].copy())
    return clips


def log_mels(audio_L: np.ndarray) -> np.ndarray:
    """Standardised log mels of a clip: float [L] at 16 kHz -> float32 [128, 204].

    Frames that the clip does not fill are 0 before the standardisation, hence 0.467, not silence.

    Raises:
      ValueError: not one frame of 25 ms.
    Source: torchaudio compliance.kaldi `fbank`.
    """
    if len(audio_L) < _WINDOW:
        raise ValueError(f"audio has {len(audio_L)} samples, ImageBind needs {_WINDOW} (25 ms)")
    frames_TL = np.lib.stride_tricks.sliding_window_view(audio_L, _WINDOW)[::_HOP]
    frames_TL = frames_TL.astype(np.float64)
    frames_TL = frames_TL - frames_TL.mean(axis=1, keepdims=True)
    before_TL = np.concatenate([frames_TL[:, :1], frames_TL[:, :-1]], axis=1)
    frames_TL = (frames_TL - _PREEMPHASIS * before_TL) * mel_banks.hann_symmetric(_WINDOW)
    power_TK = np.abs(np.fft.rfft(frames_TL, _FFT)) ** 2
    bank = mel_banks.kaldi(imagebind.RATE_HZ, _FFT, imagebind.MELS, _LOW_HZ, _HIGH_HZ)
    log_FT = np.log(np.maximum(power_TK @ bank, _FLOOR)).T[:, : imagebind.FRAMES]
    log_FT = np.pad(log_FT, ((0, 0), (0, imagebind.FRAMES - log_FT.shape[1])))
    return ((log_FT - _MEAN) / _STD).astype(np.float32)


def crops(frames_THWC: np.ndarray) -> np.ndarray:
    """Three squares of every two consecutive frames, along the longer side.

    Args:
      frames_THWC: any dtype [T, H, W, 3], T >= 2, the shorter side 224.
    Returns:
      [3 (T - 1), 2, 224, 224, 3].
    Raises:
      ValueError: less than two frames, or another size.
    """
    size = imagebind.IMAGE_SIZE
    count, height, width, _ = frames_THWC.shape
    if count < imagebind.CLIP_FRAMES or min(height, width) != size:
        raise ValueError(
            f"frames are {frames_THWC.shape}, expected two or more with a shorter side of {size}"
        )
    rest = max(height, width) - size
    found = []
    for first in range(count - 1):
        pair = frames_THWC[first : first + imagebind.CLIP_FRAMES]
        for offset in (0, math.ceil(rest / 2), rest):
            span = slice(offset, offset + size)
            found.append(pair[:, span] if height > width else pair[:, :, span])
    return np.stack(found)
