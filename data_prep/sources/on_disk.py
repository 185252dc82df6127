"""Videos that lie in a folder, found by name."""

from collections.abc import Iterable
import pathlib

from data_prep import spans

SHORTEST_S = spans.MIN_SECONDS  # what sticks out less than this is no clip of its own


class Stock:
    """The videos under a folder, by stem: `a/b/x.MP4` is found as `x`.

    Args:
      videos: folder, searched with its subfolders; it may hold no video.
      root: folder that paths are given relative to, `videos` or one above it.
    Raises:
      ValueError: no such folder, or `root` is not above it.
    """

    def __init__(self, videos: pathlib.Path, root: pathlib.Path | None = None):
        if not videos.is_dir():
            raise ValueError(f"{videos}: no such folder of videos")
        self.videos = videos
        self._prefix = pathlib.PurePosixPath()
        if root is not None:
            if not videos.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"--root {root} is not above {videos}; paths start from it")
            self._prefix = pathlib.PurePosixPath(videos.resolve().relative_to(root.resolve()))
        try:
            self.sources = spans.find_videos(videos)
        except ValueError:  # no video: everything is missing, which is for the caller to say
            self.sources = []
        self._by_stem: dict[str, str] = {}
        for source in self.sources:
            self._by_stem.setdefault(pathlib.PurePosixPath(source).stem, source)
        self._taken: set[str] = set()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def stems(self) -> Iterable[str]:
        """Names of all videos, without folder and suffix."""
        return self._by_stem.keys()

    def find(self, stems: Iterable[str]) -> str | None:
        """Path of the first of these names that is there, relative to the videos' folder."""
        for stem in stems:
            if stem in self._by_stem:
                return self.take(self._by_stem[stem])
        return None

    def take(self, source: str) -> str:
        """Notes that a file is wanted, so that `strangers` leaves it out."""
        self._taken.add(source)
        return source

    def file_of(self, source: str) -> str:
        """Returns what a manifest calls a file (or a part of its path, to name its clip).

        From the root.
        """
        return str(self._prefix / source)

    @property
    def strangers(self) -> list[str]:
        """Files that nobody asked for."""
        return [source for source in self.sources if source not in self._taken]
