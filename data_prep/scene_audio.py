"""Audio of the embedded scenes: struck bodies as damped modes, a rotor as harmonics.

A struck body rings at its modes, each an exponentially damped sinusoid; a harder blow is louder
and brighter (shorter contact time). Axis letters: K modes, L audio samples.
Source: modal synthesis after van den Doel & Pai 1998; mode ratios of ideal bars (wood), bell-like
plates (metal) and the circular membrane (skin) are textbook values, those of glass a tumbler's.
"""

import dataclasses

import numpy as np

NOISE_FLOOR = 2e-4  # standard deviation of the room's white noise in the band below 8 kHz
GAIN = 0.5  # peak of a single full-strength blow; fixed, so loudness tells strength
REFERENCE_SIZE = 18.0  # half width in pixels of a body that sounds at its nominal pitch
ROTOR_GAIN = 0.10


@dataclasses.dataclass(frozen=True)
class Material:
    """A sounding body.

    Attributes:
      f0_hz: range of the lowest mode.
      ratios: frequencies of the modes over the lowest.
      t60_s: time for the lowest mode to fall by 60 dB.
      damping: how much faster high modes die: t60 of mode k = t60_s / ratio**damping.
      click: level of the contact noise relative to the modes.
      click_s: its decay time.
      glide: how far above its pitch a mode starts (a membrane is stretched by the blow).
    """

    f0_hz: tuple[float, float]
    ratios: tuple[float, ...]
    t60_s: float
    damping: float
    click: float
    click_s: float
    glide: float = 0.0


MATERIALS = {
    "wood": Material((380, 520), (1.0, 2.57, 4.2, 6.1, 8.6), 0.22, 0.6, 0.5, 0.004),
    "metal": Material(
        (820, 1080), (1.0, 1.52, 2.03, 2.74, 3.41, 4.07, 5.38, 6.22), 1.1, 0.35, 0.25, 0.002
    ),
    "glass": Material((2000, 2500), (1.0, 1.41, 2.32, 2.83), 0.45, 0.5, 0.15, 0.001),
    "skin": Material((95, 140), (1.0, 1.59, 2.14, 2.65, 3.16), 0.4, 0.4, 0.35, 0.012, glide=0.3),
}


class Body:
    """One object of a material and size: its modes are computed once, each blow is a mixture.

    Args:
      name: key of `MATERIALS`.
      size: half width in pixels; larger bodies sound lower.
      sample_rate_hz: rate of the audio.
      rng: draws the pitch, and later each blow's small variations.
    """

    def __init__(self, name: str, size: float, sample_rate_hz: int, rng: np.random.Generator):
        self._material = material = MATERIALS[name]
        self._rate, self._rng = sample_rate_hz, rng
        f0_hz = rng.uniform(*material.f0_hz) * (REFERENCE_SIZE / size) ** 0.5
        ratios_K = np.array(material.ratios) * rng.uniform(0.985, 1.015, len(material.ratios))
        self._freqs_K = f0_hz * ratios_K
        t60_K = material.t60_s / ratios_K**material.damping
        time_L = np.arange(round(material.t60_s * sample_rate_hz), dtype=np.float32) / np.float32(
            sample_rate_hz
        )
        # phase of a pitch that starts (1 + glide) high and settles within 25 ms
        warped_L = time_L + material.glide * 0.025 * (1 - np.exp(-time_L / 0.025))
        phase_KL = (2 * np.pi * self._freqs_K)[:, None].astype(np.float32) * warped_L
        decay_KL = np.exp((-6.91 / t60_K)[:, None].astype(np.float32) * time_L)
        self._modes_KL = np.sin(phase_KL) * decay_KL

    def blow(self, strength: float) -> np.ndarray:
        """The audio of one blow: [L] float32.

        Args:
          strength: impact speed, 0 to 1.
        """
        rng, material = self._rng, self._material
        cutoff_hz = self._freqs_K[0] * (1.2 + 3.5 * strength)  # a fast blow excites high modes
        weights_K = np.exp(-self._freqs_K / cutoff_hz) * rng.uniform(0.8, 1.2, len(self._freqs_K))
        weights_K /= weights_K.sum()
        audio_L = weights_K.astype(np.float32) @ self._modes_KL
        length = min(round(8 * material.click_s * self._rate), len(audio_L))
        noise_L = rng.standard_normal(length).astype(np.float32)
        if strength < 0.7:  # soft blows have a dull contact
            noise_L[1:] = 0.5 * (noise_L[1:] + noise_L[:-1])
        noise_L *= np.exp(-np.arange(length, dtype=np.float32) / (material.click_s * self._rate))
        audio_L[:length] += 0.4 * material.click * noise_L
        return (GAIN * strength**1.2) * audio_L


def rotor(
    pitch_hz: np.ndarray, loudness: np.ndarray, sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """A motor whose pitch and loudness follow curves given per sample.

    Args:
      pitch_hz: [L] fundamental.
      loudness: [L] in [0, 1].
      sample_rate_hz: rate of the audio.
      rng: draws the strengths of the harmonics.
    Returns:
      [L] float32.
    """
    phase_L = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate_hz
    # harmonics by Chebyshev recurrence: sin((k+1)p) = 2 cos(p) sin(kp) - sin((k-1)p)
    twice_cos_L = 2 * np.cos(phase_L)
    before_L, now_L = np.zeros_like(phase_L), np.sin(phase_L)
    audio_L = np.zeros_like(phase_L)
    for k in range(1, 15):
        audio_L += rng.uniform(0.6, 1.0) / k**0.8 * now_L
        before_L, now_L = now_L, twice_cos_L * now_L - before_L
    hiss_L = rng.standard_normal(len(phase_L))
    return (ROTOR_GAIN * loudness * (audio_L + 0.15 * hiss_L)).astype(np.float32)


def mix(
    audio_clips: list[tuple[float, np.ndarray]],
    duration_s: float,
    sample_rate_hz: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Adds sounds at their times to the room's noise: [L] float32 in [-1, 1]."""
    floor = NOISE_FLOOR * (sample_rate_hz / 16000) ** 0.5  # equally loud per Hz at any rate
    track_L = floor * rng.standard_normal(round(duration_s * sample_rate_hz))
    for time_s, audio_L in audio_clips:
        at = round(time_s * sample_rate_hz)
        part = audio_L[: len(track_L) - at]
        track_L[at : at + len(part)] += part
    return np.clip(track_L, -1, 1).astype(np.float32)
