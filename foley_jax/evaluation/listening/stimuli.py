"""Clips as listeners get them: equally long and loud, one format, and nothing that names a source.

All clips of an item are mono, cut to the shortest of them, and have one integrated loudness (ITU-R
BS.1770-4): the wanted one, or as much less as keeps the loudest peak of them within full scale, so
that nothing is limited. Video is encoded anew, for all alike; files carry no tags of their source.

Axis letters: L audio samples.
"""

from collections.abc import Mapping
import dataclasses
import math
from pathlib import Path
import secrets
import tempfile

import numpy as np

from foley_jax.media import audio as audio_io
from foley_jax.media import level, loudness, muxing, specs, writing
from foley_jax.media import video as video_io

LEAST_S = 0.1
FADE_S = 0.01  # where a clip was cut
MOST_FPS = 30.0
BEEP_HZ, BEEP_S, BEEP_GAP_S, CHECK_S = 1000.0, 0.12, 0.35, 3.0
NAME_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Settings:
    """How clips are made alike.

    Attributes:
      rate_hz: of all clips; a low one also hides which system has less bandwidth.
      lufs: integrated loudness, below 0.
      seconds: most of a clip; None leaves the shortest of an item.
      height: most rows of pixels of a video.
    Raises:
      ValueError: a number out of range.
    """

    rate_hz: int = 48000
    lufs: float = -23.0  # EBU R 128
    seconds: float | None = None
    height: int = 360

    def __post_init__(self):
        if self.rate_hz not in writing.AAC_RATES_HZ:
            raise ValueError(f"a rate of {self.rate_hz} Hz, expected {writing.AAC_RATES_HZ}")
        if not -70.0 < self.lufs < 0.0:
            raise ValueError(f"a loudness of {self.lufs} LUFS, expected above -70 and below 0")
        if self.seconds is not None and not LEAST_S <= self.seconds < math.inf:
            raise ValueError(f"clips of {self.seconds} s, expected at least {LEAST_S} s")
        if self.height < 16:
            raise ValueError(f"videos of {self.height} rows, expected at least 16")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a clip comes from: a file with audio, and one with video or None."""

    audio: Path
    video: Path | None


@dataclasses.dataclass(frozen=True)
class Written:
    """A clip of the test.

    Attributes:
      name: of its file; random.
      facts: what was done: "gain_db" (None of a silent clip), "lufs" before, "seconds".
    """

    name: str
    facts: dict[str, float | None]


def write_item(
    folder: Path, sources: Mapping[str, Source], settings: Settings
) -> dict[str, Written]:
    """Writes the clips of one item; all of them, or none.

    Args:
      folder: of the page's media.
      sources: system -> its files; all with video, or none.
    Returns:
      System -> clip.
    Raises:
      MediaError: a file cannot be read.
      ValueError: the shortest has less than 0.1 s.
    """
    heard = {s: audio_io.load(source.audio, settings.rate_hz) for s, source in sources.items()}
    length = min(map(len, heard.values()))
    if settings.seconds is not None:
        length = min(length, round(settings.seconds * settings.rate_hz))
    if length < LEAST_S * settings.rate_hz:
        shortest = min(heard, key=lambda system: len(heard[system]))
        raise ValueError(
            f"{sources[shortest].audio}: {length / settings.rate_hz:.3f} s of audio, expected at "
            f"least {LEAST_S} s"
        )
    cut = {system: _cut(audio_L, length, settings.rate_hz) for system, audio_L in heard.items()}
    alike, facts = equally_loud(cut, settings)
    found: dict[str, Written] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            pictures = _Pictures(Path(scratch), length / settings.rate_hz, settings)
            # when files were written must not say which system is which
            for system in sorted(sources, key=lambda _: secrets.randbits(64)):
                source = sources[system]
                found[system] = Written(_new_name(source.video is not None), facts[system])
                path = folder / found[system].name
                if source.video is None:
                    audio_io.write_wav(path, alike[system], settings.rate_hz)
                else:
                    muxing.mux(pictures.of(source.video), alike[system], settings.rate_hz, path)
    except BaseException:
        for clip in found.values():
            (folder / clip.name).unlink(missing_ok=True)
        raise
    return {system: found[system] for system in sources}


def equally_loud(
    clips: Mapping[str, np.ndarray], settings: Settings
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float | None]]]:
    """Brings clips, float32 [L] by system, to one loudness; silent ones stay as they are.

    Returns:
      The clips within full scale, and what was done by system, as `Written.facts`.
    """
    before = {s: loudness.integrated(audio_L, settings.rate_hz) for s, audio_L in clips.items()}
    sounding = {s: lufs for s, lufs in before.items() if math.isfinite(lufs)}
    peaks_db = {s: 20 * math.log10(level.peak(clips[s])) for s in sounding}
    most_db = 20 * math.log10(level.FULL_SCALE)
    target = min([settings.lufs, *(most_db - peaks_db[s] + sounding[s] for s in sounding)])
    made, facts = {}, {}
    for system, audio_L in clips.items():
        gain_db = target - sounding[system] if system in sounding else None
        gain = 1.0 if gain_db is None else 10.0 ** (gain_db / 20)
        made[system] = np.clip(audio_L * np.float32(gain), -1.0, 1.0)
        facts[system] = {
            "gain_db": gain_db,
            "lufs": sounding.get(system),
            "seconds": len(audio_L) / settings.rate_hz,
        }
    return made, facts


def write_check(folder: Path, beeps: int, settings: Settings) -> str:
    """Writes the clip of an attention check, 3 s with so many beeps; returns its name.

    Raises:
      ValueError: not 1 to 5 beeps.
    """
    if not 1 <= beeps <= 5:
        raise ValueError(f"{beeps} beeps, expected 1 to 5")
    rate = settings.rate_hz
    audio_L = np.zeros(round(CHECK_S * rate), np.float32)
    time_L = np.arange(round(BEEP_S * rate)) / rate
    beep_L = np.sin(2 * np.pi * BEEP_HZ * time_L) * np.sin(np.pi * time_L / BEEP_S) ** 2
    for k in range(beeps):
        start = round((0.3 + k * (BEEP_S + BEEP_GAP_S)) * rate)
        audio_L[start : start + len(beep_L)] = beep_L
    made, _ = equally_loud({"": audio_L}, settings)
    name = _new_name(False)
    audio_io.write_wav(folder / name, made[""], rate)
    return name


def _new_name(is_video: bool) -> str:
    return secrets.token_hex(NAME_BYTES) + (".mp4" if is_video else ".wav")


def _cut(audio_L: np.ndarray, length: int, rate_hz: int) -> np.ndarray:
    """The first samples, all clips with the same short fade at the end."""
    cut_L = audio_L[:length].copy()
    fade = min(length, round(FADE_S * rate_hz))
    cut_L[length - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return cut_L


class _Pictures:
    """Silent videos of one length and encoding, each made once.

    Args:
      folder: where they are kept.
      seconds: of the item.
    """

    def __init__(self, folder: Path, seconds: float, settings: Settings):
        self._folder, self._seconds, self._settings = folder, seconds, settings
        self._made: dict[Path, Path] = {}

    def of(self, path: Path) -> Path:
        """The video of a file, encoded anew."""
        if path not in self._made:
            info = video_io.probe(path)
            height = max(2, min(self._settings.height, info.height) // 2 * 2)
            width = max(2, round(info.width * height / max(1, info.height) / 2) * 2)
            fps = min(info.fps or MOST_FPS, MOST_FPS)
            spec = specs.VideoSpec(fps, height, width)
            frames_THWC = video_io.read_frames(path, spec, duration_s=self._seconds)
            lacking = spec.num_frames(self._seconds) - len(frames_THWC)
            if lacking > 0:  # the last frame stays, so that all clips of an item are equally long
                frames_THWC = np.concatenate([frames_THWC, frames_THWC[-1:].repeat(lacking, 0)])
            made = self._folder / f"{len(self._made)}.mp4"
            writing.write_video(made, frames_THWC, fps, preset="fast")
            self._made[path] = made
        return self._made[path]
