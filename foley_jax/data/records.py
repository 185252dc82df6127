"""One clip per record, shards of records, and the index of a set.

A clip is stored as msgpack: JPEG frames at the set's rate and size, 16-bit PCM audio, and
optionally CAVP features, arrays of another system and true events. Mels are computed where they
are used, so one set serves every hop. Axis letters: T frames, H W C image, L audio samples, D
feature width.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
from typing import Self

from array_record.python import array_record_module
import msgpack
import numpy as np
import simplejpeg

SCHEMA_VERSION = 1
JPEG_QUALITY = 92
INDEX_NAME = "index.json"
VIDEO_FIELDS = ("fps", "height", "width", "fit", "antialias")  # of the index, together in its file
PREPARE_COMMAND = "python -m data_prep.prepare VIDEOS SHARDS"


@dataclasses.dataclass
class Clip:
    """One clip of a video with its audio.

    Attributes:
      id: unique in the set, e.g. "test/plain_00003#0".
      split: "train", "test" or "val".
      labels: names of what is heard, may be empty.
      source: path of the video, relative to the folder it was prepared from.
      start_s, end_s: the clip's place in the source.
      fps: frame i shows what is seen at start_s + i / fps.
      frames: one JPEG per frame.
      audio: [L] int16 mono PCM; sample 0 sounds at start_s.
      sample_rate_hz: rate of the audio.
      cavp_TD: [T, D] float16 CAVP features, one unit feature per frame, or None.
      events: true events with `time_s` counted from the clip's start, or None if not known.
      features: arrays of another system by their names, or None.
    """

    id: str
    split: str
    labels: list[str]
    source: str
    start_s: float
    end_s: float
    fps: float
    frames: list[bytes]
    audio: np.ndarray
    sample_rate_hz: int
    cavp_TD: np.ndarray | None = None
    events: list[dict] | None = None
    features: dict[str, np.ndarray] | None = None

    def frames_THWC(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Decodes frames [start, stop) to [T, H, W, 3] uint8 RGB."""
        chosen = np.arange(len(self.frames))[start:stop]
        if not len(chosen):
            raise ValueError(
                f"clip {self.id}: frames {start}:{stop} are none of its {len(self.frames)}"
            )
        return self.frames_at(chosen)

    def frames_at(self, index: np.ndarray) -> np.ndarray:
        """Decodes frames at any places, each one once: uint8 RGB [*index.shape, H, W, 3].

        Args:
          index: integers [...], at least one; a frame may be named several times.
        Raises:
          ValueError: an image is damaged, or not of the size of the others.
        """
        order = [int(i) for i in np.ravel(index)]
        size = simplejpeg.decode_jpeg_header(self.frames[order[0]])[:2]
        out = np.empty((len(order), *size, 3), np.uint8)
        done: dict[int, int] = {}
        for k, i in enumerate(order):
            if i in done:
                out[k] = out[done[i]]
                continue
            found = simplejpeg.decode_jpeg_header(self.frames[i])[:2]
            if found != size:
                raise ValueError(
                    f"clip {self.id}: frame {i} is {found[0]}x{found[1]}, others {size[0]}x"
                    f"{size[1]}; prepare the video again"
                )
            # straight into its place: an image's copy costs a quarter of its decoding
            simplejpeg.decode_jpeg(self.frames[i], buffer=out[k])
            done[i] = k
        return out.reshape(*np.shape(index), *size, 3)


def encode_frames(frames_THWC: np.ndarray) -> list[bytes]:
    """[T, H, W, 3] uint8 RGB -> one JPEG per frame, full colour resolution."""
    return [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=JPEG_QUALITY, colorsubsampling="444"
        )
        for frame in frames_THWC
    ]


