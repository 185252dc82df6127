"""Writes TensorFlow checkpoints, as `tensor_bundle.cc` lays them out, without TensorFlow."""

import numpy as np

KINDS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
MAGIC = bytes.fromhex("57fb808b247547db")


def varint(value):
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def block(entries):
    """Entries with shared beginnings, and one place to start from."""
    data, before = b"", b""
    for name, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, name)) if a != b), min(len(before), len(name))
        )
        own = name[shared:]
        data += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        before = name
    return data + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def write(folder, arrays, *, per_block=3, compressed=False, more=()):
    """Writes variables.index and one shard; `more` are further raw entries of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    data, entries = b"", [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name, array in sorted(arrays.items()):
        dims = b"".join(field(2, field(1, n)) for n in array.shape)
        raw = array.tobytes()
        entry = field(1, KINDS[str(array.dtype)]) + field(2, dims) + field(4, len(data))
        checksum = varint(6 << 3 | 5) + bytes(4)
        entries.append((name.encode(), entry + field(5, len(raw)) + checksum))
        data += raw
    entries = sorted([*entries, *more])
    table, handles = b"", []
    for i in range(0, len(entries), per_block):
        made = block(entries[i : i + per_block])
        last = entries[min(i + per_block, len(entries)) - 1][0]
        handles.append((last, varint(len(table)) + varint(len(made))))
        table += made + bytes([compressed]) + bytes(4)
    ends = []
    for part in ([], handles):
        made = block(part)
        ends.append(varint(len(table)) + varint(len(made)))
        table += made + bytes(5)
    table += b"".join(ends).ljust(40, b"\0") + MAGIC
    (folder / "variables.index").write_bytes(table)
    (folder / "variables.data-00000-of-00001").write_bytes(data)
    return folder


def some(seed=0):
    """Arrays of several types and shapes; names share beginnings."""
    rng = np.random.default_rng(seed)
    return {
        "a/layer-1/kernel": rng.standard_normal((3, 3, 2, 5)).astype(np.float32),
        "a/layer-1/bias": rng.standard_normal(300).astype(np.float32),
        "a/layer-10/kernel": rng.standard_normal((2, 1)),
        "b/half": rng.standard_normal(4).astype(np.float16),
        "count": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
