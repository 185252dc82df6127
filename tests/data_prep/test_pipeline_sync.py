"""Frame i shows what sounds at i / fps: from videos of every container to batches of training.

Numbered frames and clicks (`tests.media.sync_media`) go through prepare into shards and through the
pipeline into batches of CAVP, of the latent diffusion model and of MM-Diffusion. Only what is in a
batch is measured: the number of each image (or feature) against the nearest click in its
audio. An image's number may be half a source frame from the middle of its frame, never more.
Fast tests take one file of every way in which containers keep time, slow ones all of them.
"""

import dataclasses
import itertools
import pathlib

import numpy as np
import pytest

from data_prep import clip_making, prepare
from foley_jax.data import clips, pipeline, records
from foley_jax.media import specs
from foley_jax.mm_diffusion.tasks import base
from tests.data_prep import sync_measure
from tests.media import sync_media

SECONDS = 12.5  # a whole clip, and one that training repeats
RATE_HZ = 16000
SIZE = 32
AUDIO = specs.AudioSpec()
CAVP_AUDIO = specs.AudioSpec(hop=250)
FOUR = specs.VideoSpec(4.0, SIZE, SIZE)
TEN = specs.VideoSpec(10.0, SIZE, SIZE)
FEW = (
    "mp4 29.97 frames/s",
    "mkv h264 opus",
    "webm vp8 vorbis",
    "avi mpeg4 mp3",
    "ts h264 aac",
    "flv h264 aac",
)


def recipe_of(name: str) -> sync_media.Recipe:
    recipe = dataclasses.replace(sync_media.MEDIA[name], seconds=SECONDS)
    count = int(SECONDS * recipe.fps)
    return dataclasses.replace(recipe, clicks=sync_measure.clicks(count))


def file_of(name: str) -> str:
    return f"{name.replace(' ', '_').replace('/', '')}{sync_media.MEDIA[name].suffix}"


NAMES = {file_of(name): name for name in sync_media.MEDIA}  # of media, by file