def encode(clip: Clip) -> bytes:
    """Clip -> msgpack bytes.

    Raises:
      ValueError: the audio is not [L] int16, or the features not [T, D] with T = frames.
    """
    if clip.audio.dtype != np.int16 or clip.audio.ndim != 1:
        raise ValueError(
            f"clip {clip.id}: audio is {clip.audio.dtype}{list(clip.audio.shape)}, "
            "wanted int16 [samples]"
        )
    cavp = None
    if clip.cavp_TD is not None:
        if clip.cavp_TD.ndim != 2:
            raise ValueError(
                f"clip {clip.id}: features are {clip.cavp_TD.shape}, wanted [frames, width]"
            )
        features = np.ascontiguousarray(clip.cavp_TD, "<f2")
        cavp = {"shape": list(features.shape), "data": features.tobytes()}
    bare = dataclasses.replace(clip, audio=None, cavp_TD=None, features=None)
    fields = dataclasses.asdict(bare)
    fields["audio"] = np.ascontiguousarray(clip.audio, "<i2").tobytes()
    fields["cavp_TD"] = cavp
    del fields["features"]  # records without any are those of earlier versions
    if clip.features is not None:
        fields["features"] = {name: _packed(array) for name, array in clip.features.items()}
    return msgpack.packb({"schema_version": SCHEMA_VERSION, **fields})


def _packed(array: np.ndarray) -> dict:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": little.tobytes()}


def decode(data: bytes) -> Clip:
    """msgpack bytes -> Clip.

    Raises:
      ValueError: not a clip, or written with another schema version.
    """
    try:
        fields = msgpack.unpackb(data)
        version = fields.pop("schema_version")
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(f"record of {len(data)} bytes is not a clip ({error!r})") from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"clip has schema version {version}, this code reads {SCHEMA_VERSION}; "
            f"prepare the set again: `{PREPARE_COMMAND}`"
        )
    cavp = fields["cavp_TD"]
    if cavp is not None:
        fields["cavp_TD"] = np.frombuffer(cavp["data"], "<f2").reshape(cavp["shape"])
    fields["audio"] = np.frombuffer(fields["audio"], "<i2")
    if "features" in fields:
        fields["features"] = {
            name: np.frombuffer(one["data"], one["dtype"]).reshape(one["shape"])
            for name, one in fields["features"].items()
        }
    return Clip(**fields)


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One finished shard file."""

    file: str
    split: str
    num_records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Index:
    """Index of a set: written once, when all its shards are.

    Attributes:
      fps, height, width: of the frames.
      sample_rate_hz: of the audio.
      shards: in name order.
      fit, antialias: how the frames were brought to their size, see `media.fitting`; sets of
        earlier versions, which do not say, are stretched.
      num_failures: clips that could not be made; failures.jsonl says why.
      cavp_dim: width of the CAVP features, 0 if there are none.
    """

    fps: float
    height: int
    width: int
    sample_rate_hz: int
    shards: tuple[ShardInfo, ...]
    num_failures: int = 0
    cavp_dim: int = 0
    fit: str = "stretch"
    antialias: bool = True

    def num_records(self, split: str) -> int:
        """Clips in a split."""
        return sum(shard.num_records for shard in self.shards if shard.split == split)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold at least one clip."""
        return tuple(sorted({shard.split for shard in self.shards if shard.num_records}))


class ShardWriter:
    """Writes one shard; the file appears under its name only when `close` succeeds.

    As a context manager it closes on success and leaves nothing behind on an error.

    Args:
      folder: where the set lies; made if missing.
      split: of all its clips.
      number: of the shard in its split.
    """

    def __init__(self, folder: str | pathlib.Path, split: str, number: int):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._split = split
        self._name = shard_name(split, number)
        # a killed run may leave a process behind for a moment, and a cluster may do work twice: no
        # two write the same file
        self._part = self._folder / f".{self._name}.{secrets.token_hex(6)}.part"
        self._writer = array_record_module.ArrayRecordWriter(str(self._part), "group_size:1")
        self._count = 0
        self.info: ShardInfo | None = None

    def add(self, clip: Clip) -> None:
        """Appends a clip."""
        if clip.split != self._split:
            raise ValueError(f"clip {clip.id} is of split {clip.split!r}, shard of {self._split!r}")
        self._writer.write(encode(clip))
        self._count += 1

    def close(self) -> ShardInfo:
        """Finishes the file; a shard without clips leaves none."""
        self._writer.close()
        path = self._folder / self._name
        size, digest = self._part.stat().st_size, sha256(self._part)
        if self._count:
            os.replace(self._part, path)
        else:
            self._part.unlink()
            path.unlink(missing_ok=True)
            size, digest = 0, ""
        self.info = ShardInfo(self._name, self._split, self._count, size, digest)
        return self.info

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *unused: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self._part.unlink(missing_ok=True)


