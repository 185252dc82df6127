"""Folders here and in stores: one behaviour, and shards that do not tell where they were made."""

import pathlib
import pickle

import fsspec
from fsspec.implementations import memory
import pytest

from data_prep import prepare, shard_jobs, shard_plan, storage
from tests.data_prep import shard_sets


@pytest.fixture(params=["path", "file", "memory"])
def place(request, tmp_path) -> storage.Storage:
    where = {"path": "", "file": "file://", "memory": "memory://"}[request.param]
    place = storage.Storage(f"{where}{tmp_path}/set")
    assert not place.is_folder() and place.sizes() == {}
    place.make()
    return place


def test_files_come_back(place):
    place.write(".plan.jsonl", b"one\ntwo\n")
    place.write("b.bin", b"")
    place.write("b.bin", bytes(range(10)))
    assert place.is_folder()
    assert place.sizes() == {".plan.jsonl": 8, "b.bin": 10}
    assert place.read("b.bin") == bytes(range(10))
    assert place.read("b.bin", 3, 4) == bytes([3, 4, 5, 6])
    assert list(place.read_many(["b.bin", ".plan.jsonl"])) == [bytes(range(10)), b"one\ntwo\n"]
    assert list(place.read_many([])) == []
    place.remove("b.bin")
    place.remove("b.bin")
    assert place.sizes() == {".plan.jsonl": 8}
    with pytest.raises(FileNotFoundError):
        place.read("b.bin")
    assert pickle.loads(pickle.dumps(place)).read(".plan.jsonl") == b"one\ntwo\n"


def test_published_and_fetched(place):
    with place.staging() as staging:
        (staging / "a.bin").write_bytes(b"abc")
        place.publish(staging, "a.bin")
    assert place.sizes() == {"a.bin": 3}
    with place.fetched("a.bin", "not_there.json") as folder:
        assert (folder / "a.bin").read_bytes() == b"abc"
        assert not (folder / "not_there.json").exists()


def test_find_gives_relative_names(place, tmp_path):
    place.write("a b#.mp4", b"1")
    inner = storage.Storage(f"{place}/x/é")
    inner.make()
    inner.write("c.mkv", b"2")
    assert sorted(place.find()) == ["a b#.mp4", "x/é/c.mkv"]


def test_unknown_stores_are_named():
    with pytest.raises(ValueError, match="nostore://bucket/set: .*nostore"):
        storage.Storage("nostore://bucket/set")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """Videos and their shards."""
    folder = tmp_path_factory.mktemp("places")
    videos = shard_sets.write_videos(folder / "videos", 3)
    prepare.prepare(
        videos, folder / "s", shard_sets.FORMAT, runner=shard_sets.run_in_process, num_shards=2
    )
    return videos, folder / "s"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_shards_made_in_a_store_are_the_same(made, tmp_path, scheme):
    videos, shards = made
    store = storage.Storage(f"{scheme}://{tmp_path}/store/videos")
    for path in videos.rglob("*.mp4"):
        there = storage.Storage(f"{store}/{path.parent.name}")
        there.make()
        there.write(path.name, path.read_bytes())
    out = storage.Storage(f"{scheme}://{tmp_path}/store/shards")
    options = {"num_shards": 2}
    if scheme == "memory":  # no other process sees this one
        options["runner"] = shard_sets.run_in_process
    prepare.prepare(str(store), str(out), shard_sets.FORMAT, **options)
    copy = tmp_path / "copy"
    copy.mkdir()
    assert not [name for name in out.sizes() if name.endswith(".part")]
    for name in out.sizes():
        (copy / name).write_bytes(out.read(name))
    assert shard_sets.digests(copy) == shard_sets.digests(shards)
    for name in ("train", "test"):
        ours, theirs = (shard_sets.read_records(one, name) for one in (copy, shards))
        assert ours == theirs
    (failed,) = shard_sets.read_failures(copy)
    assert failed["detail"].startswith(f"{store}/train/broken.mp4: not a readable media file")
    before = out.sizes()
    again = prepare.prepare(str(store), str(out), shard_sets.FORMAT, **options)
    assert out.sizes() == before and again.num_failures == 1


class Remembering(memory.MemoryFileSystem):
    """A store whose reader looks into its last listing first, as those of gs:// and s3:// do."""

    protocol = "remembering"
    cachable = False  # every place has its own, as in another process

    def ls(self, path, detail=True, **options):
        self.dircache[path] = found = super().ls(path, detail=True, **options)
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path, **options):
        folder, _, name = path.rpartition("/")
        if folder in self.dircache:
            known = {one["name"].rpartition("/")[2] for one in self.dircache[folder]}
            if name not in known:
                raise FileNotFoundError(path)
        return super().cat_file(path, **options)


def test_files_that_others_wrote_meanwhile_are_seen(tmp_path):
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    ours, theirs = (storage.Storage(f"remembering://{tmp_path}/set") for _ in range(2))
    ours.write("a", b"1")
    assert ours.sizes() == {"a": 1}
    theirs.write("b", b"22")
    assert ours.read("b") == b"22"
    assert ours.sizes() == {"a": 1, "b": 2}


class Moody(memory.MemoryFileSystem):
    """A store that does not give files."""

    protocol = "moody"

    def get_file(self, *unused, **also_unused):
        raise OSError("503: come back later")


def test_store_that_fails_stops_the_work_and_loses_no_clip(made, tmp_path):
    fsspec.register_implementation("moody", Moody, clobber=True)
    videos, shards = made
    source, out = storage.Storage(f"moody://{videos}"), storage.Storage(shards)
    plan = shard_plan.read_plan(out, shard_plan._read_json(out, shard_plan.PLAN_NAME)["settings"])
    with pytest.raises(storage.StoreError, match="come back later"):
        shard_jobs.write_shard(
            plan.jobs[0],
            {},
            lambda task: None,
            videos=source,
            shards=out,
            format=shard_sets.FORMAT,
        )
    assert not list(shards.glob("*.part"))
