"""Which clips a folder of videos gives: files, splits and time spans.

VIDEOS/train/..., VIDEOS/test/..., VIDEOS/val/...     the folder names give the split
VIDEOS/anything.mp4                                   a hash of the path: 90 % train, 10 % test

A hash of its name also tells the shard of a clip and its place in there.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib

from data_prep import storage
from foley_jax.media import files

SPLITS = ("train", "test", "val")
HASHED_TEST_PERCENT = 10
MIN_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one source video that becomes one clip.

    Attributes:
      source: path relative to the videos' folder, with forward slashes.
      split: where it goes.
      part: which clip of the source it is.
      start_s, end_s: its place in the source.
      id: name of the clip; None is the source without its suffix, `#` and the part.
      labels: names of what is heard; None if only the source's truth file may know.
    """

    source: str
    split: str
    part: int
    start_s: float
    end_s: float
    id: str | None = None
    labels: tuple[str, ...] | None = None

    @property
    def clip_id(self) -> str:
        """Unique name of the clip in its set."""
        return self.id if self.id is not None else f"{without_suffix(self.source)}#{self.part}"


def without_suffix(source: str) -> str:
    """`a/b.mp4` -> `a/b`."""
    return str(pathlib.PurePosixPath(source).with_suffix(""))


def order(clip_id: str, seed: int) -> int:
    """Where a clip stands among all clips of its split: the first 64 bits of a SHA-256."""
    # a file name may hold bytes that are no text
    data = f"{seed}/{clip_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


def shard_number(place: int, num_shards: int) -> int:
    """The shard, in [0, num_shards), of a clip whose `order` is `place`.

    Shards are equal parts of the range of `order`. So a clip's shard depends on nothing but its id,
    the seed and their number, and the records of all shards, read one after the other, come in the
    same sequence for any number of shards.
    """
    return place * num_shards >> 64


def find_videos(
    folder: str | os.PathLike[str] | storage.Storage, *, leave_out: storage.Storage | None = None
) -> list[str]:
    """Relative paths of all video files under a folder, sorted; see `files.find`.

    What is passed over is said in one line on stderr.

    Args:
      folder: where to search.
      leave_out: a folder in it that is not searched: where the caller will write.
    Raises:
      ValueError: no such folder, or no video in it.
    """
    folder = storage.Storage(folder)
    if not folder.is_folder():
        raise ValueError(f"{folder}: no such folder of videos")
    found = folder.find(files.VIDEO_SUFFIXES, leave_out=leave_out)
    found.tell()
    if not found.paths:
        raise ValueError(
            f"{folder} holds no video file ({', '.join(files.VIDEO_SUFFIXES)}); make the "
            f"embedded set with `python -m data_prep.scenes {folder}`"
        )
    return found.paths


def names_of(sources: list[str]) -> list[str]:
    """Returns what the clips of each source are called before `#`: unique in the list.

    That is the path without its suffix, or the whole path where another is called so.
    """
    names = [without_suffix(source) for source in sources]
    # a.mov and a.mp4 keep their suffixes; then a.mp4.avi must keep its own, too
    while len(times := collections.Counter(names)) < len(set(sources)):
        names = [s if times[name] > 1 else name for s, name in zip(sources, names)]
    return names


def split_of(source: str, split: str) -> str:
    """The split of a source file.

    Args:
      source: path relative to the videos' folder.
      split: "auto" (a folder named train, test or val, or one of these with a suffix such as
        test_hard, in the path; else a hash of the path), or the name of the split for everything.
    """
    if split != "auto":
        return split
    for part in pathlib.PurePosixPath(source).parts[:-1]:
        if part.partition("_")[0] in SPLITS:
            return part
    data = source.encode(errors="surrogatepass")
    percent = int.from_bytes(hashlib.sha256(data).digest()[:4]) % 100
    return "test" if percent < HASHED_TEST_PERCENT else "train"


def cut(
    source: str, split: str, end_s: float, clip_s: float, *, start_s: float = 0.0
) -> list[Span]:
    """Cuts a source into consecutive clips; a shorter last piece is kept from 0.5 s on.

    Args:
      source, split: go into the spans.
      end_s: where to end, e.g. the length of the source.
      clip_s: length of a clip.
      start_s: where to begin.
    Returns:
      Spans in order; none if there is less than 0.5 s.
    """
    spans: list[Span] = []
    while True:
        first_s = start_s + len(spans) * clip_s
        left_s = end_s - first_s
        if left_s < MIN_SECONDS:
            return spans
        last_s = first_s + min(clip_s, left_s)
        spans.append(Span(source, split, len(spans), round(first_s, 6), round(last_s, 6)))
