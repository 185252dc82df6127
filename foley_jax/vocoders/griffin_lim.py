"""Mel back to audio: what every vocoder does, and the one that needs no training.

Non-negative least squares to a linear spectrogram, then Griffin-Lim.
B batch, L audio samples, T frames, F mel bins, K = n_fft // 2 + 1 frequency bins.
"""

import dataclasses
import functools
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from foley_jax.media import mel as mel_lib
from foley_jax.media.specs import AudioSpec

INVERSION_ITERATIONS = 8  # more changes the log-mel of the audio by less than 1e-4
HIGHEST = jax.lax.Precision.HIGHEST
# Hann window's spectrum is close to that of a Gaussian exp(-pi n^2 / gamma) with this gamma
# per n_fft^2; Prusa et al. 2017, table I
HANN_GAMMA = 0.25645
ONSET_RATIO = 1.5  # a bin that grows more than this between frames starts a new sound there


class Vocoder(Protocol):
    """Turns log-mels into audio; neural ones are in the rooms of their models.

    Attributes:
      state: its parameters, a pytree of arrays; what `apply` takes.
    """

    state: Any

    def sample_rate_hz(self, spec: AudioSpec) -> int:
        """Rate of the audio that `__call__` gives for mels of `spec`."""

    def __call__(self, mel_BFT: jax.Array, spec: AudioSpec) -> jax.Array:
        """Log-mels in [0, 1], float [B, F, T], frames of `spec` -> float32 [B, samples].

        The audio starts at frame 0's centre and lasts about (T - 1) * hop / rate seconds; the
        caller cuts and resamples.
        """

    def apply(self, state: Any, mel_BFT: jax.Array, spec: AudioSpec) -> jax.Array:
        """`__call__` as a pure function, for use inside other programs."""


@dataclasses.dataclass(frozen=True)
class GriffinLim:
    """`mel_to_audio` as a `Vocoder`, at the rate of the mels."""

    iterations: int = 16
    state: ClassVar[None] = None

    def sample_rate_hz(self, spec: AudioSpec) -> int:
        """The rate of `spec` itself."""
        return spec.sample_rate_hz

    def __call__(self, mel_BFT: jax.Array, spec: AudioSpec) -> jax.Array:
        """See `mel_to_audio`: float32 [B, (T - 1) * hop]."""
        return self.apply(self.state, mel_BFT, spec)

    def apply(self, state: None, mel_BFT: jax.Array, spec: AudioSpec) -> jax.Array:
        """See `__call__`."""
        del state
        return mel_to_audio(mel_BFT, spec, iterations=self.iterations)


@functools.partial(jax.jit, static_argnames=("spec", "iterations", "basis_rate_hz"))
def mel_to_stft(
    mel_BFT: jax.Array, spec: AudioSpec, *, iterations: int = 32, basis_rate_hz: int | None = None
) -> jax.Array:
    """Linear magnitudes whose mel comes nearest: min over x >= 0 of |basis x - mel|^2.

    Accelerated projected gradient (FISTA) from the clipped pseudo-inverse. The solution is not
    unique: compare through the basis. 32 iterations leave under 1 % of the mel, 128 under 0.1 %.

    Args:
      mel_BFT: linear mel amplitude (`mel.amplitude` of a log-mel), float [..., F, T].
      basis_rate_hz: see `mel.mel_basis`; 22050 reproduces the official notebook's low pitch.
    Returns:
      float32 [..., T, K].
    Source: librosa.feature.inverse.mel_to_stft (power=1); Beck and Teboulle 2009.
    """
    basis = mel_lib.mel_basis(spec, basis_rate_hz)
    rate = np.float32(1.0 / np.linalg.norm(basis.astype(np.float64), 2) ** 2)
    mel_TF = jnp.swapaxes(mel_BFT.astype(jnp.float32), -1, -2)
    inverse = np.linalg.pinv(basis.astype(np.float64)).astype(np.float32)
    start = jnp.maximum(jnp.matmul(mel_TF, inverse.T, precision=HIGHEST), 0.0)

    def body(_, carry):
        x, ahead, weight = carry
        error = jnp.matmul(ahead, basis.T, precision=HIGHEST) - mel_TF
        new = jnp.maximum(ahead - rate * jnp.matmul(error, basis, precision=HIGHEST), 0.0)
        new_weight = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * weight**2))
        return new, new + (weight - 1.0) / new_weight * (new - x), new_weight

    return jax.lax.fori_loop(0, iterations, body, (start, start, jnp.float32(1.0)))[0]


