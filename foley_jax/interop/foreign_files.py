"""Recognises files that have the name of a weight file but hold no weights.

Download pages, Git LFS pointers, packed folders, files of other frameworks: each has a first line
or a magic number, and each wants something else done.
"""

from pathlib import Path
import re

_BEGIN = 1024  # bytes that are looked at
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras, TensorFlow)",
    b"GGUF": "a GGUF file (llama.cpp)",
    b"\x93NUMPY": "a NumPy array",
}


def complaint(path: Path) -> str | None:
    """Returns what is wrong with a file and what to do; None if its beginning tells of nothing."""
    size = path.stat().st_size
    if not size:
        return "is empty: the download or the copy failed (disk full?); get it again"
    with path.open("rb") as file:
        begin = file.read(_BEGIN)
    if begin.startswith(b"version https://git-lfs"):
        found = re.search(rb"^size (\d+)", begin, re.MULTILINE)
        stands_for = f" of {int(found[1]):,} bytes" if found else ""
        return (
            f"is a Git LFS pointer, a few lines that stand for a file{stands_for}: run `git lfs "
            "pull` in its repository, or download the file itself"
        )
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return (
            "is a web page, not weights (a login, a warning or an error in place of the file): "
            "open it in a browser to see what it says, and download the file itself"
        )
    for magic, name in _PACKED.items():
        if begin.startswith(magic):
            return f"is packed with {name}: unpack it and give the file inside"
    if begin[257:262] == b"ustar":
        return "is a tar archive: unpack it and give the file inside"
    for magic, name in _OTHERS.items():
        if begin.startswith(magic):
            return f"is {name}; expected a file of torch.save or safetensors"
    if not begin.strip(b"\0"):
        return "begins with nothing but zeros: its download was cut off; get it again"
    if re.fullmatch(rb"[\t\r\n\x20-\x7e]+", begin):
        shown = begin[:40].decode().split("\n")[0]
        return f"is text ({shown!r} ...), expected a file of torch.save or safetensors"
    return None
