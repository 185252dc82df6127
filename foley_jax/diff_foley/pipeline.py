"""From decoded video frames to sound: CAVP rows, windows, diffusion, mel, waveform.

Axis letters: B clips in one device batch, T frames, H W, C channels, L rows, D width, F mels.
"""

from collections.abc import Callable, Sequence
import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from foley_jax.diff_foley import (
    diagnosis,
    features,
    generation,
    latent_diffusion,
    similarity,
    sound,
    windows,
)
from foley_jax.diff_foley import tape as tape_lib
from foley_jax.layers import network
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs
from foley_jax.media import vocoder as vocoder_lib
from foley_jax.runtime import seed_keys

Draw, Settings = tape_lib.Draw, generation.Settings
# what `DiffFoley.watch` is told of
STAGES = ("features", "diffusion", "autoencoder", "vocoder", "scores")


class Source(NamedTuple):
    """A decoded video: where it came from, frames uint8 [T, H, W, 3], its length in seconds."""

    path: Path
    frames_THWC: np.ndarray
    duration_s: float

    @property
    def nbytes(self) -> int:
        return self.frames_THWC.nbytes


class Sound(NamedTuple):
    """A decoded sound track, float32 [samples] at the model's rate."""

    path: Path
    audio: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.audio.nbytes


class Result(NamedTuple):
    """Generated sound: float32 [samples], the log-mel [F, T] it was made from, scores.

    `sample` is its number among those of its seed; `fault` says why it is no sound, or is empty.
    """

    audio: np.ndarray
    mel_FT: np.ndarray
    scores: dict[str, float]
    sample: int = 0
    fault: str = ""


class Draft(NamedTuple):
    """A generated mel that is no sound yet.

    Attributes:
      source: the video it is for.
      draw: what its noise came from.
      mel_FT: joined log-mel.
      window_mels_NFT: the windows it was joined from; kept for preset "official" only.
      alignment: the classifier's probability of a match, or None.
      fault: why the mel is not finite; empty if it is.
    """

    source: Source
    draw: Draw
    mel_FT: np.ndarray
    window_mels_NFT: np.ndarray | None
    alignment: float | None
    fault: str = ""


def window_of(
    model: latent_diffusion.LatentDiffusion,
    config: ml_collections.ConfigDict,
    audio: specs.AudioSpec,
    video: specs.VideoSpec,
) -> windows.WindowSpec:
    """What the model sees at once: its rows and latent columns."""
    _, columns, _ = model.latent_shape(audio.num_mels, config.data.window_frames)
    # a model that is told when its rows are needs no row to begin with a column
    exact = {"max_skew_s": float("inf")} if model.unet.locality_bias else {}
    return windows.WindowSpec(
        num_rows=config.data.num_rows,
        num_columns=columns,
        row_s=1.0 / video.fps,
        column_s=model.autoencoder.downsampling[1] * audio.frame_s,
        **exact,
    )