def overlap_add(frames_BTN: jax.Array, hop: int) -> jax.Array:
    """Sums frames `hop` samples apart: [..., T, N] -> [..., (T - 1 + ceil(N / hop)) * hop]."""
    *lead, count, n = frames_BTN.shape
    parts = -(-n // hop)
    out = jnp.zeros((*lead, count + parts - 1, hop), frames_BTN.dtype)
    for p in range(parts):
        piece = frames_BTN[..., p * hop : (p + 1) * hop]
        out = out.at[..., p : p + count, : piece.shape[-1]].add(piece)
    return out.reshape(*lead, -1)  # [..., blocks, hop] -> [..., L]


def istft(spectrum_BTK: jax.Array, spec: AudioSpec, length: int) -> jax.Array:
    """Inverse of `mel.stft`, least squares over overlapping windows.

    Args:
      spectrum_BTK: complex64 [..., T, K].
      length: samples wanted; zeros follow where no window reaches.
    Returns:
      float32 [..., length].
    Source: librosa.istft(center=True).
    """
    window = mel_lib.hann(spec.n_fft)
    count, half = spectrum_BTK.shape[-2], spec.n_fft // 2
    weight = np.zeros(count * spec.hop + spec.n_fft + spec.hop, np.float32)
    for i in range(count):
        weight[i * spec.hop : i * spec.hop + spec.n_fft] += window**2
    frames = jnp.fft.irfft(spectrum_BTK, n=spec.n_fft)
    summed = overlap_add(frames * window.reshape((1,) * (frames.ndim - 1) + (-1,)), spec.hop)
    take = min(length, (count - 1) * spec.hop + half)
    weight = weight[half : half + take]
    inverse = np.where(weight > np.finfo(np.float32).tiny, 1.0 / np.maximum(weight, 1e-30), 1.0)
    audio = summed[..., half : half + take]
    audio = audio * inverse.astype(np.float32).reshape((1,) * (audio.ndim - 1) + (-1,))
    return jnp.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, length - take)])


def phase_gradient(magnitude_BTK: jax.Array, spec: AudioSpec) -> jax.Array:
    """A first guess of the phase from magnitudes alone, which keeps attacks sharp.

    For a Gaussian window the phase's derivatives follow from those of the log magnitude. Bins
    that go on from the frame before integrate along time; bins that rise start a new sound and
    integrate along frequency from the frame's peak, which puts them at one instant.

    Args:
      magnitude_BTK: float32 [..., T, K].
    Returns:
      float32 radians, same shape.
    Source: Prusa, Balazs and Sondergaard 2017 (PGHI), eq. 15-18, without the heap.
    """
    n, hop = spec.n_fft, spec.hop
    gamma = HANN_GAMMA * n * n
    bins = magnitude_BTK.shape[-1]
    peak = jnp.max(magnitude_BTK, axis=(-2, -1), keepdims=True)
    log = jnp.log(jnp.maximum(magnitude_BTK, 1e-6 * peak) + 1e-30)
    carrier = (2.0 * np.pi * hop / n * np.arange(bins)).astype(np.float32)
    carrier = carrier.reshape((1,) * (log.ndim - 1) + (-1,))
    along_time = hop * n / gamma * jnp.gradient(log, axis=-1) + carrier
    along_frequency = -gamma / (hop * n) * jnp.gradient(log, axis=-2) - np.pi

    def frame(carry, now):
        phase, old, old_slope = carry
        magnitude, slope, tilt = now
        going_on = phase + 0.5 * (slope + old_slope)
        rise = jnp.cumsum(0.5 * (tilt[..., 1:] + tilt[..., :-1]), axis=-1)
        rise = jnp.concatenate([jnp.zeros_like(rise[..., :1]), rise], axis=-1)
        top = jnp.argmax(magnitude, axis=-1, keepdims=True)
        anchor = jnp.take_along_axis(going_on - rise, top, axis=-1)
        phase = jnp.where(magnitude > ONSET_RATIO * old, anchor + rise, going_on)
        phase = jnp.mod(phase, 2.0 * np.pi)
        return (phase, magnitude, slope), phase

    time_first = tuple(jnp.moveaxis(a, -2, 0) for a in (magnitude_BTK, along_time, along_frequency))
    zeros = jnp.zeros_like(time_first[0][0])
    _, phase = jax.lax.scan(frame, (zeros, zeros, zeros), time_first)
    return jnp.moveaxis(phase, 0, -2)


