"""Tests what breaks the bytes of a good media file.

Each a function from the file to the broken one.
"""

from collections.abc import Callable
import struct

import numpy as np


def cut(share: float) -> Callable[[bytes], bytes]:
    """Keeps the first part of a file."""
    return lambda data: data[: int(len(data) * share)]


def without_box(name: bytes) -> Callable[[bytes], bytes]:
    """Takes a top-level box out of an mp4."""

    def change(data: bytes) -> bytes:
        at, out = 0, b""
        while at < len(data):
            size = struct.unpack(">I", data[at : at + 4])[0]
            if data[at + 4 : at + 8] != name:
                out += data[at : at + size]
            at += size
        return out

    return change


def renamed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Replaces a code everywhere."""

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new)

    return change


def zero_size(data: bytes) -> bytes:
    """Writes 0x0 into the sample description and the track header of an mp4's image."""
    out = bytearray(data)
    at = data.index(b"avc1") + 4 + 24
    out[at : at + 4] = bytes(4)
    at = data.index(b"tkhd") + 4 + 76
    out[at : at + 8] = bytes(8)
    return bytes(out)


def mono_in_name(data: bytes) -> bytes:
    """The sample description of a stereo track says it has one channel."""
    out = bytearray(data)
    at = data.index(b"mp4a") + 4 + 16
    assert data[at : at + 2] == b"\0\2"
    out[at : at + 2] = b"\0\1"
    return bytes(out)


def trimmed(data: bytes) -> bytes:
    """Edit lists begin half a second into both tracks, as phones trim."""
    out = bytearray(data)
    rates = []
    at = -1
    while (at := data.find(b"mdhd", at + 1)) >= 0:
        rates.append(struct.unpack(">I", data[at + 16 : at + 20])[0])
    at = -1
    for rate in rates:
        at = data.index(b"elst", at + 1)
        count = struct.unpack(">I", data[at + 8 : at + 12])[0]
        where = at + 12 + 12 * (count - 1) + 4
        begin = struct.unpack(">i", data[where : where + 4])[0]
        out[where : where + 4] = struct.pack(">i", begin + rate // 2)
    return bytes(out)


def endless(data: bytes) -> bytes:
    """All headers of an mp4 state a length of many years."""
    out = bytearray(data)
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = -1
        while (at := data.find(name, at + 1)) >= 0:
            out[at + offset : at + offset + 4] = b"\x7f\xff\xff\xff"
    at = -1
    while (at := data.find(b"elst", at + 1)) >= 0:
        out[at + 12 : at + 16] = b"\x7f\xff\xff\xff"
    return bytes(out)


def damaged(data: bytes) -> bytes:
    """Flips bits in the last half of the media data."""
    rng = np.random.default_rng(0)
    out = bytearray(data)
    begin, end = data.index(b"mdat") + 8, data.index(b"moov")
    for at in rng.integers((begin + end) // 2, end, 40):
        out[at] ^= int(rng.integers(1, 256))
    return bytes(out)


def silenced(data: bytes) -> bytes:
    """Overwrites the audio of a Matroska file, track 2, with noise."""
    out, at = bytearray(data), data.index(b"\x1f\x43\xb6\x75")  # the first cluster
    rng = np.random.default_rng(0)
    while (at := data.find(b"\xa3", at + 1)) >= 0:  # a simple block: size, track, time, flags
        width = 1 if data[at + 1] & 0x80 else 2
        size = int.from_bytes(data[at + 1 : at + 1 + width]) & (0x7F if width == 1 else 0x3FFF)
        begin = at + 1 + width
        if data[begin] == 0x82 and 4 < size < 2000:
            out[begin + 4 : begin + size] = rng.bytes(size - 4)
    return bytes(out)


def twice(data: bytes) -> bytes:
    """Two recordings in one file; the times start again in the middle."""
    return data + data
