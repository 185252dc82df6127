"""MMAudio behind `sample.load`: a call with a video, text or both, and batch jobs.

foley = sample.load("official_mmaudio/")
clip = foley("silent.mp4", text="a dog barks", negative_text="music", seed=0, guidance=4.5)
clip = foley(text="waves on a beach", duration=8.0)  # without a video
clip = foley("heard.mp4", text="a dog barks", regenerate=(2.0, 3.5))  # all else is kept
clip.save("with_sound.mp4"); clip.save("sound.wav"); clip.plot("mel.png")
"""

from collections.abc import Sequence
import dataclasses
import math
import os
from pathlib import Path
import re

from foley_jax.inference import clip as clip_lib
from foley_jax.inference import edits, jobs
from foley_jax.media import audio as audio_io
from foley_jax.media import level
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import sources as sources_lib
from foley_jax.mmaudio.sampling import pipeline

NAME_LETTERS = 60  # of a text that names its files


class TextFoley:
    """A loaded MMAudio model; call it with a video, text, or both."""

    def __init__(self, model: pipeline.MMAudio, source: str):
        self.model, self.source = model, source

    def within(self, run: pipeline.Run) -> "TextFoley":
        """Returns the same model, its work part of `run`."""
        return TextFoley(self.model.within(run), self.source)

    def __call__(
        self,
        video: str | os.PathLike | None = None,
        *,
        text: str = "",
        negative_text: str = "",
        seed: int = 0,
        steps: int = 25,
        guidance: float = 4.5,
        duration: float | None = None,
        num_samples: int = 1,
        sampler: str = "euler",
        preset: str = "default",
        regenerate: tuple[float, float] | None = None,
        audio: str | os.PathLike | None = None,
        vary: float = 1.0,
    ) -> clip_lib.Clip | list[clip_lib.Clip]:
        """Makes audio for a video of any length, frame rate and size, for a text, or for both.

        Args:
          video: path of a file with a video stream; its own audio is read for `regenerate` and
            `vary` only. None: `text` alone.
          text: what is heard.
          negative_text: what is not to be heard.
          seed: 0 to 2**64 - 1; same seed, video name and settings give the same audio.
          steps: solver steps.
          guidance: classifier-free guidance scale; 1 is no guidance.
          duration: seconds of audio; None is the whole video, and without one `audio` with what
            extends it, or 8 s.
          num_samples: audio clips; one is returned as a Clip, several as a list.
          sampler: "euler" or "heun".
          preset: "default", or "official": the published demo with its mistakes, see
            `settings.Settings`.
          regenerate: (start, stop) in seconds: only this span is made, the rest of the audio is
            kept to the sample. With a start where the audio ends, it is extended.
          audio: file with the audio that `regenerate` keeps or `vary` begins with; by default the
            video's own.
          vary: below 1, the audio is varied: sampling begins with it, noised to this share of the
            steps, so that little keeps it nearly as it was; 1 makes all anew and reads none.
        Raises:
          foley_jax.media.video.MediaError: the file has no readable video, or no audio to keep.
          ImportError, ValueError: text without its tokenizer; a setting is out of range; neither a
            video nor a text; no audio is finite.
        """
        is_edit = regenerate is not None or vary != 1
        if video is None and is_edit:
            duration = _edited_s(audio, regenerate, duration)
        settings = pipeline.Settings(
            seed=seed,
            steps=steps,
            guidance=guidance,
            text=text,
            negative_text=negative_text,
            duration=duration,
            num_samples=num_samples,
            sampler=sampler,
            preset=preset,
            vary=vary,
        )
        self.model.check(settings)  # before the file is read
        edits.check(regenerate, settings.vary)
        source = self.read(None if video is None else Path(video), settings)
        rate_hz = self.model.audio.sample_rate_hz
        source = edits.edited(
            source, rate_hz, regenerate=regenerate, vary=settings.vary, audio=audio
        )
        clips = self.clips(source, self.model.generate([source], settings)[0], video is not None)
        if clips[0].fault:
            raise ValueError(f"{clips[0].video}: {clips[0].fault}")
        return clips[0] if num_samples == 1 else clips

    def read(self, video: Path | None, settings: pipeline.Settings) -> pipeline.Source:
        """Decodes what the model needs of a video, or makes a source of the text alone.

        Raises:
          ValueError: neither a video nor a text.
        """
        if video is not None:
            return self.model.read(video, settings)
        if not settings.text:
            raise ValueError("neither a video nor a text; give at least one of them")
        return sources_lib.of_text(text_name(settings.text), settings.duration)

    def clips(
        self, source: pipeline.Source, results: Sequence[pipeline.Result], has_video: bool
    ) -> list[clip_lib.Clip]:
        """Wraps generated results with the file that they belong to."""
        audio = self.model.audio
        return [
            clip_lib.Clip(
                audio=result.audio,
                sample_rate=audio.sample_rate_hz,
                mel_FT=mel_lib.unit(result.mel_FT, self.model.rates),
                frame_s=audio.frame_s,
                scores={} if result.fault else level.report(result.audio),
                video=source.path,
                sample=result.sample,
                fault=result.fault,
                has_video=has_video,
            )
            for result in results
        ]


