"""Which item of a system belongs to which of the reference, where their folders differ.

Names are paths below a folder without suffix (`run_card.name_of`); equal ones belong together.
Where one side lies flat and the other in class folders (0 and cat/0), the longer name must end like
the shorter one, and no other may; what our own commands made is known by the video that their
scores.json names.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from pathlib import Path, PurePath

from foley_jax.evaluation import run_card
from foley_jax.media import names as name_lib


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A system's files under the names of the reference.

    Attributes:
      paths: name -> file; files of no item of the reference keep their own name.
      ambiguous: name of the reference -> why no file, or which of several, is the item's.
    """

    paths: dict[str, Path]
    ambiguous: dict[str, str]


def pair(found: Mapping[str, Path], folder: Path, reference: Mapping[str, Path]) -> Pairs:
    """Gives the files of a system the names of the reference.

    Args:
      found: own name -> file, all below `folder`.
      folder: of the system; its scores.json is read if it has one.
      reference: name -> file.
    """
    own_of: dict[str, str] = {}  # reference name -> own name
    left = dict.fromkeys(found)
    for own, name in (*_made_for(found, folder, reference), *((own, own) for own in found)):
        if own in left and name in reference and name not in own_of:
            own_of[name] = own
            del left[own]
    ends = _Ends(left), _Ends(name for name in reference if name not in own_of)
    ambiguous: dict[str, str] = {}
    for own in list(left):
        names = ends[1].of(own)
        rivals = {rival: None for name in names for rival in ends[0].of(name)}
        if not names:
            continue
        del left[own]
        if len(names) == len(rivals) == 1:
            own_of[names[0]] = own
            continue
        files = " and ".join(str(found[rival]) for rival in rivals)
        items = " and ".join(str(reference[name]) for name in names)
        why = f"{files} may belong to {items}: lay both sides out in the same folders"
        ambiguous |= dict.fromkeys(names, why)
    paths = {name: found[own] for name, own in own_of.items()}
    for own in left:
        # another file took this name of the reference
        paths[own if own not in reference else found[own].name] = found[own]
    return Pairs(dict(sorted(paths.items())), ambiguous)


class _Ends:
    """Names by their last part."""

    def __init__(self, names):
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(name.rpartition("/")[2], []).append(name)

    def of(self, other: str) -> list[str]:
        """The names that end like another one, or whose end it is; never its equal in full."""
        there = self._by_stem.get(other.rpartition("/")[2], [])
        return [name for name in there if _ends(name, other) or _ends(other, name)]


def _ends(name: str, end: str) -> bool:
    return f"/{name}".endswith(f"/{end}")


def _made_for(
    found: Mapping[str, Path], folder: Path, reference: Mapping[str, Path]
) -> Iterator[tuple[str, str]]:
    """(own name, name of the reference) of what scores.json says was made for a video."""
    clips = run_card.generator_clips(folder)
    videos = {name_lib.shown(clip): entry.get("video") for clip, entry in clips.items()}
    by_stem = _Ends(reference)
    claims = []
    for own in found:
        if not videos.get(own):
            continue
        video = PurePath(name_lib.shown(videos[own]))
        stem = video.with_suffix("").as_posix()
        ends = [name for name in by_stem.of(stem) if _ends(stem, name)]
        if ends:
            name = max(ends, key=len)
            # of a.mov and a.mp4 that one which the reference has; then the one that is called so
            rank = (reference[name].suffix != video.suffix, own != name)
            claims.append((rank, own, name))
    for _, own, name in sorted(claims):
        yield own, name
