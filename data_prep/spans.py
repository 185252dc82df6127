"""Which clips a folder of videos gives: files, splits and time spans.

VIDEOS/train/..., VIDEOS/test/..., VIDEOS/val/...     the folder names give the split
VIDEOS/anything.mp4                                   a hash of the path: 90 % train, 10 % test
"""

import dataclasses
import hashlib
import pathlib

from foley_jax.media import container

SPLITS = ("train", "test", "val")
HASHED_TEST_PERCENT = 10
MIN_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of one source video that becomes one clip.

    Attributes:
      source: path relative to the videos' folder, with forward slashes.
      split: where it goes.
      part: which clip of the source it is.
      start_s, end_s: its place in the source.
    """

    source: str
    split: str
    part: int
    start_s: float
    end_s: float

    @property
    def clip_id(self) -> str:
        """Unique name of the clip in its set."""
        return f"{pathlib.PurePosixPath(self.source).with_suffix('')}#{self.part}"


def find_videos(folder: pathlib.Path) -> list[str]:
    """Relative paths of all video files under a folder, sorted; hidden files are left out.

    Raises:
      ValueError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of videos")
    found = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in container.VIDEO_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not found:
        raise ValueError(
            f"{folder} holds no video file ({', '.join(container.VIDEO_SUFFIXES)}); make the "
            f"embedded set with `python -m data_prep.scenes {folder}`"
        )
    return found


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
    percent = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4]) % 100
    return "test" if percent < HASHED_TEST_PERCENT else "train"


def cut(source: str, split: str, duration_s: float, clip_s: float) -> list[Span]:
    """Cuts a source into consecutive clips; a shorter last piece is kept from 0.5 s on.

    Args:
      source, split: go into the spans.
      duration_s: length of the source.
      clip_s: length of a clip.
    Returns:
      Spans in order; none if the source is shorter than 0.5 s.
    """
    spans = []
    while True:
        start_s = len(spans) * clip_s
        left_s = duration_s - start_s
        if left_s < MIN_SECONDS:
            return spans
        end_s = start_s + min(clip_s, left_s)
        spans.append(Span(source, split, len(spans), round(start_s, 6), round(end_s, 6)))
