"""Exhibits of stages of Diff-Foley while they train: mels under captions, and audio clips.

B examples, F mel bins, T mel frames, L audio samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from foley_jax.media import images
from foley_jax.training import task as task_lib


def mels(
    titled: Mapping[str, np.ndarray], *, notes: Sequence[str] | None = None
) -> dict[str, task_lib.Image]:
    """One image an example, "mel/0", ...: its mels under each other.

    Args:
      titled: caption -> log-mels in [0, 1] [B, F, T].
      notes: of every example, put behind the captions.
    """
    count = len(next(iter(titled.values())))
    shown = {}
    for i in range(count):
        note = "" if notes is None else f": {notes[i]}"
        parts = [
            images.caption(title + note, images.mel(np.asarray(mel_BFT[i])))
            for title, mel_BFT in titled.items()
        ]
        shown[f"mel/{i}"] = task_lib.Image(images.below(parts))
    return shown


def audio_clips(named: Mapping[str, np.ndarray], sample_rate_hz: int) -> dict[str, task_lib.Audio]:
    """Audio clips "sound_NAME/0", ... of name -> float [B, L]."""
    return {
        f"sound_{name}/{i}": task_lib.Audio(np.asarray(audio_L), sample_rate_hz)
        for name, audio_BL in named.items()
        for i, audio_L in enumerate(audio_BL)
    }
