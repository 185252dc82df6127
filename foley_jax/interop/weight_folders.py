"""The weight files of a source: a file, the shards of a model, or folders of diffusers."""

from collections.abc import Sequence
import json
from pathlib import Path
import re

SAFETENSORS = (".safetensors",)
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
# what accelerate, DeepSpeed and transformers' Trainer save beside the weights
_STATES = re.compile(
    r"(optimizer|scheduler|scaler|sampler|random_states|rng_state|training_args|.*optim_states)"
    r"[\w.-]*"
)


class MissingShardError(FileNotFoundError):
    """A set of shards that is not whole; the message names those that are missing."""


def weight_files(
    path: Path, *, folders: Sequence[str] = (), averaged: bool = False
) -> list[tuple[str, Path]]:
    """(prefix of its keys, file) of every file to read.

    Args:
      path: a weight file, a shard of several (NAME-00001-of-00003.safetensors; all are read), the
        index of shards (NAME.safetensors.index.json), or a folder.
      folders: named subfolders of a folder, each of whose keys get the prefix "SUBFOLDER.".
      averaged: of "model.safetensors" and "model.non_ema.safetensors" in a folder, the former.
    Raises:
      MissingShardError: a shard is not there.
      FileNotFoundError: no such file, or no weight file in a folder.
      ValueError: a folder of torch.distributed.checkpoint, or an index that is none.
    """
    if path.is_file():
        return [("", file) for file in _of_file(path)]
    if not path.is_dir():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if not folders:
        return [("", file) for file in _of_folder(path, averaged)]
    return [(f"{name}.", file) for name in folders for file in _of_folder(path / name, averaged)]


def _of_file(path: Path) -> list[Path]:
    if path.name.endswith(INDEX):
        return _indexed(path)
    shard = _SHARD.fullmatch(path.name)
    if not shard:
        return [path]
    count = int(shard["count"])
    names = [
        f"{shard['stem']}-{number + 1:05}-of-{count:05}{shard['suffix']}" for number in range(count)
    ]
    return _present(path.parent, names, f"{path.name} is one of {count} shards")


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if not names or not all(Path(name).name == name for name in names):
            raise ValueError("no plain file names")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is not an index of shards, {{'weight_map': {{key: file}}}}: {error!r}; "
            "download or copy it again"
        ) from error
    return _present(index.parent, names, f"{index.name} names {len(names)} shards")


def _present(folder: Path, names: Sequence[str], why: str) -> list[Path]:
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        shown = ", ".join(lost[:3]) + (" and more" if len(lost) > 3 else "")
        raise MissingShardError(
            f"{why}, and {folder} lacks {len(lost)} of them ({shown}); download or copy them there"
        )
    return [folder / name for name in names]


def _of_folder(folder: Path, averaged: bool) -> list[Path]:
    """All safetensors files of a folder, or, without any, all its pickles; no copy twice."""
    names = sorted(folder.glob("[!.]*"))
    if any(file.suffix == ".distcp" for file in names):
        raise ValueError(
            f"{folder} is a folder of torch.distributed.checkpoint; make one file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE.pt"
        )
    indexes = [file for file in names if file.name.endswith(INDEX)]
    for suffixes in (SAFETENSORS, PICKLES):
        # "model.fp16.safetensors" beside "model.safetensors" holds the same weights again
        files = [f for f in names if f.suffix in suffixes and not _STATES.fullmatch(f.name)]
        files = [f for f in files if ".fp16." not in f.name] or files
        last = [f for f in files if ".non_ema." in f.name]
        mean = [f for f in files if f not in last]
        chosen = (mean or last) if averaged else (last or mean)
        if any(_SHARD.fullmatch(file.name) for file in chosen):
            for index in indexes:
                if index.name.removesuffix(INDEX).endswith(suffixes):
                    return _indexed(index)
            return sorted({shard for file in chosen for shard in _of_file(file)})
        if chosen:
            return chosen
    if indexes:
        return _indexed(indexes[0])  # raises: nothing that it names is there
    raise FileNotFoundError(f"{folder} has no weight files ({', '.join(SAFETENSORS + PICKLES)})")
