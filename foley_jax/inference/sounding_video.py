"""Sounding videos (MM-Diffusion): the public API behind `sample.load`, and its batch jobs.

av = sample.load("runs/mm_diffusion")  # or the official base model's file
clips = av.generate(num_samples=4, sampler="dpm_solver", steps=20)
av.audio_for("silent.mp4").save("with_sound.mp4")
av.video_for("music.wav", method="replacement").save("with_video.mp4")
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.inference import jobs
from foley_jax.media import audio as audio_io
from foley_jax.media import files, level, plots
from foley_jax.media import video as video_io
from foley_jax.mm_diffusion.sampling import pipeline
from foley_jax.runtime import limits

Settings = pipeline.Settings
SHEET_ROWS = 12  # clips of the contact sheet beside a batch
# of an input: a second takes about 1.5 MB, and 20 MB where its video is enlarged to 256x256
LONGEST_S = 600.0


@dataclasses.dataclass(frozen=True)
class SoundingClip:
    """A clip with video and audio, one or both of them generated.

    Attributes:
      frames_THWC: uint8; `fps` of them a second.
      audio: float32 [samples] in about [-1, 1]; `sample_rate` in Hz.
      name: of the input file, or of the clip.
      video: the file whose video was given; saving keeps that image untouched.
      fault: why it is no clip, and at which step it became none; empty if it is one.
      scores: nothing is ranked; `gain_db` where `audio` is beyond full scale, see `Clip.scores`.
    """

    frames_THWC: np.ndarray
    fps: float
    audio: np.ndarray
    sample_rate: int
    name: str = ""
    video: Path | None = None
    fault: str = ""

    @property
    def has_video(self) -> bool:
        """Whether there is a video, as of `Clip`: there always is."""
        return True

    @property
    def scores(self) -> dict[str, float]:
        return level.report(self.audio)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `.wav`, or a video file with video and audio.

        Raises:
          ValueError: the suffix is neither `.wav` nor a video container, or the clip is not
            finite.
        """
        if self.fault:
            raise ValueError(self.fault)
        jobs.save_clip(
            path, self.audio, self.sample_rate, name=self.name, save_video=self._save_video
        )

    def _save_video(self, path: Path, audio: np.ndarray) -> None:
        if self.video is not None:
            video_io.mux(self.video, audio, self.sample_rate, path)
            return
        video_io.write_video(
            path,
            self.frames_THWC,
            self.fps,
            audio=audio,
            sample_rate_hz=self.sample_rate,
        )

    def row(self) -> plots.SheetRow:
        """The clip as a feature of a contact sheet."""
        return plots.SheetRow(
            self.frames_THWC, self.audio, self.sample_rate, self.fps, title=self.name
        )

    def plot(self, path: str | os.PathLike) -> None:
        """Draws frames and waveform on one time axis into a PNG."""
        plots.save_contact_sheet(path, [self.row()])


class SoundingVideo:
    """A loaded MM-Diffusion model."""

    def __init__(self, model: pipeline.MMDiffusion, source: str):
        self.model, self.source = model, source

    def within(self, run: pipeline.Run) -> "SoundingVideo":
        """Returns the same model, its work part of `run`."""
        return SoundingVideo(self.model.within(run), self.source)

    def generate(self, num_samples: int = 1, **settings: Any) -> list[SoundingClip]:
        """Sounding videos from noise.

        Args:
          num_samples: how many; clip i depends on the seed and i, not on how many there are.
          settings: fields of `mm_diffusion.sampling.Settings`: seed, sampler, steps,
            super_resolve, preset.
        Raises:
          ValueError: a setting is out of range. A clip that is not finite has a `fault`.
        """
        num_samples = limits.whole("num_samples", num_samples, 1)
        checked = self._checked(settings)
        requests = [pipeline.Request(noise_name(i)) for i in range(num_samples)]
        results = self.model.make(requests, checked)
        return [self.clip(r, result) for r, result in zip(requests, results)]

    def audio_for(self, video: str | os.PathLike, **settings: Any) -> SoundingClip:
        """Audio for a video of any length, zero-shot; its own audio, if any, is not read.

        Args:
          settings: fields of `mm_diffusion.sampling.Settings`: seed, method ("gradient" or
            "replacement"), scale, steps, preset.
        Raises:
          foley_jax.media.video.MediaError: the file has no readable video.
          ValueError: a setting is out of range.
        """
        return self._one(self.read_video, video, settings)

    def video_for(self, audio: str | os.PathLike, **settings: Any) -> SoundingClip:
        """Image for an audio clip of any length, zero-shot; settings as `audio_for`, super_resolve.

        Raises:
          foley_jax.media.video.MediaError: the file has no readable audio.
          ValueError: a setting is out of range.
        """
        return self._one(self.read_audio, audio, settings)

    def _one(
        self,
        read: Callable[[Path], pipeline.Request],
        path: str | os.PathLike,
        settings: dict[str, Any],
    ) -> SoundingClip:
        checked = self._checked(settings)  # before the file is read
        request = read(Path(path))
        made = self.clip(request, self.model.make([request], checked)[0])
        if made.fault:
            raise ValueError(f"{path}: {made.fault}")
        return made

    def _checked(self, settings: dict[str, Any]) -> pipeline.Settings:
        checked = pipeline.Settings(**settings)
        self.model.check(checked)
        return checked

    def read_video(self, video: Path) -> pipeline.Request:
        """Decodes frames at the model's rate and size.

        Raises:
          foley_jax.media.video.MediaError: no readable video, or more than `LONGEST_S`.
        """
        spec = self.model.video
        most = spec.num_frames(LONGEST_S) * video_io.frame_bytes(spec)
        frames_THWC, length_s = video_io.read_whole(video, spec, most_bytes=most)
        if isinstance(frames_THWC, video_io.Stream):
            raise _too_long(video, length_s)
        return pipeline.Request(video.stem, frames_THWC=frames_THWC, path=video)

    def read_audio(self, audio: Path) -> pipeline.Request:
        """Decodes audio at the model's rate.

        Raises:
          foley_jax.media.video.MediaError: no readable audio, or more than `LONGEST_S`.
        """
        _, length_s = audio_io.rate_and_length(audio)
        if length_s > LONGEST_S:
            raise _too_long(audio, length_s)
        audio_L = audio_io.load(audio, self.model.audio.sample_rate_hz)
        return pipeline.Request(audio.stem, audio_L=audio_L, path=audio)

    def clip(self, request: pipeline.Request, result: pipeline.Result) -> SoundingClip:
        """Wraps a result with where it comes from."""
        return SoundingClip(
            frames_THWC=result.frames_THWC,
            fps=self.model.video.fps,
            audio=result.audio,
            sample_rate=self.model.audio.sample_rate_hz,
            name=request.name,
            video=None if request.frames_THWC is None else request.path,
            fault=result.fault,
        )


