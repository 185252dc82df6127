"""Diff-Foley behind `sample.load`: a call with a video, the clip it gives, and batch jobs.

foley = sample.load("runs/ldm")
clip = foley("silent.mp4", seed=0, steps=25, guidance=4.5, alignment=50.0, num_samples=4)
clip.save("with_sound.mp4"); clip.save("sound.wav"); clip.plot("mel.png")
"""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path

from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.sampling import pipeline
from foley_jax.inference import clip as clip_lib
from foley_jax.inference import edits
from foley_jax.media import audio as audio_io
from foley_jax.media import level
from foley_jax.media import video as video_io

RECONSTRUCTED_S = 120.0  # the memory of the autoencoder's attention grows with the square


Clip = clip_lib.Clip


class Foley:
    """A loaded Diff-Foley model; call it with a video."""

    def __init__(self, model: pipeline.DiffFoley, source: str):
        self.model, self.source = model, source

    def within(self, run: pipeline.Run) -> "Foley":
        """Returns the same model, its work part of `run`."""
        return Foley(self.model.within(run), self.source)

    def __call__(
        self,
        video: str | os.PathLike,
        *,
        seed: int = 0,
        steps: int = 25,
        guidance: float = 4.5,
        alignment: float = 50.0,
        num_samples: int = 1,
        keep_best: int = 1,
        sampler: str = "dpm_solver",
        cache_interval: int = 1,
        cache_depth: int = 1,
        preset: str = "default",
        regenerate: tuple[float, float] | None = None,
        audio: str | os.PathLike | None = None,
        vary: float = 1.0,
    ) -> Clip | list[Clip]:
        """Makes audio for one video of any length, frame rate and size.

        Args:
          video: path of a file with a video stream; its own audio is read for `regenerate` and
            `vary` only.
          seed: 0 to 2**64 - 1; same seed, video name and settings give the same audio.
          steps: solver steps.
          guidance: classifier-free guidance scale; 1 is no guidance.
          alignment: scale of the alignment classifier's guidance; 0, or a model loaded without
            a classifier, is none.
          num_samples: how many audio clips to make.
          keep_best: how many to return, best first (see `Clip.scores`); one is returned as a
            Clip, several as a list.
          sampler: "dpm_solver" (DPM-Solver++(2M)), "ddim" or "plms".
          cache_interval, cache_depth: the U-Net's deep layers are computed at every
            `cache_interval`-th step only, for speed; see `settings.Settings`.
          preset: "default", or "official": the published notebook with its mistakes, among them
            a pitch that is 27 % low; see `settings.Settings`.
          regenerate: (start, stop) in seconds: only this span is made, the rest of the audio is
            kept to the sample. With a start where the audio ends, it is extended.
          audio: file with the audio that `regenerate` keeps or `vary` begins with; by default the
            video's own.
          vary: below 1, the audio is varied: sampling begins with it, noised to this share of the
            steps, so that little keeps it nearly as it was; 1 makes all anew and reads none.
        Raises:
          foley_jax.media.video.MediaError: the file has no readable video, or no audio to keep.
          ValueError: a setting is out of range, or no audio is finite; the message then names the
            solver step, the window and the term where it began.
        """
        settings = pipeline.Settings(
            seed=seed,
            steps=steps,
            guidance=guidance,
            alignment=alignment,
            num_samples=num_samples,
            keep_best=keep_best,
            sampler=sampler,
            cache_interval=cache_interval,
            cache_depth=cache_depth,
            preset=preset,
            vary=vary,
        )
        self.model.check(settings)  # before the file is read
        edits.check(regenerate, settings.vary)
        rate_hz = self.model.audio.sample_rate_hz
        source = edits.edited(
            self.read(video), rate_hz, regenerate=regenerate, vary=settings.vary, audio=audio
        )
        results = self.model.generate([source], settings)[0]
        clips = [self.clip(video, result) for result in results]
        if clips[0].fault:  # of the best one
            raise ValueError(f"{video}: {clips[0].fault}")
        return clips[0] if keep_best == 1 else clips

    def read(self, video: str | os.PathLike) -> pipeline.Source:
        """Decodes what the model needs of a video (frames at its fps and size, duration).

        Of a video of minutes the frames are decoded later, while their features are computed.
        """
        whole = video_io.read_whole(video, self.model.video, most_bytes=sources_lib.HELD_BYTES)
        return pipeline.Source(Path(video), *whole)

    def read_audio(self, video: str | os.PathLike) -> pipeline.Audio:
        """Decodes a video's own audio at the model's rate.

        Raises:
          foley_jax.media.video.MediaError: no readable audio, or more than `RECONSTRUCTED_S`.
        """
        _, length_s = audio_io.rate_and_length(video)
        if length_s > RECONSTRUCTED_S:
            raise video_io.MediaError(
                "unsupported",
                f"{video} lasts {length_s:.0f} s; at most {RECONSTRUCTED_S:.0f} s go through the "
                "autoencoder in one piece; cut it into parts",
            )
        return pipeline.Audio(Path(video), audio_io.load(video, self.model.audio.sample_rate_hz))

    def clip(self, video: str | os.PathLike, result: pipeline.Result) -> Clip:
        """Wraps a generated result with the file it belongs to."""
        audio = self.model.audio
        return Clip(
            audio=result.audio,
            sample_rate=audio.sample_rate_hz,
            mel_FT=result.mel_FT,
            frame_s=audio.frame_s,
            scores={**result.scores, **level.report(result.audio)},
            video=Path(video),
            sample=result.sample,
            fault=result.fault,
        )


@dataclasses.dataclass(frozen=True)
class GenerateJob:
    """Generated audio for each video."""

    foley: Foley
    options: pipeline.Settings
    networks: dict[str, str | None]  # where they come from
    regenerate: tuple[float, float] | None = None  # all else of their own audio is kept

    def __post_init__(self):
        edits.check(self.regenerate, self.options.vary)

    def read(self, video: Path) -> pipeline.Source:
        source, rate_hz = self.foley.read(video), self.foley.model.audio.sample_rate_hz
        return edits.edited(source, rate_hz, regenerate=self.regenerate, vary=self.options.vary)

    def make(self, sources: Sequence[pipeline.Source]) -> list[pipeline.GeneratedMel]:
        return self.foley.model.draft(sources, self.options)

    def finish(self, mels: Sequence[pipeline.GeneratedMel]) -> list[list[Clip]]:
        every = range(0, len(mels), self.options.num_samples)
        results = self.foley.model.finish(mels, self.options)
        paths = [mels[i].source.path for i in every]
        return [[self.foley.clip(p, r) for r in group] for p, group in zip(paths, results)]

    def settings(self) -> dict:
        edit = {"regenerate": list(self.regenerate)} if self.regenerate else {}
        return {**self.options.record(), **self.networks, **edit}


@dataclasses.dataclass(frozen=True)
class ReconstructJob:
    """Each video's own audio through autoencoder and vocoder: the ceiling of generation."""

    foley: Foley

    def read(self, video: Path) -> pipeline.Audio:
        return self.foley.read_audio(video)

    def make(self, sources: Sequence[pipeline.Audio]) -> Sequence[pipeline.Audio]:
        return sources

    def finish(self, sources: Sequence[pipeline.Audio]) -> list[list[Clip]]:
        results = self.foley.model.reconstruct(sources)
        return [[self.foley.clip(s.path, r)] for s, r in zip(sources, results)]

    def settings(self) -> dict:
        return {"reconstruct": True, "model": self.foley.source}