@pytest.fixture(scope="module", params=["few", pytest.param("all", marks=pytest.mark.slow)])
def videos(request, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in FEW if request.param == "few" else sync_media.MEDIA:
        sync_media.write(folder / file_of(name), recipe_of(name))
    return folder


def prepared(videos: pathlib.Path, shards: pathlib.Path, fps: float) -> pathlib.Path:
    format = clip_making.Format(fps=fps, size=SIZE, sample_rate_hz=RATE_HZ, clip_seconds=10.0)
    index = prepare.prepare(videos, shards, format, split="train")
    assert index.num_failures == 0
    assert index.num_records("train") == 2 * len(list(videos.iterdir()))
    return shards


@pytest.fixture(scope="module")
def four(videos, tmp_path_factory) -> pathlib.Path:
    return prepared(videos, tmp_path_factory.mktemp("four") / "shards", 4.0)


@pytest.fixture(scope="module")
def ten(videos, tmp_path_factory) -> pathlib.Path:
    return prepared(videos, tmp_path_factory.mktemp("ten") / "shards", 10.0)


class Kept:
    """A source that remembers whose records went into an example."""

    def __init__(self, source: pipeline.Source):
        self.source = source
        self.used: list[records.Clip] = []

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> records.Clip:
        clip = self.source[index]
        self.used.append(clip)
        return clip


def batches(source, transform, count: int):
    """Examples as training sees them, one by one, with the records they were made from."""
    kept = Kept(source)
    stream = pipeline.make_iterator(
        kept,
        transform,
        global_batch=1,
        seed=3,
        position=0,
        process_index=0,
        process_count=1,
        shuffle=False,
        read_threads=0,
    )
    for batch in itertools.islice(stream, count):
        used, kept.used = kept.used, []
        yield used, {name: value[0] for name, value in batch.items()}


def heard(audio_L: np.ndarray, clip: records.Clip) -> list[float]:
    """When clicks begin, less what nobody can know of their medium."""
    delay_s = sync_media.UNKNOWN_DELAY.get(NAMES[clip.source], 0.0) / RATE_HZ
    return [click_s - delay_s for click_s in sync_measure.heard(audio_L, RATE_HZ)]


def check(videos: pathlib.Path, found: dict[str, list[float]], extra_s: float = 0.0) -> None:
    """Prints the worst of every medium; it may be half a source frame and `extra_s`."""
    assert sorted(found) == sorted(path.name for path in videos.iterdir())
    for file, all_found in sorted(found.items()):
        print(f"{NAMES[file]:28} {min(all_found):+.3f} to {max(all_found):+.3f} source frames")
        fps = float(sync_media.MEDIA[NAMES[file]].fps)
        slack = 2e-3 * fps  # timestamps of 1 ms, and as much for where the audio is found
        assert len(all_found) >= 5
        assert max(map(abs, all_found)) <= 0.5 + extra_s * fps + slack, NAMES[file]


def add(
    found: dict[str, list[float]],
    clip: records.Clip,
    shown: list[tuple[int, float]],
    clicks_s: list[float],
) -> None:
    fps = float(sync_media.MEDIA[NAMES[clip.source]].fps)
    count = len(clip.frames) if clip.cavp_TD is None else len(clip.cavp_TD)
    period_s = min(count, int(len(clip.audio) / RATE_HZ * clip.fps + 1e-6)) / clip.fps
    for number, time_s in shown:
        assert number >= 0
        off = sync_measure.distance(number, time_s, clicks_s, fps, period_s)
        if off is not None:
            found.setdefault(clip.source, []).append(off)


@pytest.mark.slow
def test_clips_of_contrastive_training(videos, four):
    source = pipeline.open_source(four, "train", FOUR)
    found: dict[str, list[float]] = {}
    for (clip,), example in batches(source, clips.CavpClips(FOUR, CAVP_AUDIO), len(source)):
        clicks_s = heard(example["audio_BL"], clip)
        for frames_THWC, start in zip(example["frames_BNTHWC"], example["mel_start_BN"]):
            first_s = int(start) * CAVP_AUDIO.frame_s
            times_s = first_s + np.arange(len(frames_THWC)) / FOUR.fps
            add(found, clip, list(zip(sync_media.numbers(frames_THWC), times_s)), clicks_s)
    check(videos, found)


@pytest.fixture(scope="module")
def rows(four, tmp_path_factory) -> pathlib.Path:
    """Feature shards whose rows are the numbers of the frames."""
    out = tmp_path_factory.mktemp("rows")
    index = records.read_index(four)
    source = pipeline.open_source(four, "train")
    position, infos = 0, []
    for number, shard in enumerate(index.shards):
        with records.ShardWriter(out, "train", number) as writer:
            for clip in (source[position + i] for i in range(shard.num_records)):
                numbers = np.array(sync_media.numbers(clip.frames_THWC()), np.float16)
                writer.add(dataclasses.replace(clip, frames=[], cavp_TD=numbers[:, None]))
        position += shard.num_records
        infos.append(writer.info)
    records.write_index(out, dataclasses.replace(index, shards=tuple(infos), cavp_dim=1))
    return out


@pytest.mark.parametrize(("aligned", "merge"), [(True, 0.5), (True, 0.0), (False, 0.0)])
def test_windows_of_latent_diffusion(videos, rows, aligned, merge):
    """With aligned=False a window is the official one, whose rows are up to one row off."""
    source = pipeline.open_source(rows, "train")
    transform = clips.LdmWindows(FOUR, AUDIO, aligned=aligned, merge_probability=merge)
    found: dict[str, list[float]] = {}
    num_frames = transform.sizes.num_frames
    for used, example in batches(source, transform, len(source)):
        frame_T, row_s = example["mel_frame_BT"], example["context_s_BL"]
        for p, clip in enumerate(used):
            inside_T = np.flatnonzero(frame_T // num_frames == p)
            # window time 0 stands at this time of the record's audio
            zero_s = (int(frame_T[inside_T[0]]) % num_frames - int(inside_T[0])) * AUDIO.frame_s
            first_s, end_s = inside_T[0] * AUDIO.frame_s, (inside_T[-1] + 1) * AUDIO.frame_s
            shown = [
                (int(number), zero_s + at_s)
                for (number,), at_s in zip(example["cavp_BLD"], row_s)
                if first_s - 0.01 <= at_s < end_s - 0.01  # to the nearest mel frame, 16 ms
            ]
            add(found, clip, shown, heard(example["audio_BPL"][p], clip))
    check(videos, found, 0.0 if aligned else 0.25 + AUDIO.frame_s)
    if not aligned:  # and this measure sees it
        assert min(map(min, found.values())) < -2


@pytest.mark.slow
def test_windows_of_mm_diffusion(videos, ten):
    source = pipeline.open_source(ten, "train", TEN)
    found: dict[str, list[float]] = {}
    for train in (True, False):
        transform = base.PairWindows(TEN, AUDIO, num_frames=16, mirror=False, train=train)
        for (clip,), example in batches(source, transform, len(source)):
            numbers = sync_media.numbers(example["frames_BFHWC"])
            shown = list(zip(numbers, np.arange(16) / TEN.fps))
            add(found, clip, shown, heard(example["audio_BL"], clip))
    check(videos, found)