class DiffFoley:
    """The networks of Diff-Foley and the walk of videos through them.

    Args:
      ldm, cavp: the trained networks, `config` and `cavp_config` of their runs.
      classifier: alignment classifier for double guidance (noisy latents), if any.
      scorer: one for scoring finished sounds; by default the guidance classifier.
      schedule: noise table of the diffusion.
      vocoder: mels to sound; preset "official" always takes its own Griffin-Lim.
      device_windows: windows in the batch of one device; by default 8 on CPU and 64 elsewhere.
      mesh: devices of this process that share the work, see `sharding.local_mesh`; None is one.

    Attributes:
      watch: called with the name of a stage (`STAGES`), gives a context for its work; stages of
        `draft` and `finish` overlap where these run in two threads.
      room: None, or 0 from when on small batches are padded to the size of the largest before them,
        instead of compiling a program of their own; it grows to that one's windows.
      similarity: scores pairs of picture and sound, see `similarity.Similarity`.
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
        vocoder: vocoder_lib.Vocoder = sound.GRIFFIN_LIM,
        device_windows: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.watch: Callable[[str], contextlib.AbstractContextManager] = contextlib.nullcontext
        self.room: int | None = None
        self.num_devices = 1 if mesh is None else mesh.size
        ldm, cavp = ldm.on(mesh), cavp.on(mesh)
        classifier, scorer = classifier and classifier.on(mesh), scorer and scorer.on(mesh)
        self.ldm, self.cavp, self.classifier, self.scorer = ldm, cavp, classifier, scorer
        self.vocoder = vocoder if mesh is None else sound.OverDevices(vocoder, mesh)
        self.audio = specs.AudioSpec(**config.audio)
        self.cavp_audio = specs.AudioSpec(**cavp_config.audio)
        self.video = specs.VideoSpec(**cavp_config.video)
        on_cpu = jax.default_backend() == "cpu"
        self.device_windows = device_windows or (8 if on_cpu else 64)
        model = ldm.module()
        self._deep_shape = model.unet.deep_shape
        self.latent_shape = model.latent_shape(self.audio.num_mels, config.data.window_frames)
        self.column_frames = model.autoencoder.downsampling[1]
        self.window = window_of(model, config, self.audio, self.video)
        self.sampler = generation.Sampler(
            ldm,
            classifier,
            scorer,
            schedule=schedule,
            prediction=config.loss.prediction,
            spec=self.window,
            latent_shape=self.latent_shape,
        )
        self._encode_video = cavp.jit(features.encode_frames, name="encode_frames")
        self.similarity = similarity.Similarity(cavp, self.video, self.cavp_audio)
        self._decode = ldm.jit(_autoencode, name="autoencode")

    def check(self, settings: Settings) -> None:
        """Whether the networks can follow the settings.

        Raises:
          ValueError: PLMS with a classifier, more steps than the diffusion has, or a cache deeper
            than the U-Net.
        """
        self.sampler.check(settings)
        if settings.cache_interval > 1:
            self._deep_shape(self.latent_shape, settings.cache_depth)

    # ---- generation ---------------------------------------------------------------------------

    def generate(self, sources: Sequence[Source], settings: Settings) -> list[list[Result]]:
        """Sound for several videos in shared device batches.

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
        draws: Sequence[Sequence[Draw]] | None = None,
    ) -> list[Draft]:
        """The device's share of `generate`: mels, the draws of every source in order.

        Args:
          draws: for each source what its sounds' noise comes from; by default the samples 0 to
            `settings.num_samples` of `settings.seed`.
        """
        if draws is None:
            usual = [Draw(settings.seed, sample) for sample in range(settings.num_samples)]
            draws = [usual] * len(sources)
        aligned = settings.aligned(self.classifier is not None)
        with self.watch("features"):
            rows = self.rows(sources, settings)
        official = settings.preset == "official"
        # the notebook's classifier sees all rows of one video: no two videos in one program
        groups = (
            [[i] for i in range(len(sources))] if official and aligned else [range(len(sources))]
        )
        drafts = []
        for group in groups:
            owners = [(i, draw) for i in group for draw in draws[i]]
            requests = []
            for i, draw in owners:
                plan = (windows.official if official else windows.plan)(len(rows[i]), self.window)
                cut_NLD = windows.rows(rows[i], plan, self.window)
                requests.append(tape_lib.Request(plan, cut_NLD, sources[i].path.stem, draw))
            raw_rows_RD = rows[group[0]] if official and aligned else None
            made = self._mels(requests, settings, raw_rows_RD)
            for (i, draw), parts in zip(owners, made):
                drafts.append(Draft(sources[i], draw, *parts))
        return drafts

    def rows(self, sources: Sequence[Source], settings: Settings) -> list[np.ndarray]:
        """CAVP rows of videos, float32 [T, D] each, unit norm.

        Videos of one length are encoded together, one on each device.
        """
        official = settings.preset == "official"
        extract = features.extract_batch if official else features.extract_seamless_batch
        lengths = [len(source.frames_THWC) for source in sources]
        made: list[np.ndarray] = [None] * len(sources)
        for length in sorted(set(lengths)):
            members = [i for i, own in enumerate(lengths) if own == length]
            for at in range(0, len(members), self.num_devices):
                part = members[at : at + self.num_devices]
                padded = part + part[-1:] * (self.num_devices - len(part))
                frames_BTHWC = np.stack([sources[i].frames_THWC for i in padded])
                for i, rows_TD in zip(part, extract(self._encode_video, frames_BTHWC)):
                    made[i] = rows_TD
        return made

    def _mels(
        self,
        requests: Sequence[tape_lib.Request],
        settings: Settings,
        raw_rows_RD: np.ndarray | None,
    ) -> list[tuple[np.ndarray, np.ndarray | None, float | None, str]]:
        """(joined mel, window mels or None, alignment or None, fault) of every request."""
        if self.room is not None:
            self.room = max(self.room, sum(len(request.windows) for request in requests))
        tape, _, batch = tape_lib.lay(
            requests,
            self.window,
            self.device_windows,
            num_devices=self.num_devices,
            room=self.room or 0,
        )
        with self.watch("diffusion"):
            z_HWC = self.sampler.latents(tape, settings, batch, raw_rows_RD)
            z_HWC = jax.block_until_ready(z_HWC)  # the next step would wait as long
        with self.watch("autoencoder"):
            mels_NFT = self.sampler.mels(z_HWC, tape, batch)
        with self.watch("scores"):
            match_N = self.sampler.alignment(z_HWC, tape, batch)
        made, at = [], 0
        for request in requests:
            span = slice(at, at + len(request.windows))
            at = span.stop
            match = None if match_N is None else float(match_N[span].mean())
            fault = diagnosis.fault(
                self.sampler,
                request,
                mels_NFT[span],
                settings,
                raw_rows_RD,
                max_batch=self.device_windows,
                num_devices=self.num_devices,
            )
            if settings.preset == "official":
                parts_NFT = mels_NFT[span]
                made.append((np.concatenate(parts_NFT, axis=1), parts_NFT, match, fault))
                continue
            frames = [w.column * self.column_frames for w in request.windows]
            joined_FT = windows.join(np.clip(mels_NFT[span], 0.0, 1.0), frames)
            made.append((joined_FT, None, match, fault))
        return made

    # ---- sound --------------------------------------------------------------------------------

    def finish(self, drafts: Sequence[Draft], settings: Settings) -> list[list[Result]]:
        """Mels to sound and scores.

        Returns:
          For each source its `keep_best` results, best first: by the mean of their ranks under
          `alignment` (where there is a classifier) and `cavp_similarity`.
        """
        results, n = self.sounds(drafts, settings), settings.num_samples
        groups = [results[at : at + n] for at in range(0, len(results), n)]
        return [ranked(group)[: settings.keep_best] for group in groups]

    def sounds(self, drafts: Sequence[Draft], settings: Settings) -> list[Result]:
        """Mels to sound and scores: one result for each draft, in order."""
        lengths = [self.audio.num_samples(d.source.duration_s) for d in drafts]
        with self.watch("vocoder"):
            if settings.preset == "official":
                audios = [self._vocode_official(d, n) for d, n in zip(drafts, lengths)]
            else:
                audios = self.vocode([d.mel_FT for d in drafts], lengths)
        with self.watch("scores"):
            similar = self.similarity([d.source.frames_THWC for d in drafts], audios)
        results = []
        for draft, audio, own in zip(drafts, audios, similar):
            scores = {"cavp_similarity": own}
            if draft.alignment is not None:
                scores["alignment"] = draft.alignment
            frames = min(draft.mel_FT.shape[1], self.audio.num_frames(len(audio)))
            mel_FT = draft.mel_FT[:, :frames]
            fault = draft.fault or diagnosis.of_sound(mel_FT, audio)
            results.append(Result(audio, mel_FT, scores, draft.draw.sample, fault))
        return results

    def vocode(self, mels_FT: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
        """Mels of any lengths to waveforms of the asked lengths (zero-padded or cut)."""
        on_cpu = jax.default_backend() == "cpu"  # where a batch brings nothing
        max_batch = 1 if on_cpu else self.device_windows
        return sound.vocode(
            mels_FT,
            lengths,
            self.audio,
            max_batch=max_batch,
            through=self.vocoder,
            num_devices=self.num_devices,
        )

    def _vocode_official(self, draft: Draft, length: int) -> np.ndarray:
        name, count = draft.source.path.stem, len(draft.window_mels_NFT)
        raw = tape_lib.block_keys(draft.draw.seed, f"{name}/vocoder", draft.draw.sample, count)
        keys_N = seed_keys.wrapped(raw)
        return sound.vocode_official(draft.window_mels_NFT, length, self.audio, keys_N=keys_N)

    def reconstruct(self, sounds: Sequence[Sound]) -> list[Result]:
        """True sound through mel, autoencoder and vocoder: the ceiling of generation."""
        mels, lengths = [], []
        for track in sounds:
            mel_FT = np.asarray(mel_lib.log_mel(track.audio[None], self.audio))[0]
            blocks = -(-mel_FT.shape[1] // sound.BLOCK_FRAMES) * sound.BLOCK_FRAMES
            decoded = self._decode(sound.fit(mel_FT, blocks)[None])
            mels.append(np.asarray(decoded)[0][:, : mel_FT.shape[1]])
            lengths.append(len(track.audio))
        audios = self.vocode(mels, lengths)
        return [
            Result(audio, mel_FT, {}, fault=diagnosis.of_sound(mel_FT, audio))
            for audio, mel_FT in zip(audios, mels)
        ]


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first: by the mean of the ranks under every score that all results have.

    Ties go to the score named last (the classifier's, where there is one). Results that could
    not be scored (nan: too short a video) keep their order, and those that are no sound come last.
    """
    lost = [result for result in results if result.fault]
    if lost and len(lost) < len(results):
        return [*ranked([result for result in results if not result.fault]), *lost]
    names = [n for n in results[0].scores if not any(np.isnan(r.scores[n]) for r in results)]
    values = {n: np.array([r.scores[n] for r in results]) for n in names}
    ranks = sum(np.argsort(np.argsort(-v, kind="stable")) for v in values.values())
    last = -values[names[-1]] if names else np.zeros(len(results))
    order = np.lexsort((last, np.broadcast_to(ranks, len(results))))
    return [results[i] for i in order]


def _autoencode(model: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    return jnp.clip(model.decode_mel(model.encode_mel(mel_BFT, key=None)), 0.0, 1.0)