def shard_name(split: str, number: int) -> str:
    """File name of a shard."""
    return f"{split}-{number:05d}.arrayrecord"


def sha256(path: pathlib.Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_index(folder: str | pathlib.Path, index: Index) -> None:
    """Writes index.json; it appears only when complete."""
    path = pathlib.Path(folder) / INDEX_NAME
    video = {name: getattr(index, name) for name in VIDEO_FIELDS}
    content = {
        "schema_version": SCHEMA_VERSION,
        "video": video,
        "sample_rate_hz": index.sample_rate_hz,
        "cavp_dim": index.cavp_dim,
        "splits": {split: index.num_records(split) for split in index.splits},
        "num_failures": index.num_failures,
        "shards": [dataclasses.asdict(shard) for shard in index.shards],
    }
    # several processes that finish a set together write the same
    part = path.with_name(f".{INDEX_NAME}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def read_index(folder: str | pathlib.Path) -> Index:
    """Reads index.json.

    Raises:
      ValueError: no such folder or index (the message says how to make one), or another schema
        version.
    """
    folder = pathlib.Path(folder)
    path = folder / INDEX_NAME
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"no {INDEX_NAME} in it (not finished?)"
        raise ValueError(
            f"data folder {folder}: {what}; prepare your videos with `{PREPARE_COMMAND}`, or use "
            "the embedded set: `python -m data_prep.scenes VIDEOS`, prepare it with --size=64, and "
            "append `:demo` to the config's name"
        )
    content = json.loads(path.read_text())
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; "
            f"prepare the set again: `{PREPARE_COMMAND}`"
        )
    return Index(
        **content["video"],
        sample_rate_hz=content["sample_rate_hz"],
        shards=tuple(ShardInfo(**shard) for shard in content["shards"]),
        num_failures=content["num_failures"],
        cavp_dim=content["cavp_dim"],
    )


def shards_of(folder: str | pathlib.Path, split: str) -> list[ShardInfo]:
    """A split's shards, in order.

    Raises:
      ValueError: no set there, or no such split in it.
    """
    index = read_index(folder)
    shards = [shard for shard in index.shards if shard.split == split and shard.num_records]
    if not shards:
        raise ValueError(
            f"{folder} holds no clips of split {split!r}; it has: "
            f"{', '.join(index.splits) or 'none'}"
        )
    return shards


def shard_fault(folder: str | pathlib.Path, shard: ShardInfo) -> str | None:
    """Returns what the file's size tells is wrong with a shard; None if nothing."""
    path = pathlib.Path(folder) / shard.file
    size = path.stat().st_size if path.is_file() else None
    if size == shard.bytes:
        return None
    found = "is missing" if size is None else f"has {size} bytes"
    return f"{found}, the index says {shard.bytes} bytes"


def shard_paths(folder: str | pathlib.Path, split: str) -> list[pathlib.Path]:
    """Paths of a split's shards, in order.

    Raises:
      ValueError: no set there, no such split in it, or a shard that is missing or cut short.
    """
    paths = []
    for shard in shards_of(folder, split):
        path = pathlib.Path(folder) / shard.file
        fault = shard_fault(folder, shard)
        if fault is not None:
            raise ValueError(
                f"{path} {fault}; copy it again, or delete it and run `{PREPARE_COMMAND}` again"
            )
        paths.append(path)
    return paths
