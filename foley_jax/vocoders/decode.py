"""Mels of any length to waveforms, in bounded memory.

Axis letters: F mel bins, T mel frames, L audio samples, N windows.
"""

from collections.abc import Callable, Sequence
import os

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from foley_jax.media import audio as audio_io
from foley_jax.media import specs, spool
from foley_jax.runtime import mesh as mesh_lib
from foley_jax.runtime import partition
from foley_jax.vocoders import griffin_lim

BLOCK_FRAMES = 256  # lengths are rounded up to whole blocks so that few programs are compiled
CHUNK_FRAMES = 4096  # more than this (a minute) is made in chunks
OVERLAP_FRAMES = 128  # that two chunks share
FADE_S = 0.02
BATCH_FRAMES = 16384  # mel frames in one device batch: bounds memory
GRIFFIN_LIM = griffin_lim.GriffinLim()


class OverDevices:
    """A vocoder whose batches are split over a mesh; every device runs the one-device program.

    Not by the partitioner: it may order sums in another way, and Griffin-Lim's first phases jump
    where rounding tips a comparison.
    """

    def __init__(self, vocoder: griffin_lim.Vocoder, mesh: Mesh):
        self.vocoder, self.mesh = vocoder, mesh
        self.state = jax.device_put(vocoder.state, mesh_lib.replicated(mesh))
        self._programs: dict[specs.AudioSpec, Callable] = {}

    def sample_rate_hz(self, spec: specs.AudioSpec) -> int:
        """That of the vocoder itself."""
        return self.vocoder.sample_rate_hz(spec)

    def __call__(self, mel_BFT: jax.Array, spec: specs.AudioSpec) -> jax.Array:
        """As the vocoder does it; the devices must divide B."""
        if spec not in self._programs:
            self._programs[spec] = jax.jit(
                jax.shard_map(
                    lambda state, mel_BFT: self.vocoder.apply(state, mel_BFT, spec),
                    mesh=self.mesh,
                    in_specs=(PartitionSpec(), partition.BATCH),
                    out_specs=partition.BATCH,
                    check_vma=False,  # loops that begin with constants
                )
            )
        with mesh_lib.use_mesh(self.mesh):
            return jax.block_until_ready(self._programs[spec](self.state, np.asarray(mel_BFT)))


