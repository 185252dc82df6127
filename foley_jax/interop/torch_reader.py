"""Weight files as NumPy arrays, read without PyTorch and without running code in them.

`.safetensors`, or PyTorch files, told apart by what they hold and not by their names. Training
writes more into a file than weights: where they lie, and what was left there, becomes a note.

A zip file of PyTorch has a checksum for every tensor, which is compared. Safetensors and PyTorch's
older files have none: there, damage to the names and shapes is found, to the numbers it is not;
compare such a file with the sum that its publisher gives.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from foley_jax.interop import foreign_files, torch_archive, torch_pickle, weight_folders

ENDINGS = (*weight_folders.SAFETENSORS, *weight_folders.PICKLES)
# under these names training codes keep a state dict: bare, Lightning, DeepSpeed, and others
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
# the same of weights averaged over training; the first is timm's
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "shadow")
# what may stand between the tensors of a state dict that was saved with everything else
_STATES = (
    *("optimizer", "optimizers", "optimizer_state_dict", "optimizer_states", "opt", "optim"),
    *("scheduler", "lr_scheduler", "lr_schedulers", "scheduler_state_dict", "scaler", "amp"),
    *("epoch", "step", "steps", "global_step", "iteration", "iter", "best", "callbacks", "loops"),
    *("args", "cfg", "config", "hparams", "hyper_parameters", "opts", "meta", "rng_state"),
)
_DEEPEST = 4  # containers within containers
# element types that need no note: parameters are float32, counters of steps are int64
_USUAL = ("Float", "Long", "F32", "I64")
_QUIET = ("builtins.", "_codecs.", "numpy.", "torch.", "collections.", "copyreg.")


class Weights(NamedTuple):
    """Contents of a source.

    Attributes:
      state: key -> read-only array; bfloat16 as float32.
      notes: what was chosen, passed over or changed, a line each.
      averaged: whether the averages (EMA) were asked for and stood in a dict of their own.
    """

    state: dict[str, np.ndarray]
    notes: tuple[str, ...]
    averaged: bool


def read(
    path: Path,
    *,
    containers: Sequence[str] = ("state_dict",),
    folders: Sequence[str] = (),
    averaged: bool = False,
) -> Weights:
    """The state dict of a file, of shards, or of a folder of weight files.

    Args:
      path, folders: see `weight_folders.weight_files`.
      containers: names under which a file may hold its state dict, before the usual ones.
      averaged: where the last weights and their averages stand in dicts of their own, or in files
        of their own, take the averages; by default the last ones.
    Raises:
      FileNotFoundError: no such file, no weight file in a folder, or a shard that is missing.
      ValueError: another format, a damaged file, a pickle that holds code, or a key in two files.
    """
    state: dict[str, np.ndarray] = {}
    sources: dict[str, Path] = {}
    notes: list[str] = []
    found = False
    files = weight_folders.weight_files(path, folders=folders, averaged=averaged)
    for prefix, file in files:
        with _opened(file, containers, averaged) as entries:
            for key in entries.keys():  # noqa: SIM118, a safetensors file is no mapping
                if prefix + key in state:
                    raise ValueError(
                        f"{prefix + key!r} is in {sources[prefix + key]} and in {file}: these are "
                        "no parts of one model; give the file you mean"
                    )
                state[prefix + key], sources[prefix + key] = entries.get(key), file
            about = f"{file.name}: " if len(files) > 1 else ""
            notes += [about + note for note in entries.notes()]
            found = found or entries.averaged
    return Weights(state, tuple(notes), found)


def read_state_dict(
    path: Path,
    *,
    containers: Sequence[str] = ("state_dict",),
    folders: Sequence[str] = (),
    averaged: bool = False,
) -> dict[str, np.ndarray]:
    """As `read`, the state dict alone."""
    return read(path, containers=containers, folders=folders, averaged=averaged).state


def read_keys(
    path: Path, *, containers: Sequence[str] = ("state_dict",), folders: Sequence[str] = ()
) -> list[str]:
    """The keys that `read_state_dict` would give; tensors stay on disk."""
    keys: list[str] = []
    for prefix, file in weight_folders.weight_files(path, folders=folders):
        with _opened(file, containers, averaged=False) as entries:
            keys += [prefix + key for key in entries.keys()]  # noqa: SIM118
    return keys


@contextlib.contextmanager
def _opened(
    path: Path, containers: Sequence[str], averaged: bool
) -> Iterator["_Safetensors | _Pickled"]:
    """The entries of a file; errors in it name it."""
    if path.suffix not in (*ENDINGS, ".tar"):
        raise ValueError(f"{path} is not a weight file; known endings: {', '.join(ENDINGS)}")
    with path.open("rb") as file:
        begin = file.read(9)
    # the header's length, then the header
    is_safe = begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= path.stat().st_size
    wrong = None if is_safe else foreign_files.complaint(path)
    if wrong:
        raise ValueError(f"{path} {wrong}")
    if not is_safe and begin[:2] == b"PK":
        yield _Pickled(path, torch_archive.read_zip(path), containers, averaged)
    elif not is_safe and begin[:1] == b"\x80":
        yield _Pickled(path, torch_archive.read_legacy(path), containers, averaged)
    else:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                yield _Safetensors(path, file)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is neither a readable safetensors file nor one of torch.save (is it "
                f"whole? download or copy it again): {error}"
            ) from error


class _Safetensors:
    averaged = False

    def __init__(self, path: Path, file: Any):
        self._path, self._file = path, file
        self._kinds: Counter[str] = Counter()

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def get(self, key: str) -> np.ndarray:
        kind = self._file.get_slice(key).get_dtype()
        self._kinds[kind] += 1
        if kind == "BF16":
            return _bfloat16(self._path, key)
        try:
            return self._file.get_tensor(key)
        except TypeError as error:
            raise ValueError(
                f"{self._path}: {key!r} is stored as {kind}, which NumPy does not know; save the "
                "file in float16 or float32"
            ) from error

    def notes(self) -> list[str]:
        return _stored_as(self._kinds)


def _stored_as(kinds: Mapping[str, int]) -> list[str]:
    return [
        f"{count} keys are stored as {kind}; parameters become float32"
        for kind, count in kinds.items()
        if kind not in _USUAL
    ]


def _bfloat16(path: Path, key: str) -> np.ndarray:
    """A bfloat16 tensor of a safetensors file as float32: its bits are the upper half."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[key]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        bits = np.frombuffer(file.read(end - start), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(entry["shape"])


