"""From decoded video frames to sound: CAVP rows, windows, diffusion, mel, waveform.

Axis letters: B clips in one device batch, T frames, H W, C channels, L rows, D width, F mels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from foley_jax.diff_foley import features, generation, sound, windows
from foley_jax.layers import network
from foley_jax.media import mel as mel_lib
from foley_jax.media import specs
from foley_jax.media import vocoder as vocoder_lib

Settings = generation.Settings
SCORE_SECONDS = 4.0  # CAVP compares picture and sound over clips of this length
SCORE_CLIPS = 4  # of them at once


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
    """Generated sound: float32 [samples], the log-mel [F, T] it was made from, scores."""

    audio: np.ndarray
    mel_FT: np.ndarray
    scores: dict[str, float]


class Draft(NamedTuple):
    """A generated mel that is no sound yet.

    Attributes:
      source: the video it is for.
      sample: which of the video's sounds.
      mel_FT: joined log-mel.
      window_mels_NFT: the windows it was joined from; kept for preset "official" only.
      alignment: the classifier's probability of a match, or None.
    """

    source: Source
    sample: int
    mel_FT: np.ndarray
    window_mels_NFT: np.ndarray | None
    alignment: float | None


class DiffFoley:
    """The networks of Diff-Foley and the walk of videos through them.

    Args:
      ldm, cavp: the trained networks, `config` and `cavp_config` of their runs.
      classifier: alignment classifier for double guidance (noisy latents), if any.
      scorer: one for scoring finished sounds; by default the guidance classifier.
      schedule: noise table of the diffusion.
      vocoder: mels to sound; preset "official" always takes its own Griffin-Lim.
      device_windows: windows in one device batch; by default 8 on CPU and 64 elsewhere.
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
    ):
        self.ldm, self.cavp, self.classifier, self.scorer = ldm, cavp, classifier, scorer
        self.vocoder = vocoder
        self.audio = specs.AudioSpec(**config.audio)
        self.cavp_audio = specs.AudioSpec(**cavp_config.audio)
        self.video = specs.VideoSpec(**cavp_config.video)
        on_cpu = jax.default_backend() == "cpu"
        self.device_windows = device_windows or (8 if on_cpu else 64)
        model = ldm.module()
        self.latent_shape = model.latent_shape(self.audio.num_mels, config.data.window_frames)
        self.column_frames = model.autoencoder.downsampling[1]
        # a model that is told when its rows are needs no row to begin with a column
        exact = {"max_skew_s": float("inf")} if model.unet.locality_bias else {}
        self.window = windows.WindowSpec(
            num_rows=config.data.num_rows,
            num_columns=self.latent_shape[1],
            row_s=1.0 / self.video.fps,
            column_s=self.column_frames * self.audio.frame_s,
            **exact,
        )
        self.sampler = generation.Sampler(
            ldm,
            classifier,
            scorer,
            schedule=schedule,
            prediction=config.loss.prediction,
            spec=self.window,
            latent_shape=self.latent_shape,
        )
        self._encode_video = cavp.jit(features.encode_frames)
        self._score = cavp.jit(_similarity)
        self._decode = ldm.jit(_autoencode)

    # ---- generation ---------------------------------------------------------------------------

    def generate(self, sources: Sequence[Source], settings: Settings) -> list[list[Result]]:
        """Sound for several videos in shared device batches.

        Returns:
          For each source its `settings.keep_best` results, best first: see `finish`.
        Raises:
          ValueError: a video without frames, or settings the model cannot follow.
        """
        return self.finish(self.draft(sources, settings), settings)

    def draft(self, sources: Sequence[Source], settings: Settings) -> list[Draft]:
        """The device's share of `generate`: mels, `num_samples` for every source in order."""
        aligned = settings.aligned(self.classifier is not None)
        rows = [self.rows(source, settings) for source in sources]
        official = settings.preset == "official"
        # the notebook's classifier sees all rows of one video: no two videos in one program
        groups = (
            [[i] for i in range(len(sources))] if official and aligned else [range(len(sources))]
        )
        drafts = []
        for group in groups:
            requests = []
            for i in group:
                plan = (windows.official if official else windows.plan)(len(rows[i]), self.window)
                cut_NLD = windows.rows(rows[i], plan, self.window)
                name = sources[i].path.stem
                for sample in range(settings.num_samples):
                    requests.append(generation.Request(plan, cut_NLD, name, sample))
            raw_rows_RD = rows[group[0]] if official and aligned else None
            made = self._mels(requests, settings, raw_rows_RD)
            owners = [i for i in group for _ in range(settings.num_samples)]
            for i, request, (mel_FT, parts_NFT, match) in zip(owners, requests, made):
                drafts.append(Draft(sources[i], request.sample, mel_FT, parts_NFT, match))
        return drafts

    def rows(self, source: Source, settings: Settings) -> np.ndarray:
        """CAVP rows of a video, float32 [T, D], unit norm."""
        official = settings.preset == "official"
        extract = features.extract if official else features.extract_seamless
        return extract(self._encode_video, source.frames_THWC)

    def _mels(
        self,
        requests: Sequence[generation.Request],
        settings: Settings,
        raw_rows_RD: np.ndarray | None,
    ) -> list[tuple[np.ndarray, np.ndarray | None, float | None]]:
        """(joined mel, window mels or None, alignment or None) of every request."""
        tape, starts, batch = generation.lay(
            requests, self.window, settings.seed, self.device_windows
        )
        z_HWC = self.sampler.latents(tape, settings, batch, raw_rows_RD)
        mels_NFT = self.sampler.mels(z_HWC, tape, batch)
        match_N = self.sampler.alignment(z_HWC, tape, batch)
        made, at = [], 0
        for request in requests:
            span = slice(at, at + len(request.windows))
            at = span.stop
            match = None if match_N is None else float(match_N[span].mean())
            if settings.preset == "official":
                parts_NFT = mels_NFT[span]
                made.append((np.concatenate(parts_NFT, axis=1), parts_NFT, match))
                continue
            frames = [w.column * self.column_frames for w in request.windows]
            joined_FT = windows.join(np.clip(mels_NFT[span], 0.0, 1.0), frames)
            made.append((joined_FT, None, match))
        return made

    # ---- sound --------------------------------------------------------------------------------

    def finish(self, drafts: Sequence[Draft], settings: Settings) -> list[list[Result]]:
        """Mels to sound and scores.

        Returns:
          For each source its `keep_best` results, best first: by the mean of their ranks under
          `alignment` (where there is a classifier) and `cavp_similarity`.
        """
        lengths = [self.audio.num_samples(d.source.duration_s) for d in drafts]
        if settings.preset == "official":
            audios = [self._vocode_official(d, n, settings) for d, n in zip(drafts, lengths)]
        else:
            audios = self.vocode([d.mel_FT for d in drafts], lengths)
        results = []
        for draft, audio in zip(drafts, audios):
            scores = {"cavp_similarity": self.similarity(draft.source.frames_THWC, audio)}
            if draft.alignment is not None:
                scores["alignment"] = draft.alignment
            frames = min(draft.mel_FT.shape[1], self.audio.num_frames(len(audio)))
            results.append(Result(audio, draft.mel_FT[:, :frames], scores))
        n = settings.num_samples
        groups = [results[at : at + n] for at in range(0, len(results), n)]
        return [ranked(group)[: settings.keep_best] for group in groups]

    def vocode(self, mels_FT: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
        """Mels of any lengths to waveforms of the asked lengths (zero-padded or cut)."""
        on_cpu = jax.default_backend() == "cpu"  # where a batch brings nothing
        max_batch = 1 if on_cpu else self.device_windows
        return sound.vocode(mels_FT, lengths, self.audio, max_batch=max_batch, through=self.vocoder)

    def _vocode_official(self, draft: Draft, length: int, settings: Settings) -> np.ndarray:
        name, count = draft.source.path.stem, len(draft.window_mels_NFT)
        raw = generation.block_keys(settings.seed, f"{name}/vocoder", draft.sample, count)
        keys_N = jax.random.wrap_key_data(raw)
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
        return [Result(audio, mel_FT, {}) for audio, mel_FT in zip(audios, mels)]

    # ---- scores -------------------------------------------------------------------------------

    def similarity(self, frames_THWC: np.ndarray, audio: np.ndarray) -> float:
        """Mean cosine similarity of picture and sound over 4 s clips by CAVP; nan if shorter.

        Args:
          frames_THWC: uint8 frames at the CAVP rate.
          audio: float32 [samples], starting with the first frame.
        """
        clip_frames = round(SCORE_SECONDS * self.video.fps)
        mel_frames = round(SCORE_SECONDS / self.cavp_audio.frame_s)
        mel_count = self.cavp_audio.num_frames(len(audio))
        count = min(len(frames_THWC) // clip_frames, mel_count // mel_frames)
        if not count:
            return float("nan")
        mel_FT = np.asarray(mel_lib.log_mel(audio[None], self.cavp_audio))[0]
        frames = frames_THWC[: count * clip_frames]
        frames_BTHWC = frames.reshape(count, clip_frames, *frames.shape[1:])
        mel_BFT = np.stack(np.split(mel_FT[:, : count * mel_frames], count, axis=1))
        batch = min(SCORE_CLIPS, generation.power_of_two(count))
        similar = []
        for at in range(0, count, batch):
            index = np.minimum(np.arange(at, at + batch), count - 1)  # pads the last
            similar.append(np.asarray(self._score(frames_BTHWC[index], mel_BFT[index])))
        return float(np.concatenate(similar)[:count].mean())


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first: by the mean of the ranks under every score that all results have.

    Ties go to the score named last (the classifier's, where there is one). Results that could
    not be scored (nan: too short a video) keep their order.
    """
    names = [n for n in results[0].scores if not any(np.isnan(r.scores[n]) for r in results)]
    values = {n: np.array([r.scores[n] for r in results]) for n in names}
    ranks = sum(np.argsort(np.argsort(-v, kind="stable")) for v in values.values())
    last = -values[names[-1]] if names else np.zeros(len(results))
    order = np.lexsort((last, np.broadcast_to(ranks, len(results))))
    return [results[i] for i in order]


def _similarity(cavp: nnx.Module, frames_BTHWC: jax.Array, mel_BFT: jax.Array) -> jax.Array:
    frames_BTHWC = frames_BTHWC.astype(jnp.float32) / 255.0
    video_BD = cavp.encode_video(frames_BTHWC, normalize=True, pool=True)
    audio_BD = cavp.encode_spec(mel_BFT, normalize=True, pool=True)
    return (video_BD * audio_BD).sum(-1)


def _autoencode(model: nnx.Module, mel_BFT: jax.Array) -> jax.Array:
    return jnp.clip(model.decode_mel(model.encode_mel(mel_BFT, key=None)), 0.0, 1.0)
