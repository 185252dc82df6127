"""Errors that files and devices have raised, and the words that are told of them."""

import errno
import struct

import av
import soundfile


class DeviceError(RuntimeError):
    """As jaxlib's, which has the same name in no two versions."""


def encoding(error):
    try:
        if error is UnicodeEncodeError:
            "sound\udcff.mp4".encode()
        b"\xff".decode()
    except UnicodeError as caught:
        return caught


def index():
    try:
        return [][3]
    except IndexError as error:
        return error


# kind -> (makes what is raised for one file, what its reason says)
RAISED = {
    "index": (index, "unexpected IndexError: list index out of range"),
    "key": (lambda: KeyError("fps"), "unexpected KeyError: 'fps'"),
    "empty": (lambda: ValueError(), "unexpected ValueError: without a text"),
    "bare": (lambda: RuntimeError(), "unexpected RuntimeError: without a text"),
    "assertion": (lambda: AssertionError(), "unexpected AssertionError"),
    "encode": (lambda: encoding(UnicodeEncodeError), "is no UTF-8: 'sound\\udcff.mp4'; rename"),
    "decode": (lambda: encoding(UnicodeDecodeError), "is no UTF-8: b'\\xff'; rename"),
    "memory": (lambda: MemoryError(), "not enough of memory; use a smaller group"),
    "allocation": (
        lambda: MemoryError("Unable to allocate 3.2 GiB"),
        "not enough of memory (Unable to allocate 3.2 GiB)",
    ),
    "device": (
        lambda: DeviceError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.\nBuffers:\n 1"),
        "not enough of the device's memory (RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.)",
    ),
    "ffmpeg": (
        lambda: av.error.UnknownError(-1, "something odd", "a.mp4"),
        "FFmpeg: something odd: a.mp4",
    ),
    "invalid": (
        lambda: av.error.InvalidDataError(-2, "Invalid data found", "a.mp4"),
        "FFmpeg: Invalid data found: a.mp4",
    ),
    "end": (lambda: av.error.EOFError(-3, "End of file"), "FFmpeg: End of file"),
    "wav": (lambda: soundfile.LibsndfileError(2, "Error opening: "), "libsndfile: Error opening"),
    "full": (
        lambda: OSError(errno.ENOSPC, "No space left on device", "a.wav"),
        "No space left on device: a.wav; free some space",
    ),
    "eof": (lambda: EOFError(), "unexpected EOFError: without a text"),
    "stop": (lambda: NotImplementedError("half"), "unexpected NotImplementedError: half"),
    "struct": (lambda: struct.error("unpack requires 4 bytes"), "unexpected error: unpack requ"),
}