def _edited_s(
    audio: str | os.PathLike | None, span: tuple[float, float] | None, duration: float | None
) -> float:
    """Returns the seconds of audio that is edited without a video.

    Raises:
      ValueError: there is no audio.
    """
    if audio is None:
        raise ValueError(
            "without a video, regenerate and vary need the file of their audio (audio=...)"
        )
    if duration is not None:
        return duration
    _, length_s = audio_io.rate_and_length(audio)
    stop_s = span[1] if span is not None and math.isfinite(span[1]) else 0.0
    return max(length_s, stop_s)


def text_name(text: str) -> str:
    """Returns a file name for a text: its letters and digits, and few of them."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:NAME_LETTERS] or "text"


def work(
    inputs: Sequence[str | os.PathLike], text: str, out: str | os.PathLike | None
) -> tuple[bool, list[Path]]:
    """Returns whether there are videos, and the videos, or the name of the text alone.

    Raises:
      FileNotFoundError: no video among the inputs.
      ValueError: neither inputs nor a text.
    """
    if inputs:
        return True, jobs.find_inputs(inputs, out)
    if not text:
        raise ValueError("no videos and no --text; give at least one of them")
    return False, [Path(text_name(text))]


@dataclasses.dataclass(frozen=True)
class Job:
    """`jobs.Job` of videos, or of a text alone."""

    foley: TextFoley
    options: pipeline.Settings
    has_video: bool
    networks: dict[str, str | None]  # where they come from
    regenerate: tuple[float, float] | None = None  # all else of their own audio is kept

    def __post_init__(self):
        edits.check(self.regenerate, self.options.vary)
        if not self.has_video and (self.regenerate or self.options.vary < 1):
            raise ValueError(
                "regenerate and vary keep the audio of videos, and there are none; the Python API "
                "takes an audio file: foley(text=..., audio=...)"
            )

    def read(self, video: Path) -> pipeline.Source:
        source = self.foley.read(video if self.has_video else None, self.options)
        rate_hz = self.foley.model.audio.sample_rate_hz
        return edits.edited(source, rate_hz, regenerate=self.regenerate, vary=self.options.vary)

    def make(self, sources: Sequence[pipeline.Source]) -> list[pipeline.GeneratedMel]:
        return self.foley.model.draft(sources, self.options)

    def finish(self, mels: Sequence[pipeline.GeneratedMel]) -> list[list[clip_lib.Clip]]:
        results = self.foley.model.finish(mels, self.options)
        sources = [mel.source for mel in mels[:: self.options.num_samples]]
        return [self.foley.clips(s, r, self.has_video) for s, r in zip(sources, results)]

    def settings(self) -> dict:
        edit = {"regenerate": list(self.regenerate)} if self.regenerate else {}
        return {**self.options.record(), **self.networks, **edit}