def vocode(
    mels_FT: Sequence[np.ndarray],
    lengths: Sequence[int],
    audio: specs.AudioSpec,
    *,
    max_batch: int,
    through: griffin_lim.Vocoder = GRIFFIN_LIM,
    num_devices: int = 1,
    folder: str | os.PathLike | None = None,
    silence: float = 0.0,
) -> list[np.ndarray]:
    """Waveforms float32 [L] of log-mels [F, T] of any lengths, zero-padded or cut to `lengths`.

    Up to `CHUNK_FRAMES` a mel is one run of the vocoder; a longer one is made in overlapping
    chunks, joined where they differ least. Batches have one size for each length of mel, because
    Griffin-Lim's first phases jump where rounding tips a comparison: an audio clip must not depend
    on its batch.

    Args:
      max_batch: mels in the batch of one device.
      through: the vocoder; audio at another rate is resampled to that of `audio`.
      num_devices: that `through` splits a batch over.
      folder: for audio clips that are too long for memory, see `spool.Spool`.
      silence: the log-mel's value where there is nothing.
    """
    chunks: list[tuple[int, int, int]] = []  # (which mel, first frame, frames with padding)
    for i, (mel_FT, length) in enumerate(zip(mels_FT, lengths)):
        frames = min(mel_FT.shape[1], audio.num_frames(length) + 4)
        for start in _chunk_starts(frames):
            chunks.append((i, start, _rounded(min(frames - start, CHUNK_FRAMES))))
    lines = [_Line(audio, length, folder) for length in lengths]
    rate_hz = through.sample_rate_hz(audio)
    # the longest first: of a mel's chunks only the last one may be shorter
    for size in sorted({size for _, _, size in chunks}, reverse=True):
        members = [chunk for chunk in chunks if chunk[2] == size]
        batch = num_devices * max(1, min(max_batch, BATCH_FRAMES // size))
        for at in range(0, len(members), batch):
            some = members[at : at + batch]
            cut = [_cut(mels_FT[i], start, size, silence) for i, start, _ in some]
            padded = np.stack(cut + cut[-1:] * (batch - len(cut)))
            waves = np.asarray(through(jnp.asarray(padded), audio))
            for (i, _, _), wave in zip(some, waves):
                lines[i].add(audio_io.resample(wave, rate_hz, audio.sample_rate_hz))
    return [line.whole() for line in lines]


def _cut(mel_FT: np.ndarray, start: int, size: int, silence: float) -> np.ndarray:
    return fit(spool.part(mel_FT, slice(None), slice(start, start + size)), size, silence)


def _chunk_starts(num_frames: int) -> list[int]:
    stride = CHUNK_FRAMES - OVERLAP_FRAMES
    count = 1 + max(0, -(-(num_frames - CHUNK_FRAMES) // stride))
    return [i * stride for i in range(count)]


def _rounded(num_frames: int) -> int:
    """Whole blocks; above four blocks only powers of two of them."""
    blocks = -(-num_frames // BLOCK_FRAMES)
    return BLOCK_FRAMES * (blocks if blocks <= 4 else 1 << (blocks - 1).bit_length())


class _Line:
    """Audio whose chunks come `CHUNK_FRAMES - OVERLAP_FRAMES` apart, of `length` samples."""

    def __init__(self, audio: specs.AudioSpec, length: int, folder: str | os.PathLike | None):
        self._stride = (CHUNK_FRAMES - OVERLAP_FRAMES) * audio.hop
        self._fade = round(FADE_S * audio.sample_rate_hz)
        self._length, self._made = length, spool.Spool(folder=folder)
        self._open: np.ndarray | None = None  # what the next chunk may still change

    def add(self, chunk: np.ndarray) -> None:
        if self._open is not None:
            chunk = crossfade(self._open, chunk, 0, self._fade)
        self._write(chunk[: self._stride])
        self._open = chunk[self._stride :]

    def _write(self, block: np.ndarray) -> None:
        self._made.append(block[: max(0, self._length - len(self._made))])

    def whole(self) -> np.ndarray:
        """The audio, cut or with zeros at its end; nothing can be added any more."""
        self._write(self._open)
        self._made.pad(self._length)
        return self._made.array()


def crossfade(before: np.ndarray, after: np.ndarray, start: int, fade: int) -> np.ndarray:
    """Goes from one audio clip to another that begins at `start`, where they differ least.

    Griffin-Lim finds other phases for the same mel in two chunks. The fade lies where the
    difference has the least energy (a quiet moment, or equal phases), and keeps the loudness
    that two audio clips of this correlation would lose.

    Args:
      before, after: float32 [L].
      start: sample of `before` at which `after` begins.
      fade: samples of the fade.
    """
    shared = min(len(before) - start, len(after))
    if shared < fade:
        return np.concatenate([before[:start], after])
    old, new = before[start : start + shared], after[:shared]
    energy = np.cumsum(np.append(0.0, np.square(old - new, dtype=np.float64)))
    at = int(np.argmin(energy[fade:] - energy[:-fade]))
    old, new = old[at : at + fade], new[at : at + fade]
    power = np.sqrt(np.mean(old**2) * np.mean(new**2))
    alike = np.clip(np.mean(old * new) / power, 0.0, 1.0) if power > 1e-12 else 1.0
    ramp = (np.arange(fade) + 0.5) / fade
    loudness = np.sqrt((1 - ramp) ** 2 + ramp**2 + 2 * alike * ramp * (1 - ramp))
    middle = ((1 - ramp) * old + ramp * new) / loudness
    parts = [before[: start + at], middle, after[at + fade :]]
    return np.concatenate(parts).astype(np.float32)


def fit(array: np.ndarray, length: int, value: float = 0.0) -> np.ndarray:
    """Cuts the last axis to `length`, or pads it with `value`."""
    missing = length - array.shape[-1]
    if missing <= 0:
        return array[..., :length]
    pads = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return np.pad(array, pads, constant_values=value)
