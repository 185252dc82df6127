"""From decoded video frames to audio: CAVP features, windows, diffusion, mel, waveform.

Axis letters: B clips in one device batch, T frames, H W, C channels, L features, D width, F mels.
"""

from collections.abc import Iterable, Iterator, Sequence
import copy
import functools
import itertools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from foley_jax.diff_foley import diagnosis
from foley_jax.diff_foley import sources as sources_lib
from foley_jax.diff_foley.models import latent_diffusion
from foley_jax.diff_foley.sampling import (
    feature_cache,
    features,
    known_audio,
    notebook,
    packed_windows,
    similarity,
    solve,
)
from foley_jax.diff_foley.sampling import results as results_lib
from foley_jax.diff_foley.sampling import settings as settings_lib
from foley_jax.diffusion import tape, windows
from foley_jax.media import editing, specs, spool
from foley_jax.media import mel as mel_lib
from foley_jax.runtime import network
from foley_jax.runtime import run as run_lib
from foley_jax.vocoders import decode
from foley_jax.vocoders import griffin_lim as vocoder_lib

NoiseSeed, Settings = packed_windows.NoiseSeed, settings_lib.Settings
Run = run_lib.Run
Source, Audio = sources_lib.Source, sources_lib.Audio
Result, GeneratedMel, ranked = results_lib.Result, results_lib.GeneratedMel, results_lib.ranked
TAPE_WINDOWS = 1024  # denoised together, unless one video has more: two hours
OFFICIAL_S = 600.0  # preset "official" compares every window with all features of the video


def window_of(
    model: latent_diffusion.LatentDiffusion,
    config: ml_collections.ConfigDict,
    audio: specs.AudioSpec,
    video: specs.VideoSpec,
) -> windows.WindowSpec:
    """Returns the part that the model sees at once: its features and latent columns."""
    _, columns, _ = model.latent_shape(audio.num_mels, config.data.window_frames)
    # a model that is told when its features are needs no feature to begin with a column
    exact = {"max_skew_s": float("inf")} if model.unet.locality_bias else {}
    return windows.WindowSpec(
        num_features=config.data.num_rows,
        num_columns=columns,
        feature_s=1.0 / video.fps,
        column_s=model.autoencoder.downsampling[1] * audio.frame_s,
        **exact,
    )


