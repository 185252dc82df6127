"""What the stages of Diff-Foley show while they train: mels under captions, and sounds.

B examples, F mel bins, T mel frames, L audio samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from foley_jax.media import pictures
from foley_jax.training import task as task_lib


def mels(
    titled: Mapping[str, np.ndarray], *, notes: Sequence[str] | None = None
) -> dict[str, task_lib.Picture]:
    """One picture an example, "mel/0", ...: its mels under each other.

    Args:
      titled: caption -> log-mels in [0, 1] [B, F, T].
      notes: of every example, put behind the captions.
    """
    count = len(next(iter(titled.values())))
    shown = {}
    for i in range(count):
        note = "" if notes is None else f": {notes[i]}"
        parts = [
            pictures.caption(title + note, pictures.mel(np.asarray(mel_BFT[i])))
            for title, mel_BFT in titled.items()
        ]
        shown[f"mel/{i}"] = task_lib.Picture(pictures.below(parts))
    return shown


def sounds(named: Mapping[str, np.ndarray], sample_rate_hz: int) -> dict[str, task_lib.Sound]:
    """Sounds "sound_NAME/0", ... of name -> float [B, L]."""
    return {
        f"sound_{name}/{i}": task_lib.Sound(np.asarray(audio_L), sample_rate_hz)
        for name, audio_BL in named.items()
        for i, audio_L in enumerate(audio_BL)
    }