def _too_long(path: Path, length_s: float) -> video_io.MediaError:
    return video_io.MediaError(
        "unsupported",
        f"{path} lasts {length_s:.0f} s; MM-Diffusion takes at most {LONGEST_S:.0f} s, because all "
        "that it makes of an input is in memory; cut it into parts",
    )


def noise_name(index: int) -> str:
    """Name of the clip that is made from noise number `index`."""
    return f"sample_{index:04d}"


def work(
    inputs: Sequence[str | os.PathLike], num_samples: int, out: str | os.PathLike | None = None
) -> tuple[str, list[Path]]:
    """Returns what the inputs ask for ("generate", "audio_for" or "video_for"), and on what.

    Args:
      inputs: files, and folders to search; none is clips from noise.
      num_samples: how many clips from noise.
      out: where the clips will be written; not searched.
    Raises:
      FileNotFoundError: no file of a known kind among the inputs.
      ValueError: video and audio together, several clips for an input, or `out` among the
        inputs.
    """
    if not inputs:
        num_samples = limits.whole("num_samples", num_samples, 1)
        return "generate", [Path(noise_name(i)) for i in range(num_samples)]
    if num_samples != 1:
        raise ValueError(
            f"num_samples is {num_samples}: it counts clips from noise; for an input give one "
            "--seed after the other"
        )
    known = (*files.VIDEO_SUFFIXES, *files.AUDIO_SUFFIXES)
    paths = jobs.find_inputs(inputs, out, known)
    audio_clips = [path for path in paths if path.suffix.lower() in files.AUDIO_SUFFIXES]
    if audio_clips and len(audio_clips) < len(paths):
        raise ValueError(
            f"{len(audio_clips)} of {len(paths)} inputs are audio, the others videos; give either "
            "videos, to get audio, or audio, to get videos"
        )
    return "video_for" if audio_clips else "audio_for", paths


@dataclasses.dataclass
class Job:
    """`jobs.Job` of all three: `task` is "generate", "audio_for" or "video_for".

    Attributes:
      features: the first clips, for the contact sheet.
    """

    av: SoundingVideo
    task: str
    options: pipeline.Settings
    networks: dict[str, str | None]  # where they come from
    rows: list[plots.SheetRow] = dataclasses.field(default_factory=list)

    def read(self, path: Path) -> pipeline.Request:
        if self.task == "generate":
            return pipeline.Request(path.name)
        return (self.av.read_video if self.task == "audio_for" else self.av.read_audio)(path)

    def make(self, sources: Sequence[pipeline.Request]) -> list[SoundingClip]:
        results = self.av.model.make(sources, self.options)
        return [self.av.clip(request, result) for request, result in zip(sources, results)]

    def finish(self, made: Sequence[SoundingClip]) -> list[list[SoundingClip]]:
        audio = [clip.row() for clip in made if not clip.fault]
        self.rows += audio[: SHEET_ROWS - len(self.rows)]
        return [[clip] for clip in made]

    def settings(self) -> dict:
        return {"task": self.task, **dataclasses.asdict(self.options), **self.networks}