class DiffFoley:
    """The networks of Diff-Foley and the walk of videos through them.

    Args:
      ldm, cavp: the trained networks, `config` and `cavp_config` of their runs.
      classifier: alignment classifier for double guidance (noisy latents), if any.
      scorer: one for scoring finished audio clips; by default the guidance classifier.
      schedule: noise table of the diffusion.
      vocoder: mels to audio; preset "official" always takes its own Griffin-Lim.
      device_windows: windows in the batch of one device; by default 8 on CPU and 64 elsewhere.
      mesh: devices of this process that share the work, see `mesh.local_mesh`; None is one.

    Attributes:
      run: what the work is part of, see `Run` and `within`.
      similarity: scores pairs of video and audio, see `similarity.Similarity`.
    """

    def __init__(
        self,
        *,
        ldm: network.Network,
        cavp: network.Network,
        config: ml_collections.ConfigDict,
        cavp_config: ml_collections.ConfigDict,
        schedule: Any,
        classifier: network.Network | None = None,
        scorer: network.Network | None = None,
        vocoder: vocoder_lib.Vocoder = decode.GRIFFIN_LIM,
        device_windows: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.run = Run()
        self._most_made = 0  # windows of the largest batch of `run`
        self.num_devices = 1 if mesh is None else mesh.size
        ldm, cavp = ldm.on(mesh), cavp.on(mesh)
        classifier, scorer = classifier and classifier.on(mesh), scorer and scorer.on(mesh)
        self.ldm, self.cavp, self.classifier, self.scorer = ldm, cavp, classifier, scorer
        self.vocoder = vocoder if mesh is None else decode.OverDevices(vocoder, mesh)
        self.audio = specs.AudioSpec(**config.audio)
        self.cavp_audio = specs.AudioSpec(**cavp_config.audio)
        self.video = specs.VideoSpec(**cavp_config.video)
        on_cpu = jax.default_backend() == "cpu"
        self.device_windows = device_windows or (8 if on_cpu else 64)
        model = ldm.module()
        self._deep_shape, self._unet_dtype = model.unet.deep_shape, jnp.dtype(model.unet.dtype)
        self.latent_shape = model.latent_shape(self.audio.num_mels, config.data.window_frames)
        self.column_frames = model.autoencoder.downsampling[1]
        self.window = window_of(model, config, self.audio, self.video)
        self.sampler = solve.Sampler(
            ldm,
            classifier,
            scorer,
            schedule=schedule,
            prediction=config.loss.prediction,
            spec=self.window,
            latent_shape=self.latent_shape,
            student_steps=config.get("distillation", {}).get("steps"),
        )
        self._encode_video = cavp.jit(features.encode_frames, name="encode_frames")
        self.similarity = similarity.Similarity(cavp, self.video, self.cavp_audio)
        self._known = known_audio.encoder(ldm, self.audio, self.window, self.column_frames)
        self._decode = ldm.jit(_autoencode, name="autoencode")

    def within(self, run: Run) -> "DiffFoley":
        """Returns the same model, its work part of `run`."""
        model = copy.copy(self)
        model.run, model._most_made = run, 0
        return model

    def check(self, settings: Settings) -> None:
        """Whether the networks can follow the settings.

        Raises:
          ValueError: PLMS with a classifier, steps that the model cannot take, or a cache deeper
            than the U-Net.
        """
        self.sampler.check(settings)
        if settings.cache_interval > 1:
            self._deep_shape(self.latent_shape, settings.cache_depth)

    # ---- generation ---------------------------------------------------------------------------

    def generate(self, sources: Sequence[Source], settings: Settings) -> list[list[Result]]:
        """Audio for several videos in shared device batches.

        Returns:
          For each source its `settings.keep_best` results, best first: see `finish`.
        Raises:
          ValueError: a video without frames, or settings the model cannot follow.
        """
        return self.finish(self.draft(sources, settings), settings)

    def draft(
        self,
        sources: Sequence[Source],
        settings: Settings,
        draws: Sequence[Sequence[NoiseSeed]] | None = None,
    ) -> list[GeneratedMel]:
        """The device's share of `generate`: mels, the draws of every source in order.

        Args:
          draws: for each source what its audio clips' noise comes from; by default the samples 0 to
            `settings.num_samples` of `settings.seed`.
        """
        if draws is None:
            usual = [NoiseSeed(settings.seed, sample) for sample in range(settings.num_samples)]
            draws = [usual] * len(sources)
        for source in sources:
            self._check_length(source, settings)
        # long videos one at a time; and the notebook's classifier sees all features of one video:
        # no two videos in one program
        shared = settings.preset != "official" or not settings.aligned(self.classifier is not None)
        short = [i for i, s in enumerate(sources) if isinstance(s.frames_THWC, np.ndarray)]
        together = short if shared else []
        made: dict[int, list[GeneratedMel]] = {}
        for group in (together, *([i] for i in range(len(sources)) if i not in together)):
            drafts = self._drafts([sources[i] for i in group], settings, [draws[i] for i in group])
            made.update(zip(group, drafts, strict=True))
        return [draft for i in range(len(sources)) for draft in made[i]]

    def _check_length(self, source: Source, settings: Settings) -> None:
        """Whether a video is short enough for what these settings hold in memory.

        Raises:
          ValueError: it is not.
        """
        aligned = settings.aligned(self.classifier is not None)
        editing.check_given(source.varied, settings.vary)
        if settings.preset == "official" and source.kept is not None:
            raise ValueError(
                "preset 'official' keeps no audio, the published notebook had no such thing; use "
                "preset 'default' to regenerate a span"
            )
        if settings.preset == "official" and aligned and source.duration_s > OFFICIAL_S:
            raise ValueError(
                f"{source.path} lasts {source.duration_s:.0f} s; preset 'official' with a "
                f"classifier takes at most {OFFICIAL_S:.0f} s, because it compares every window "
                "with the whole video; use preset 'default', or alignment 0"
            )
        video_features = max(1, self.video.num_frames(source.duration_s))
        count, most = len(windows.plan(video_features, self.window)), self._most_windows(settings)
        if settings.cache_interval > 1 and count > most:
            raise ValueError(
                f"{source.path} lasts {source.duration_s:.0f} s, {count} windows; kept deep "
                f"features of at most {most} fit into memory; use cache_interval 1"
            )

    def _most_windows(self, settings: Settings) -> int:
        """How many windows of several audio clips are denoised together."""
        if settings.cache_interval == 1:
            return TAPE_WINDOWS
        kept = math.prod(self._deep_shape(self.latent_shape, settings.cache_depth))
        kept *= self._unet_dtype.itemsize * (2 if settings.guidance != 1 else 1)
        return max(1, min(TAPE_WINDOWS, feature_cache.KEPT_BYTES // kept))

    def _drafts(
        self,
        sources: Sequence[Source],
        settings: Settings,
        draws: Sequence[Sequence[NoiseSeed]],
    ) -> list[list[GeneratedMel]]:
        """Drafts of each source, from device batches that they share."""
        official = settings.preset == "official"
        with self.run.watch("features"):
            seen, video_features = sources_lib.view(
                sources,
                self._encode_video,
                self.similarity,
                official=official,
                batch=self.num_devices,
            )
        owners = [(i, draw) for i, own in enumerate(draws) for draw in own]
        plan_fn = notebook.windows if official else windows.plan
        own_plans = [plan_fn(len(own), self.window) for own in video_features]
        blocks = [tape.num_blocks(plan, self.window) for plan in own_plans]
        known = [s.kept and self._known(s.kept, count) for s, count in zip(seen, blocks)]
        varied = [s.varied and self._known(s.varied, count).z_HWC for s, count in zip(seen, blocks)]
        requests = [
            packed_windows.Request(
                own_plans[i], video_features[i], seen[i].path.stem, draw, known[i], varied[i]
            )
            for i, draw in owners
        ]
        made: list[tuple[np.ndarray, float | None, str]] = []
        for some in tape.divided([r.windows for r in requests], self._most_windows(settings)):
            made += self._mels(requests[some], settings)
        drafts: list[list[GeneratedMel]] = [[] for _ in sources]
        for (i, draw), parts in zip(owners, made, strict=True):
            drafts[i].append(GeneratedMel(seen[i], draw, *parts))
        return drafts

    def _mels(
        self, requests: Sequence[packed_windows.Request], settings: Settings
    ) -> list[tuple[np.ndarray, float | None, str]]:
        """(joined mel, alignment or None, fault) of every request."""
        if self.run.pad_groups:
            made = sum(len(request.windows) for request in requests)
            self._most_made = max(self._most_made, made)
        packed, _, batch = packed_windows.pack_windows(
            requests,
            self.window,
            self.device_windows,
            num_devices=self.num_devices,
            room=self._most_made,
        )
        official = settings.preset == "official"
        with self.run.watch("diffusion"):
            # of all features of a video, where it needs them, there is only one on the tape
            raw_features_RD = requests[0].features_RD if official else None
            z_HWC = self.sampler.latents(packed, settings, batch, raw_features_RD)
            z_HWC = jax.block_until_ready(z_HWC)  # the next step would wait as long
        with self.run.watch("autoencoder"):
            finite: list[bool] = []  # of every window, before clipping hides what is not
            parts = self._checked(self.sampler.mels(z_HWC, packed, batch), finite)
            parts = parts if official else (np.clip(part_FT, 0.0, 1.0) for part_FT in parts)
            mels = [self._joined(r, itertools.islice(parts, len(r.windows))) for r in requests]
        with self.run.watch("scores"):
            match_N = self.sampler.alignment(z_HWC, packed, batch)
        made, at = [], 0
        for request, mel_FT in zip(requests, mels, strict=True):
            span = slice(at, at + len(request.windows))
            at = span.stop
            match = None if match_N is None else float(match_N[span].mean())
            fault = ""
            if not all(finite[span]):
                fault = diagnosis.fault(
                    self.sampler,
                    request,
                    settings,
                    raw_features_RD,
                    max_batch=self.device_windows,
                    num_devices=self.num_devices,
                )
            made.append((mel_FT, match, fault))
        return made

    @staticmethod
    def _checked(parts: Iterable[np.ndarray], finite: list[bool]) -> Iterator[np.ndarray]:
        """The mels of windows as they are; whether each is finite goes into `finite`."""
        for part_FT in parts:
            finite.append(bool(np.isfinite(part_FT).all()))
            yield part_FT

    def _joined(self, request: packed_windows.Request, parts: Iterable[np.ndarray]) -> np.ndarray:
        """The mel [F, T] of one audio clip from those of its windows."""
        first = [window.column * self.column_frames for window in request.windows]
        made = spool.Spool((self.audio.num_mels,), self.run.scratch)
        for part_FT in windows.joined(parts, first):
            made.append(part_FT.T)
        return made.array().T

    # ---- audio --------------------------------------------------------------------------------

    def finish(self, drafts: Sequence[GeneratedMel], settings: Settings) -> list[list[Result]]:
        """Mels to audio and scores.

        Returns:
          For each source its `keep_best` results, best first: by the mean of their ranks under
          `alignment` (where there is a classifier) and `cavp_similarity`.
        """
        results, n = self.audio_clips(drafts, settings), settings.num_samples
        groups = [results[at : at + n] for at in range(0, len(results), n)]
        return [ranked(group)[: settings.keep_best] for group in groups]

    def audio_clips(self, drafts: Sequence[GeneratedMel], settings: Settings) -> list[Result]:
        """Mels to audio and scores: one result for each draft, in order."""
        lengths = [self.audio.num_samples(d.source.duration_s) for d in drafts]
        with self.run.watch("vocoder"):
            if settings.preset == "official":
                width = self.column_frames * self.window.num_columns
                vocode = functools.partial(notebook.vocode_draft, audio=self.audio, width=width)
                audios = [vocode(d, n, folder=self.run.scratch) for d, n in zip(drafts, lengths)]
            else:
                audios = self.vocode([d.mel_FT for d in drafts], lengths)
        rate, known = self.audio.sample_rate_hz, [draft.source.kept for draft in drafts]
        audios = [editing.spliced(kept, own, rate) for kept, own in zip(known, audios)]
        with self.run.watch("scores"):
            similar = self.similarity([d.source.clips_BD for d in drafts], audios)
        results = []
        for draft, audio, own in zip(drafts, audios, similar):
            scores = {"cavp_similarity": own}
            if draft.alignment is not None:
                scores["alignment"] = draft.alignment
            frames = min(draft.mel_FT.shape[1], self.audio.num_frames(len(audio)))
            mel_FT = draft.mel_FT[:, :frames]
            fault = draft.fault or diagnosis.of_audio(mel_FT, audio)
            results.append(Result(audio, mel_FT, scores, draft.draw.sample, fault))
        return results

    def vocode(self, mels_FT: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
        """Mels of any lengths to waveforms of the asked lengths (zero-padded or cut)."""
        on_cpu = jax.default_backend() == "cpu"  # where a batch brings nothing
        max_batch = 1 if on_cpu else self.device_windows
        return decode.vocode(
            mels_FT,
            lengths,
            self.audio,
            max_batch=max_batch,
            through=self.vocoder,
            num_devices=self.num_devices,
            folder=self.run.scratch,
        )

    def reconstruct(self, audio_clips: Sequence[Audio]) -> list[Result]:
        """True audio through mel, autoencoder and vocoder: the ceiling of generation."""
        mels, lengths = [], []
        for track in audio_clips:
            mel_FT = np.asarray(mel_lib.log_mel(track.audio[None], self.audio))[0]
            blocks = -(-mel_FT.shape[1] // decode.BLOCK_FRAMES) * decode.BLOCK_FRAMES
            decoded = self._decode(decode.fit(mel_FT, blocks)[None])
            mels.append(np.asarray(decoded)[0][:, : mel_FT.shape[1]])
            lengths.append(len(track.audio))
        audios = self.vocode(mels, lengths)
        return [
            Result(audio, mel_FT, {}, fault=diagnosis.of_audio(mel_FT, audio))
            for audio, mel_FT in zip(audios, mels)
        ]


def _autoencode(model: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    return jnp.clip(model.decode_mel(model.encode_mel(mel_BFT, key=None)), 0.0, 1.0)
