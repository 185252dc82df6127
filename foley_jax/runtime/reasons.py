"""Why something failed, in words: what every list of failed files says of each.

An error that this package raises says itself what came and what to do. Others are told here: what
the operating system, a media library or a device says, and as a last resort the class of an error
that nobody expected, with the place where it happened.
"""

import errno
import os
import sys
import sysconfig
import traceback
from types import TracebackType

SWITCH = "FOLEY_JAX_TRACEBACK"  # environment variable; "1" also prints where each failure was
LONGEST = 500  # characters of what another library says
_OURS = ("foley_jax", "data_prep", "configs")
_LIBRARIES = {"av": "FFmpeg", "soundfile": "libsndfile", "array_record": "ArrayRecord"}
_ADVICE = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EROFS: "write to another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EIO: "check the disk, or the network to it",
    errno.ESTALE: "check the network file system",
}


def of(error: BaseException) -> str:
    """Returns why something failed, one line that is never empty.

    With FOLEY_JAX_TRACEBACK=1 in the environment the traceback is printed as well.
    """
    if os.environ.get(SWITCH) == "1":
        traceback.print_exception(error, file=sys.stderr)
    return _words(error).replace("\n", " ")


def _words(error: BaseException) -> str:
    text = str(error)
    library = _LIBRARIES.get(type(error).__module__.split(".")[0])
    if isinstance(error, UnicodeError):
        return _of_encoding(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return _of_memory(error, text)
    if getattr(error, "strerror", None) and (library or isinstance(error, OSError)):
        return _of_system(error, library)
    if library and text:
        return f"{library}: {_short(text)}"
    if text and _says_itself(error):
        return text
    return (
        f"unexpected {type(error).__name__}: {_short(text) or 'without a text'}"
        f"{_place(error.__traceback__)} (please report; {SWITCH}=1 shows more)"
    )


def _of_encoding(error: UnicodeError) -> str:
    what = getattr(error, "object", str(error))
    return f"a name or text is no UTF-8: {_short(ascii(what))}; rename the file, or write it anew"


def _of_memory(error: BaseException, text: str) -> str:
    where = "memory" if isinstance(error, MemoryError) else "the device's memory"
    said = f" ({_short(text.partition(chr(10))[0])})" if text else ""
    return f"not enough of {where}{said}; use a smaller group, or a shorter file"


def _of_system(error: BaseException, library: str | None) -> str:
    """Returns what an operating system's error, FFmpeg's too, says, without its number."""
    said = f"{library}: {error.strerror}" if library else f"{error.strerror}"
    file = getattr(error, "filename", None)
    advice = _ADVICE.get(getattr(error, "errno", None))
    return said + (f": {os.fspath(file)}" if file else "") + (f"; {advice}" if advice else "")


def _says_itself(error: BaseException) -> bool:
    """Whether somebody wrote the text for people: our own classes, and plain ones that we raise."""
    if _is_ours(type(error).__module__):
        return True
    if type(error) not in (ValueError, FloatingPointError) and not isinstance(error, OSError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or not _is_foreign(frames[-1])


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in _OURS


def _is_foreign(frame) -> bool:
    """Whether a frame is of another package, or of Python itself."""
    if _is_ours(frame.f_globals.get("__name__", "")):
        return False
    file = frame.f_code.co_filename
    return "site-packages" in file or file.startswith(sysconfig.get_path("stdlib"))


def _place(trace: TracebackType | None) -> str:
    """Where in this package; nothing if it was elsewhere."""
    ours = [
        f" in {frame.f_globals['__name__']}, line {line}"
        for frame, line in traceback.walk_tb(trace)
        if _is_ours(frame.f_globals.get("__name__", ""))
    ]
    return ours[-1] if ours else ""


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
