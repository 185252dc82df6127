"""The windows and the audio of Diff-Foley's published notebook, with its mistakes.

Axis letters: F mel bins, T mel frames, L audio samples, N windows.
"""

from collections.abc import Iterable
import os

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.diff_foley.sampling import results
from foley_jax.diffusion import windows as windows_lib
from foley_jax.media import specs, spool
from foley_jax.runtime import seed_keys
from foley_jax.vocoders import griffin_lim

OFFICIAL_ITERATIONS = 32  # of Griffin-Lim, from random phases
OFFICIAL_BASIS_HZ = 22050  # the notebook's mistake (spec D3)


def windows(num_features: int, spec: windows_lib.WindowSpec) -> list[windows_lib.Window]:
    """Where its windows lie: side by side, a rest of less than a window dropped (spec D4).

    8 s of features answer to 8.192 s of columns, so the audio falls behind by that much a window. A
    video shorter than a window, which the notebook cannot do, has one.
    """
    count = max(1, num_features // spec.num_features)
    return [windows_lib.Window(i * spec.num_features, i * spec.num_columns) for i in range(count)]


def vocode(
    mels_NFT: Iterable[np.ndarray],
    length: int,
    audio: specs.AudioSpec,
    *,
    keys_N: jax.Array,
    folder: str | os.PathLike | None = None,
) -> np.ndarray:
    """Its audio: every window by itself, a low basis, random phases, end to end.

    A window of 512 frames gives 511 hops: 8.176 s for 8 s of image (spec D3, D4). What is too
    long for memory lies in a file of `folder`.
    """
    made = spool.Spool(folder=folder)
    for mel_FT, key in zip(mels_NFT, keys_N):
        wave = griffin_lim.mel_to_audio(
            jnp.asarray(mel_FT)[None],
            audio,
            key=key,
            iterations=OFFICIAL_ITERATIONS,
            basis_rate_hz=OFFICIAL_BASIS_HZ,
        )
        made.append(np.asarray(wave)[0, : max(0, length - len(made))])
    made.pad(length)
    return made.array()


def vocode_draft(
    draft: results.GeneratedMel,
    length: int,
    *,
    audio: specs.AudioSpec,
    width: int,
    folder: str | os.PathLike | None = None,
) -> np.ndarray:
    """`vocode` of a draft whose windows are `width` frames, with phases of its own draw."""
    starts = range(0, draft.mel_FT.shape[1], width)
    name = f"{draft.source.path.stem}/vocoder"
    raw = seed_keys.block_keys(draft.draw.seed, name, draft.draw.sample, len(starts))
    windows_FT = (spool.part(draft.mel_FT, slice(None), slice(s, s + width)) for s in starts)
    return vocode(windows_FT, length, audio, keys_N=seed_keys.wrapped(raw), folder=folder)
