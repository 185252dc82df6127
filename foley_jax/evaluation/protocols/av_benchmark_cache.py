"""Feature caches of av-benchmark: files of PyTorch, name of an audio clip -> tensors.

    cache/pann_features.pth      stem -> {"logits": [527], "2048": [2048], "clipwise_output": [527]}
    cache/vggish_features.pth    stem -> [N, 128], N windows of 0.96 s
    ...                          (`FILES`)

Either tool can use the other's: what lies there under these names is read in place of an
extraction, and what is extracted here is written under them. A file written here says so, and of
which audio clips it was made: it is used again only for the same audio clips, while nobody can know
  that of a file of av-benchmark, whose names alone are trusted. All values are float32.
Source: av-benchmark av_bench/extract.py, extract_video.py, extract_text.py.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from foley_jax.evaluation import run_card
from foley_jax.interop import torch_tensors

FEATURES = "features"  # what the part of an item is called that is one tensor
ANY = -1
_MADE_BY = "foley_jax"

Parts = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class File:
    """One of the files.

    Attributes:
      shapes: part of an item -> its shape; `ANY` is any length of at least 1.
      is_dict: whether an item is a dict in the file too, or the tensor of its only part.
    """

    shapes: Mapping[str, tuple[int, ...]]
    is_dict: bool = False


FILES: Mapping[str, File] = {
    "pann_features": File(
        {"logits": (527,), "2048": (2048,), "clipwise_output": (527,)}, is_dict=True
    ),
    "vggish_features": File({FEATURES: (ANY, 128)}),
    "passt_features_embed": File({FEATURES: (768,)}),
    "passt_logits": File({"logits": (527,)}),
    "imagebind_video": File({FEATURES: (1024,)}),
    "imagebind_audio": File({FEATURES: (1024,)}),
    "clap_laion_text": File({FEATURES: (512,)}),
    "clap_laion_audio": File({FEATURES: (512,)}),
    "clap_ms_text": File({FEATURES: (1024,)}),
    "clap_ms_audio": File({FEATURES: (1024,)}),
    # segments of 0.64 s, 8 steps of images or 6 of audio
    "synchformer_video": File({FEATURES: (ANY, 8, 768)}),
    "synchformer_audio": File({FEATURES: (ANY, 6, 768)}),
}


def path_of(folder: Path, name: str) -> Path:
    """Where a file lies.

    Raises:
      ValueError: a name that is not among `FILES`.
    """
    if name not in FILES:
        raise ValueError(f"unknown cache {name!r}; known caches: {', '.join(FILES)}")
    return folder / f"{name}.pth"


def read(folder: Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """All items of one file: stem -> part -> float32 array of the shape in `FILES`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a file of tensors, or an item with other parts, another shape, or values that
        are not finite (av-benchmark writes a single number for MS-CLAP's last item where it
        is alone in its batch).
    """
    path = path_of(folder, name)
    return {
        stem: _checked(f"{path}: {stem!r}", FILES[name], value)
        for stem, value in torch_tensors.read(path).items()
    }


def write(folder: Path, name: str, items: Mapping[str, Parts], made_of: Mapping[str, Any]) -> Path:
    """Writes one file in the order of the stems, as av-benchmark does.

    Args:
      items: stem -> part -> float array of the shape in `FILES`.
      made_of: JSON-able; by what `find` knows the audio clips and settings again.
    Raises:
      ValueError: items that av-benchmark could not read; or a file that was not written here.
    """
    path = path_of(folder, name)
    if path.exists() and note_of(path) is None:
        raise ValueError(f"{path} was not written by {_MADE_BY}; it is not overwritten")
    tensors: dict[str, Any] = {}
    for stem in sorted(items):
        shapes = FILES[name].shapes
        parts = _checked(f"{name}: {stem!r}", File(shapes, is_dict=True), items[stem])
        tensors[stem] = parts if FILES[name].is_dict else parts[next(iter(shapes))]
    folder.mkdir(parents=True, exist_ok=True)
    note = json.dumps({"made_by": _MADE_BY, **made_of}, sort_keys=True)
    torch_tensors.write(path, tensors, note)
    return path


def note_of(path: Path) -> dict[str, Any] | None:
    """Returns what a file was made of (`write`).

    None if it is another tool's, or no file of tensors.
    """
    try:
        note = json.loads(torch_tensors.read_note(path) or "null")
    except ValueError:
        return None
    if not isinstance(note, dict) or note.pop("made_by", None) != _MADE_BY:
        return None
    return note


def find(folders: Sequence[Path], name: str, made_of: Mapping[str, Any] | None) -> list[Path]:
    """The folders whose file of this name can be used for some audio clips.

    Args:
      made_of: what a file that was written here must have been made of; None takes none of these.
    """
    usable = []
    for folder in folders:
        path = path_of(folder, name)
        note = note_of(path) if path.is_file() else None
        if path.is_file() and (note is None or (made_of is not None and note == dict(made_of))):
            usable.append(folder)
    return usable


def _checked(what: str, file: File, value: Parts | np.ndarray) -> dict[str, np.ndarray]:
    """An item's parts, float32, in the order of `FILES`."""
    if isinstance(value, Mapping) != file.is_dict:
        raise ValueError(f"{what} is a {type(value).__name__}, unlike what av-benchmark writes")
    parts = value if isinstance(value, Mapping) else {next(iter(file.shapes)): value}
    if set(parts) != set(file.shapes):
        raise ValueError(f"{what} holds {sorted(parts)}, expected {sorted(file.shapes)}")
    for key, shape in file.shapes.items():
        array = parts[key]
        if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
            kind = getattr(array, "dtype", type(array).__name__)
            raise ValueError(f"{what}, {key}: {kind}, expected float32")
        fits = array.ndim == len(shape) and all(
            have == want or (want == ANY and have) for have, want in zip(array.shape, shape)
        )
        if not fits:
            told = ", ".join("any" if n == ANY else str(n) for n in shape)
            raise ValueError(f"{what}, {key}: shape {list(array.shape)}, expected [{told}]")
        if not np.isfinite(array).all():
            raise ValueError(f"{what}, {key}: holds values that are not finite")
    return {key: parts[key].astype(np.float32, copy=False) for key in file.shapes}


@dataclasses.dataclass(frozen=True)
class Cached:
    """Contents of the caches for one file.

    Attributes:
      file: its name.
      items: name -> part -> array.
      identity: for the run card, which files by content.
      why: why there is nothing, or nothing more.
    """

    file: str
    items: Mapping[str, Mapping[str, Any]]
    identity: Mapping[str, str]
    why: str

    def lacks(self, names: Iterable[str]) -> str:
        """Why it cannot be used for these audio clips; "" if it can."""
        lacking = [name for name in names if name not in self.items]
        if self.items and lacking:
            some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            return f"{self.file}.pth lacks {len(lacking)} audio clips ({some}); {self.why}"
        return "" if self.items else self.why


def read_all(folders: Sequence[Path], file: str, no_network: str) -> Cached:
    """One file of several folders; of one audio clip the first counts."""
    items: dict[str, Mapping[str, Any]] = {}
    identity = {}
    try:
        for folder in reversed(folders):
            items |= read(folder, file)
            path = path_of(folder, file)
            identity[f"{folder.parent.name}/{folder.name}"] = run_card.content_hash(path)
    except ValueError as error:
        return Cached(file, {}, {}, f"{error}; {no_network}")
    why = no_network if items else f"no {file}.pth in its caches; {no_network}"
    return Cached(file, items, identity, why)
