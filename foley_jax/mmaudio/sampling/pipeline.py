"""From decoded frames and text to audio: features, windows, flow, mel, waveform.

Axis letters: N windows, T frames, D width, F mel bins, W columns of a tape, C latent channels.
"""

from collections.abc import Iterator, Sequence
import copy
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from foley_jax.diffusion import known as known_lib
from foley_jax.diffusion import tape, varying, windows
from foley_jax.media import editing, specs, spool
from foley_jax.mmaudio import mel as mel_lib
from foley_jax.mmaudio import rates as rates_lib
from foley_jax.mmaudio import sources as sources_lib
from foley_jax.mmaudio import tokens
from foley_jax.mmaudio.sampling import features, known_audio, solve, window_spec
from foley_jax.mmaudio.sampling import settings as settings_lib
from foley_jax.runtime import grouped, limits, network, seed_keys
from foley_jax.runtime import run as run_lib
from foley_jax.vocoders import decode
from foley_jax.vocoders import griffin_lim as vocoder_lib

Settings, Source, Run = settings_lib.Settings, sources_lib.Source, run_lib.Run
TAPE_WINDOWS = 256  # denoised together, unless one clip has more: 26 minutes


class Result(NamedTuple):
    """Generated audio: float32 [samples], and the log-mel [F, T] it was made from.

    `sample` is its number among those of its seed; `fault` says why it is no audio, or is empty.
    """

    audio: np.ndarray
    mel_FT: np.ndarray
    sample: int = 0
    fault: str = ""


class GeneratedMel(NamedTuple):
    """A generated mel that is no audio yet, of a source and the sample's number."""

    source: Source
    sample: int
    mel_FT: np.ndarray


class _Request(NamedTuple):
    """A clip to make.

    Its windows, its video's features (or None), its name and number, what is known of it, and
    latents [1, W, C] that are varied.
    """

    windows: list[windows.Window]
    clip_TD: np.ndarray | None
    sync_TD: np.ndarray | None
    name: str
    sample: int
    kept: known_lib.KnownColumns | None = None
    varied_1WC: np.ndarray | None = None


