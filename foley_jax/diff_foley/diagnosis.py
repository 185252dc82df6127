"""Why a generated audio clip is not finite: at which solver step, in which window, by which term.

Axis letters: N windows, F mel bins, T mel frames.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from foley_jax.diff_foley.sampling import (
    packed_windows,
    solve,
)
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.diffusion import finite
from foley_jax.diffusion import windows as windows_lib
from foley_jax.media import spool

ADVICE = {
    solve.NETWORK: "check the checkpoint, or use --dtype=float32",
    solve.GUIDANCE: "use a smaller --guidance",
    solve.ALIGNMENT: "use a smaller --alignment",
    finite.INPUT: "use a smaller --guidance and --alignment, or more --steps",
}
CHECKPOINT = "check its checkpoint"


def fault(
    sampler: solve.Sampler,
    request: packed_windows.Request,
    settings: settings_lib.Settings,
    raw_features_RD: np.ndarray | None,
    *,
    max_batch: int,
    num_devices: int,
) -> str:
    """Returns why the mels of audio's windows are not finite, which they are known not to be.

    The audio is made again, alone, by a program that watches every step.

    Args:
      raw_features_RD, max_batch, num_devices: as they were when the audio was made.
    """
    packed, _, batch = packed_windows.pack_windows(
        [request], sampler.spec, max_batch, num_devices=num_devices
    )
    if (bad := _first(packed.features_NLD[: len(request.windows)])) is not None:
        where = _window(request.windows, bad, sampler.spec)
        return _told(f"the features of the video (CAVP), {where}", CHECKPOINT)
    z_HWC, trouble = sampler.trouble(packed, settings, batch, raw_features_RD)
    if trouble is not None:
        where = _window(request.windows, trouble.item, sampler.spec)
        return _told(f"{trouble.words}, {where}", ADVICE[trouble.term])
    bad = _first(sampler.mels(z_HWC, packed, batch))
    if bad is None:
        return "its audio is not finite beside others, but is alone; use --group=1"
    where = _window(request.windows, bad, sampler.spec)
    if not np.isfinite(z_HWC).all():
        return _told(f"the latents after the last solver step, {where}", ADVICE[finite.INPUT])
    return _told(f"the mel of the autoencoder, {where}", CHECKPOINT)


def of_audio(mel_FT: np.ndarray, audio: np.ndarray) -> str:
    """Returns why an audio clip made of a mel is not finite; nothing if it is."""
    if not _is_finite(mel_FT.T):
        return _told("the mel of the autoencoder", CHECKPOINT)
    return "" if _is_finite(audio) else _told("the audio of the vocoder", CHECKPOINT)


def _is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are, of an array that may be longer than memory."""
    size = max(1, spool.PIECE // max(1, array[:1].size))
    return all(np.isfinite(piece).all() for piece in spool.pieces(array, size))


def _told(what: str, advice: str) -> str:
    return f"its audio is not finite, beginning with {what}; {advice}"


def _first(values_N: Iterable[np.ndarray]) -> int | None:
    """The first window whose numbers are not all finite."""
    bad = (i for i, values in enumerate(values_N) if not np.isfinite(values).all())
    return next(bad, None)


def _window(
    windows: Sequence[windows_lib.Window], number: int, spec: windows_lib.WindowSpec
) -> str:
    number = min(number, len(windows) - 1)  # those behind are padding, like the last one
    start_s = windows[number].column * spec.column_s
    end_s = start_s + spec.num_columns * spec.column_s
    return f"window {number + 1} of {len(windows)} ({start_s:.1f} to {end_s:.1f} s)"
