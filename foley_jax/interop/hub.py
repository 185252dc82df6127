"""Model files from and to the Hugging Face hub: "hub:OWNER/NAME" or "hub:OWNER/NAME/FILE"."""

from collections.abc import Callable, Sequence
import os
from pathlib import Path
import re
from types import ModuleType

PREFIX = "hub:"
_ENDINGS = ("safetensors", "bin")  # of diffusers folders, in order of preference


def is_hub(source: str | os.PathLike) -> bool:
    """Whether a source names something on the hub."""
    return str(source).startswith(PREFIX)


def fetch(
    source: str,
    *,
    file_names: Sequence[str] = (),
    folders: Sequence[str] = (),
    averaged: bool = False,
) -> Path:
    """Downloads into the hub's cache, with its progress bar, what is not there already.

    Args:
      source: "hub:OWNER/NAME/FILE", one file; or "hub:OWNER/NAME", whose files are chosen by:
      file_names: a file of one of these names, wherever it lies in the repository;
      folders: the weight files of these folders (diffusers), without half-precision copies.
      averaged: of weights that are there twice, leave the last ("non_ema") ones behind.
    Returns:
      The file, or the folder that holds `folders`.
    Raises:
      FileNotFoundError: not on the hub, or not in the cache and the hub cannot be reached; the
        message says which file to put where.
      ValueError: not a hub source, or a repository from which no file can be chosen.
      ImportError: huggingface_hub is not installed.
    """
    repo, file = _parts(source)
    hub = _hub()
    if file:
        return _reached(hub, repo, file, lambda: hub.hf_hub_download(repo, file))
    if file_names:
        folder = _snapshot(hub, repo, " or ".join(file_names), [f"*{name}" for name in file_names])
        found = [path for name in file_names for path in sorted(folder.rglob(name))]
        if found:
            return found[0]
    elif folders:
        ignore = ["*.fp16.*", *(["*.non_ema.*"] if averaged else [])]
        for ending in _ENDINGS:
            wanted = [f"{name}/*.{ending}" for name in folders]
            folder = _snapshot(hub, repo, " and ".join(wanted), wanted, ignore)
            if all(any((folder / name).glob(f"*.{ending}")) for name in folders):
                return folder
    looked = " or ".join([*file_names, *(f"{name}/" for name in folders)])
    raise ValueError(
        f"hub:{repo}: {f'no {looked} there' if looked else 'this kind has no usual file name'}; "
        f"name the file, hub:{repo}/FILE (list: https://huggingface.co/{repo}/tree/main)"
    )


def folder(source: str, wanted: Sequence[str]) -> Path | None:
    """Downloads the files of these names or patterns, as `fetch`.

    Returns:
      The folder that holds those that the repository has; None for "hub:OWNER/NAME/FILE", and where
      nothing can be had: `fetch` then says why.
    Raises:
      ValueError, ImportError: as `fetch`.
    """
    repo, file = _parts(source)
    if file:
        return None
    try:
        return _snapshot(_hub(), repo, " and ".join(wanted), list(wanted))
    except FileNotFoundError:
        return None


def push(source: Path, repo: str, *, public: bool = False) -> str:
    """Uploads a folder as a repository, which is made, private unless told otherwise.

    One that is there already stays as private or public as it is.

    Args:
      source: folder, all files of which are uploaded.
      repo: OWNER/NAME.
    Returns:
      Address of the upload.
    Raises:
      ValueError: no OWNER/NAME.
      OSError: the hub refuses, or cannot be reached.
      ImportError: huggingface_hub is not installed.
    """
    check_name(repo)
    hub = _hub()
    try:
        hub.create_repo(repo, private=not public, exist_ok=True, repo_type="model")
        done = hub.upload_folder(repo_id=repo, folder_path=str(source), repo_type="model")
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise OSError(
            f"{source} could not be uploaded to {repo}: {error}; log in with `hf auth login`, and "
            "see that the name's owner is you or an organisation of yours"
        ) from error
    return str(done)


def check_name(repo: str) -> None:
    """Whether a name is of the form OWNER/NAME.

    Raises:
      ValueError: it is not.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise ValueError(f"{repo!r} is not of the form OWNER/NAME")


def _parts(source: str) -> tuple[str, str]:
    """(OWNER/NAME, FILE or "") of a hub source."""
    parts = str(source).removeprefix(PREFIX).split("/")
    if not is_hub(source) or len(parts) < 2 or not all(parts):
        raise ValueError(f"{source!r} is not of the form hub:OWNER/NAME or hub:OWNER/NAME/FILE")
    return "/".join(parts[:2]), "/".join(parts[2:])


def _hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            "hub: sources need huggingface_hub: pip install 'foley_jax[convert]'; or download "
            "the file yourself and give its path"
        ) from error
    return huggingface_hub


def _snapshot(
    hub: ModuleType, repo: str, label: str, wanted: list[str], ignore: list[str] | None = None
) -> Path:
    return _reached(
        hub,
        repo,
        label,
        lambda: hub.snapshot_download(repo, allow_patterns=wanted, ignore_patterns=ignore),
    )


def _reached(hub: ModuleType, repo: str, label: str, download: Callable[[], str]) -> Path:
    """The result of `download`, or an error that says what to do by hand."""
    errors = hub.errors
    try:
        return Path(download())
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        cache = os.path.join(hub.constants.HF_HUB_CACHE, "models--" + repo.replace("/", "--"))
        raise FileNotFoundError(
            f"hub:{repo}: {label} is not in the cache and the hub cannot be reached. On a machine "
            f"with a connection, download {label} from https://huggingface.co/{repo}/tree/main and "
            f"give its path here instead of hub:{repo}; or bring that machine's copy of the folder "
            f"{cache} to the same place on this one"
        ) from error
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"hub:{repo}: the hub has no {label} there, or it is private (`hf auth login`); see "
            f"https://huggingface.co/{repo}/tree/main"
        ) from error