class MMAudio:
    """The networks of MMAudio and the walk of videos and text through them.

    Args:
      flow, autoencoder: flow network and mel autoencoder.
      vocoder: its mels to audio.
      rates: "16k" or "44k" of `rates.RATES`.
      clip, sync: encoders of images (and text), and of segments; without them there is no audio for
        videos, and without `clip` no text.
      tokenizer: texts to ids [B, 77].
      clip_video, sync_video: what the encoders see.
      window_s: seconds of a window, what the flow network was trained on.
      student_steps: evaluations that a distilled flow network was made for; None for others.
      device_windows: windows in the batch of one device; by default 2 on CPU and 16 elsewhere.
      mesh: devices of this process that share the work, see `mesh.local_mesh`; None is one.

    Attributes:
      run: what the work is part of, see `Run` and `within`.
    """

    def __init__(
        self,
        *,
        flow: network.Network,
        autoencoder: network.Network,
        vocoder: vocoder_lib.Vocoder,
        rates: rates_lib.Rates,
        clip: network.Network | None = None,
        sync: network.Network | None = None,
        tokenizer: tokens.Tokenizer | None = None,
        clip_video: specs.VideoSpec = rates_lib.CLIP_VIDEO,
        sync_video: specs.VideoSpec = rates_lib.SYNC_VIDEO,
        window_s: float = rates_lib.WINDOW_S,
        student_steps: int | None = None,
        device_windows: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.run, self.rates, self.audio = Run(), rates, rates.audio
        self.student_steps = student_steps
        self.num_devices = 1 if mesh is None else mesh.size
        self.flow, self.autoencoder = flow.on(mesh), autoencoder.on(mesh)
        self.clip, self.sync = clip and clip.on(mesh), sync and sync.on(mesh)
        self.tokenizer, self.clip_video, self.sync_video = tokenizer, clip_video, sync_video
        self.vocoder = vocoder if mesh is None else decode.OverDevices(vocoder, mesh)
        overlap_s = min(window_spec.OVERLAP_S, window_s / 4)
        self.window = window_spec.window_spec(rates, window_s, overlap_s)
        on_cpu = jax.default_backend() == "cpu"
        self.device_windows = device_windows or (2 if on_cpu else 16)
        self._encode_images = self.clip and self.clip.jit(features.encode_images)
        self._encode_texts = self.clip and self.clip.jit(features.encode_texts)
        self._encode_segments = self.sync and self.sync.jit(features.encode_segments)
        self._known = known_audio.encoder(self.autoencoder, rates, self.window)
        self._decoders, self._programs, self._texts = {}, {}, {}
        model = flow.module()
        if np.isnan(np.asarray(model.latent_std[...])).any():
            raise ValueError(
                "the flow network knows no statistics of its latents (latent_std is nan): it was "
                "never trained; load a trained one"
            )
        self._text_shape = model.empty_string_feat.shape
        self._widths = model.empty_clip_feat.shape[-1], model.empty_sync_feat.shape[-1]

    def within(self, run: Run) -> "MMAudio":
        """Returns the same model, its work part of `run`."""
        model = copy.copy(self)
        model.run = run
        return model

    def check(self, settings: Settings) -> None:
        """Whether the networks can follow the settings.

        Raises:
          ValueError: a text without CLIP or its tokenizer, or what a student cannot follow.
        """
        if self.student_steps is not None:
            self._check_student(settings)
        if not (settings.text or settings.negative_text):
            return
        if self.clip is None or self.tokenizer is None:
            missing = "CLIP's network" if self.clip is None else "the file of CLIP's merges"
            raise ValueError(
                f"text needs {missing}, which was not loaded; put it beside the model (see "
                "foley_jax/mmaudio/README.md), or leave text and negative_text out"
            )

    def _check_student(self, settings: Settings) -> None:
        """Raises ValueError for settings that a student cannot follow; its guidance is its own."""
        limits.student_steps(settings.steps, self.student_steps)
        if settings.vary < 1:
            raise ValueError("a distilled model begins with noise alone; give vary=1")
        if settings.sampler != "euler" or settings.negative_text:
            raise ValueError(
                "a distilled model has its own sampler and guidance: leave out sampler and "
                "negative_text"
            )

    def read(self, video: Path, settings: Settings) -> Source:
        """Decodes what the model needs of a video.

        Raises:
          foley_jax.media.video.MediaError: the file has no readable video.
          ValueError: the encoders of images were not loaded.
        """
        if self.clip is None or self.sync is None:
            raise ValueError(
                "audio for a video needs CLIP and Synchformer, which were not loaded; put their "
                "files beside the model (see foley_jax/mmaudio/README.md)"
            )
        official = settings.preset == "official"
        reader = sources_lib.read_official if official else sources_lib.read
        return reader(Path(video), self.clip_video, self.sync_video, settings.duration)

    # ---- generation ---------------------------------------------------------------------------

    def generate(self, sources: Sequence[Source], settings: Settings) -> list[list[Result]]:
        """Audio for several clips in shared device batches: for each its `num_samples` results.

        Raises:
          ValueError: a video without frames, or settings the model cannot follow.
        """
        return self.finish(self.draft(sources, settings), settings)

    def draft(self, sources: Sequence[Source], settings: Settings) -> list[GeneratedMel]:
        """The device's share of `generate`: mels, the samples of every source in order."""
        self.check(settings)
        with self.run.watch("features"):
            seen = self._features(sources)
        official = settings.preset == "official"
        for source in sources:
            _check_known(source, settings)
        groups: dict[window_spec.WindowSpec, list[int]] = {}  # what fits on one tape
        for i, source in enumerate(sources):
            groups.setdefault(self._window_of(source, official), []).append(i)
        drafts: dict[int, list[GeneratedMel]] = {}
        for spec, members in groups.items():
            requests = [
                request._replace(sample=sample)
                for i in members
                for request in [self._request(sources[i], seen[i], spec, official)]
                for sample in range(settings.num_samples)
            ]
            mels = []
            for some in tape.divided([r.windows for r in requests], TAPE_WINDOWS):
                mels += self._mels(requests[some], spec, settings)
            for n, i in enumerate(members):
                own = mels[n * settings.num_samples : (n + 1) * settings.num_samples]
                kept = sources[i]._replace(clip_frames=None, sync_frames=None)
                drafts[i] = [GeneratedMel(kept, k, mel_FT) for k, mel_FT in enumerate(own)]
        return [draft for i in range(len(sources)) for draft in drafts[i]]

    def _request(
        self,
        source: Source,
        seen: tuple[np.ndarray | None, np.ndarray | None],
        spec: window_spec.WindowSpec,
        official: bool,
    ) -> _Request:
        """The first sample of a source."""
        plan = [windows.Window(0, 0)] if official else window_spec.plan(source.duration_s, spec)
        name = source.path.stem if source.clip_frames is not None else source.path.name
        blocks = tape.num_blocks(plan, spec)
        kept = source.kept and self._known(source.kept, blocks)
        varied_1WC = source.varied and self._known(source.varied, blocks).z_HWC
        return _Request(plan, *seen, name, 0, kept, varied_1WC)

    def _window_of(self, source: Source, official: bool) -> window_spec.WindowSpec:
        if not official:
            return self.window
        return window_spec.window_spec(self.rates, source.duration_s, 0.0)

    def _features(
        self, sources: Sequence[Source]
    ) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
        """(CLIP's features [T, D], Synchformer's [8 T', D]) of every source, or (None, None)."""
        films = [i for i, s in enumerate(sources) if s.clip_frames is not None]
        if not films:
            return [(None, None)] * len(sources)
        batch = self.num_devices * (4 if jax.default_backend() == "cpu" else 32)
        singles = (features.single(sources[i].clip_frames) for i in films)
        clips = grouped.encode(self._encode_images, singles, batch=batch)
        segments = (features.segments(sources[i].sync_frames) for i in films)
        syncs = grouped.encode(self._encode_segments, segments, batch=max(1, batch // 4))
        found = dict(zip(films, zip(clips, syncs, strict=True), strict=True))
        return [found.get(i, (None, None)) for i in range(len(sources))]

    def text_features(self, text: str) -> np.ndarray:
        """CLIP's features of a text's tokens, float32 [1, 77, D]; kept for the next call."""
        if text not in self._texts:
            if len(self._texts) >= 64:  # texts; each is 0.3 MB
                self._texts.clear()
            self._texts[text] = np.asarray(self._encode_texts(jnp.asarray(self.tokenizer([text]))))
        return self._texts[text]

    def _mels(
        self, requests: Sequence[_Request], spec: window_spec.WindowSpec, settings: Settings
    ) -> list[np.ndarray]:
        """The joined mel [F, T] of every request."""
        packed, batch = self._packed(requests, spec, settings)
        with self.run.watch("diffusion"):
            z_WC = self._latents(packed, settings, batch)
        with self.run.watch("autoencoder"):
            parts = self._parts(z_WC, packed, batch, spec.num_columns)
            return [self._joined(r, itertools.islice(parts, len(r.windows))) for r in requests]

    def _packed(
        self, requests: Sequence[_Request], spec: window_spec.WindowSpec, settings: Settings
    ) -> tuple[solve.Packed, int]:
        """The requests on a tape, and how many windows a device batch has."""
        laid = tape.lay_out(
            [r.windows for r in requests],
            spec,
            self.device_windows,
            num_devices=self.num_devices,
        )
        keys = [
            seed_keys.block_keys(settings.seed, r.name, r.sample, count)
            for r, count in zip(requests, laid.blocks)
        ]
        clip_NVD = np.zeros((laid.size, spec.lengths.clip, self._widths[0]), np.float32)
        sync_NSD = np.zeros((laid.size, spec.lengths.sync, self._widths[1]), np.float32)
        seen_N, at = np.zeros(laid.size, bool), 0
        for r in requests:
            span = slice(at, at + len(r.windows))
            at = span.stop
            if r.clip_TD is not None:
                clip_NVD[span] = window_spec.clip_features(r.clip_TD, r.windows, spec)
                sync_NSD[span] = window_spec.sync_features(r.sync_TD, r.windows, spec)
                seen_N[span] = True
        count = laid.size * spec.num_columns
        has_text, negative = bool(settings.text), settings.negative_text
        return solve.Packed(
            cover=laid.cover,
            clip_NVD=clip_NVD,
            sync_NSD=sync_NSD,
            seen_N=seen_N,
            text_N=np.full(laid.size, 0 if has_text else -1, np.int32),
            text_MTD=self.text_features(settings.text)
            if has_text
            else np.zeros((1, *self._text_shape), np.float32),
            negative_1TD=self.text_features(negative) if negative else None,
            keys_K=tape.padded(np.concatenate(keys), laid.size),
            kept=known_lib.columns_on_tape([r.kept for r in requests], laid.starts, count),
            varied_1WC=known_lib.on_tape([r.varied_1WC for r in requests], laid.starts, count),
        ), laid.batch

    def _latents(self, packed: solve.Packed, settings: Settings, batch: int) -> jax.Array:
        """Latents [W, C] of a tape, un-normalised."""
        guided = self.student_steps is None and settings.scale != 1
        skip = varying.skipped(settings.vary, settings.steps)
        program = solve.Program(settings.steps, settings.sampler, guided, batch, skip)
        key = (program, packed.kept is not None)
        if key not in self._programs:
            fn = lambda model, packed, scale: solve.sample(program, model, packed, scale)  # noqa: E731
            name = f"mmaudio sample {program}" + " kept" * (packed.kept is not None)
            self._programs[key] = self.flow.jit(fn, name=name)
        made = self._programs[key](packed, jnp.float32(settings.scale))
        return jax.block_until_ready(made)  # the next step would wait as long

    def _parts(
        self, z_WC: jax.Array, packed: solve.Packed, batch: int, width: int
    ) -> Iterator[np.ndarray]:
        """Mel [F, T] of every window of a tape; those of one device batch are held."""
        if width not in self._decoders:
            fn = lambda model, z_WC, first_B: solve.decode(model, z_WC, first_B, width=width)  # noqa: E731
            self._decoders[width] = self.autoencoder.jit(fn, name=f"mmaudio decode {width}")
        first_N, count = packed.cover.first_N, int(packed.cover.count)
        for at in range(0, count, batch):
            made = np.asarray(self._decoders[width](z_WC, first_N[at : at + batch]))
            yield from made[: count - at]

    def _joined(self, request: _Request, parts: Iterator[np.ndarray]) -> np.ndarray:
        """The mel [F, T] of one clip from those of its windows."""
        first = [rates_lib.FRAMES_A_LATENT * window.column for window in request.windows]
        made = spool.Spool((self.audio.num_mels,), self.run.scratch)
        for part_FT in windows.joined(parts, first):
            made.append(part_FT.T)
        return made.array().T

    # ---- audio --------------------------------------------------------------------------------

    def finish(self, drafts: Sequence[GeneratedMel], settings: Settings) -> list[list[Result]]:
        """Mels to audio: for each source its samples in order."""
        if settings.preset == "official":  # all that the vocoder makes
            lengths = [d.mel_FT.shape[1] * self.audio.hop for d in drafts]
        else:
            lengths = [self.audio.num_samples(d.source.duration_s) for d in drafts]
        on_cpu = jax.default_backend() == "cpu"  # where a batch brings nothing
        with self.run.watch("vocoder"):
            audios = decode.vocode(
                [d.mel_FT for d in drafts],
                lengths,
                self.audio,
                max_batch=1 if on_cpu else self.device_windows,
                through=self.vocoder,
                num_devices=self.num_devices,
                folder=self.run.scratch,
                silence=mel_lib.floor(self.rates),
            )
        rate_hz = self.audio.sample_rate_hz
        audios = [editing.spliced(d.source.kept, own, rate_hz) for d, own in zip(drafts, audios)]
        results = [
            Result(audio, d.mel_FT, d.sample, _fault(d.mel_FT, audio))
            for d, audio in zip(drafts, audios, strict=True)
        ]
        n = settings.num_samples
        return [results[at : at + n] for at in range(0, len(results), n)]


def _check_known(source: Source, settings: Settings) -> None:
    """Raises ValueError for known audio that the settings cannot use."""
    editing.check_given(source.varied, settings.vary)
    if settings.preset == "official" and source.kept is not None:
        raise ValueError(
            "preset 'official' keeps no audio, the published demo had no such thing; use preset "
            "'default' to regenerate a span"
        )


def _fault(mel_FT: np.ndarray, audio: np.ndarray) -> str:
    """Why a result is no audio; empty if it is."""
    if not all(math.isfinite(float(piece.sum())) for piece in spool.pieces(mel_FT.T)):
        return "the mel is not finite; check the model's training, or use dtype float32"
    if not all(np.isfinite(piece).all() for piece in spool.pieces(audio)):
        return "the audio is not finite; check the vocoder's weights, or use dtype float32"
    return ""