class _Pickled:
    """The state dict within what torch.save wrote."""

    def __init__(
        self,
        path: Path,
        content: torch_archive.Content,
        containers: Sequence[str],
        averaged: bool,
    ):
        self._path, self._content = path, content
        self._kinds: Counter[str] = Counter()
        self._notes: list[str] = []
        self.averaged = False
        self._state = self._tensors(self._choose(content.value, containers, averaged))

    def keys(self) -> list[str]:
        return list(self._state)

    def get(self, key: str) -> np.ndarray:
        value = self._state[key]
        if not isinstance(value, torch_pickle.Tensor):
            return np.asarray(value)
        self._kinds[value.kind] += 1
        with torch_archive.naming(self._path):
            return value.array()

    def notes(self) -> list[str]:
        passed = [n for n in self._content.beside if not n.startswith(_QUIET)]
        notes = [*self._notes, *_stored_as(self._kinds)]
        if passed:
            notes.append(
                f"objects that are no tensors were passed over: {torch_pickle.names(passed)}"
            )
        return notes

    def _choose(self, value: Any, containers: Sequence[str], averaged: bool) -> Mapping[str, Any]:
        """The innermost dict that holds the weights."""
        for _ in range(_DEEPEST):
            self._check_dict(value)
            names = [*containers]
            if averaged and not self.averaged:
                names = [*_AVERAGED, *names]
            if not any(isinstance(entry, torch_pickle.Tensor) for entry in value.values()):
                names += [*_CONTAINERS, *_AVERAGED]
            name = next((n for n in names if isinstance(value.get(n), dict)), None)
            if name is None:
                break
            kind = "weights"
            if name in _AVERAGED:
                self.averaged = averaged
                kind = "weights averaged over training (EMA)"
            left = [str(key) for key in value if key != name]
            beside = f"; left beside them: {torch_pickle.names(left)}" if left else ""
            self._notes.append(f"{kind} taken from {name!r}{beside}")
            value = value[name]
        self._check_dict(value)
        return value

    def _check_dict(self, value: Any) -> None:
        name = getattr(value, "full_name", None)
        if name is not None and not value:
            raise ValueError(
                f"{self._path} is refused: it holds a pickled object ({name}), perhaps a whole "
                "model, whose code would have to run. Load it where you trust it and save "
                "model.state_dict() with torch.save or safetensors.torch.save_file"
            )
        if not isinstance(value, dict):
            raise ValueError(
                f"{self._path} holds a {type(value).__name__}, expected a dict of tensors"
            )

    def _tensors(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors and numbers of a dict; training states between them are left out."""
        found, left = {}, []
        for key, entry in value.items():
            number = isinstance(entry, int | float)
            if isinstance(entry, torch_pickle.Tensor) or (number and key not in _STATES):
                found[str(key)] = entry
            elif key in _STATES:
                left.append(key)
            else:
                name = getattr(entry, "full_name", type(entry).__name__)
                raise ValueError(
                    f"{self._path}: {key!r} is a {name}, expected a tensor; the weights may lie "
                    f"under another name than {', '.join(_CONTAINERS)}"
                )
        shapes = [entry.shape for entry in found.values() if isinstance(entry, torch_pickle.Tensor)]
        if len(shapes) > 1 and all(0 in shape for shape in shapes):
            raise ValueError(
                f"{self._path}: all {len(shapes)} tensors are empty, as DeepSpeed's ZeRO stage 3 "
                "and FSDP leave them, whose parameters lie in other files; gather them first "
                "(zero_to_fp32.py, or FSDP's FULL_STATE_DICT)"
            )
        if left:
            self._notes.append(f"left beside the weights: {torch_pickle.names(left)}")
        return found