@functools.partial(jax.jit, static_argnames=("spec", "iterations", "momentum", "length"))
def griffin_lim(
    magnitude_BTK: jax.Array,
    spec: AudioSpec,
    *,
    iterations: int = 32,
    momentum: float = 0.99,
    key: jax.Array | None = None,
    phase_BTK: jax.Array | None = None,
    length: int | None = None,
) -> jax.Array:
    """Finds a signal whose STFT magnitudes come near the given ones (fast Griffin-Lim).

    Args:
      magnitude_BTK: float32 [..., T, K]; more than n_fft / 2 samples, i.e. T > 1 + n_fft / 2 hop.
      momentum: 0 is the classic algorithm; below 1.
      key: starts from uniformly random phases, as the official notebook does.
      phase_BTK: starts from these phases (radians). With neither it starts from
        `phase_gradient`: deterministic, and as good after half the iterations.
      length: samples wanted; default (T - 1) * hop.
    Returns:
      float32 [..., length].
    Raises:
      ValueError: too few frames, or both key and phase are given.
    Source: librosa.griffinlim; Perraudin et al. 2013.
    """
    if key is not None and phase_BTK is not None:
        raise ValueError("griffin_lim got key and phase_BTK; give at most one of them")
    natural = (magnitude_BTK.shape[-2] - 1) * spec.hop
    if natural <= spec.n_fft // 2:
        raise ValueError(
            f"{magnitude_BTK.shape[-2]} mel frames are {natural} samples, expected more than "
            f"{spec.n_fft // 2} to turn them into audio"
        )
    magnitude = magnitude_BTK.astype(jnp.float32)
    if key is not None:
        phase_BTK = 2.0 * np.pi * jax.random.uniform(key, magnitude.shape)
    elif phase_BTK is None:
        phase_BTK = phase_gradient(magnitude, spec)
    keep = momentum / (1.0 + momentum)

    def body(_, carry):
        direction, previous = carry
        rebuilt = mel_lib.stft(istft(magnitude * direction, spec, natural), spec)
        return _unit(rebuilt - keep * previous), rebuilt

    direction = jax.lax.complex(jnp.cos(phase_BTK), jnp.sin(phase_BTK))
    start = (direction, jnp.zeros_like(direction))
    direction, _ = jax.lax.fori_loop(0, iterations, body, start)
    return istft(magnitude * direction, spec, natural if length is None else length)


def _unit(z: jax.Array) -> jax.Array:
    return z * jax.lax.rsqrt(z.real**2 + z.imag**2 + 1e-30)


@functools.partial(jax.jit, static_argnames=("spec", "iterations", "length", "basis_rate_hz"))
def mel_to_audio(
    mel_BFT: jax.Array,
    spec: AudioSpec,
    *,
    key: jax.Array | None = None,
    length: int | None = None,
    iterations: int = 16,
    basis_rate_hz: int | None = None,
) -> jax.Array:
    """Audio of a log-mel, one program for the whole batch.

    Args:
      mel_BFT: log-mel in [0, 1], float [B, F, T] (any leading axes).
      key: random starting phases; default deterministic ones, see `griffin_lim`.
      length: samples wanted; default (T - 1) * hop. Cut, or zero-padded past the last window.
      iterations: of Griffin-Lim. 16 from the default start match 32 from random phases.
      basis_rate_hz: 22050 reproduces the official notebook, which sounds 27 % too low.
    Returns:
      float32 [B, length].
    Raises:
      ValueError: too few frames, or not `spec.num_mels` bins.
    Source: Diff-Foley demo_util.py `inverse_op`.
    """
    if mel_BFT.shape[-2] != spec.num_mels:
        raise ValueError(
            f"mel has shape {mel_BFT.shape}, expected {spec.num_mels} bins before time"
        )
    magnitude = mel_to_stft(
        mel_lib.amplitude(mel_BFT),
        spec,
        iterations=INVERSION_ITERATIONS,
        basis_rate_hz=basis_rate_hz,
    )
    return griffin_lim(magnitude, spec, iterations=iterations, key=key, length=length)
