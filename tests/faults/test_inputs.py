"""The one search of all commands: which files it takes, and that it says what it passed over."""

import json
import os
import pathlib
import shutil

import pytest

from data_prep import manifest, prepare, spans, storage
from data_prep.sources import folder as folder_source
from foley_jax.evaluation import embedded, run_card
from foley_jax.evaluation import sounding as sounding_protocol
from foley_jax.evaluation.memorisation import nearest_clips
from foley_jax.inference import jobs, sounding_video
from foley_jax.interop import weight_folders
from foley_jax.media import files
from tests.data_prep import shard_sets


def _touch(folder: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def _names(folder: pathlib.Path, found) -> list[str]:
    return [pathlib.Path(path).relative_to(folder).as_posix() for path in found]


@pytest.fixture
def videos(tmp_path):
    """Real files, Mac's shadows, hidden folders, other kinds, links in and out, loops."""
    _touch(tmp_path / "pool", "far.mp4", "deep/er.MTS")
    folder = _touch(
        tmp_path / "videos",
        *("b.mp4", "a.MOV", "sub/c.wmv", "notes.txt", "sub/cover.jpg", "sub/README"),
        *("._b.mp4", ".DS_Store", ".trash/old.mp4", "sub/.d.mp4"),
    )
    (folder / "link").symlink_to(tmp_path / "pool")
    (folder / "sub/again").symlink_to(folder)
    return folder


def every_command(folder: pathlib.Path, out: pathlib.Path) -> dict[str, list[str]]:
    """Returns what each command finds in a folder of videos."""
    return {
        "sample, generate": _names(folder, jobs.find_inputs([folder], out)),
        "sample, MM-Diffusion": _names(folder, sounding_video.work([folder], 1, out)[1]),
        "prepare": spans.find_videos(folder),
        "evaluation": sorted(_names(folder, run_card.find_audio(folder).values())),
        "memorisation": sorted(
            _names(folder, nearest_clips.Collection.of("x", folder).media["image"].values())
        ),
    }


def test_every_command_finds_the_same_files(videos, tmp_path):
    found = every_command(videos, tmp_path / "out")
    assert found == dict.fromkeys(
        found, ["a.MOV", "b.mp4", "link/deep/er.MTS", "link/far.mp4", "sub/c.wmv"]
    )


@pytest.mark.parametrize("suffix", [*files.VIDEO_SUFFIXES, ".Mp4", ".WMV", ".3GP"])
def test_one_list_of_suffixes_for_all_commands(tmp_path, suffix):
    _touch(tmp_path / "v", f"x{suffix}")
    found = every_command(tmp_path / "v", tmp_path / "out")
    assert found == dict.fromkeys(found, [f"x{suffix}"])


@pytest.mark.parametrize("kind", [".mts", ".ts", ".3gp", ".wmv", ".mpg", ".flv", ".ogv"])
def test_the_list_has_the_kinds_that_cameras_and_old_players_write(kind):
    assert kind in files.VIDEO_SUFFIXES


def test_what_was_passed_over_is_said_once_in_one_line(videos, tmp_path, capsys):
    jobs.find_inputs([videos], tmp_path / "out")
    line = (
        "passed over: 4 hidden, 3 of other kinds (.txt, without suffix, .jpg), "
        f"1 link loop ({videos}/sub/again)\n"
    )
    assert capsys.readouterr().err == line
    spans.find_videos(videos)
    assert capsys.readouterr().err == line
    sounding_video.work([videos], 1)
    assert capsys.readouterr().err == line


def test_nothing_passed_over_is_nothing_said(tmp_path, capsys):
    jobs.find_inputs([_touch(tmp_path / "v", "x.mp4")], tmp_path / "out")
    assert capsys.readouterr().err == ""


def test_a_file_is_found_once_and_under_its_own_name(tmp_path):
    folder = _touch(tmp_path / "v", "z/real.mp4", "only.mp4")
    (folder / "a.mp4").symlink_to(folder / "z/real.mp4")
    (folder / "b").symlink_to(folder / "z")
    (folder / "c").symlink_to(folder / "b")
    found = files.find([folder], files.VIDEO_SUFFIXES)
    assert _names(folder, found) == ["only.mp4", "z/real.mp4"]
    assert found.doubles == [f"{folder}/b", f"{folder}/c", f"{folder}/a.mp4"]
    assert "3 found already" in found.remark()


def test_files_and_folders_given_twice_count_once(tmp_path):
    folder = _touch(tmp_path / "v", "a.mp4", "b.mp4", "sub/c.mp4")
    given = [folder / "b.mp4", folder, folder / "sub", folder, folder / "b.mp4"]
    found = files.find(given, files.VIDEO_SUFFIXES)
    assert _names(folder, found) == ["b.mp4", "a.mp4", "sub/c.mp4"]


def test_links_that_are_given_by_name_are_all_inputs(tmp_path):
    folder = _touch(tmp_path / "v", "a.mp4")
    for name in ("one.mp4", "two.mp4"):
        (folder / name).symlink_to("a.mp4")
    found = files.find([folder / "one.mp4", folder / "two.mp4"], files.VIDEO_SUFFIXES)
    assert _names(folder, found) == ["one.mp4", "two.mp4"]


def test_many_links_between_folders_end(tmp_path):
    """Each of n folders links to all others: without a guard there are n! ways."""
    for i in range(12):
        _touch(tmp_path / "v", f"{i:02d}/{i}.mp4")
    for i in range(12):
        for j in range(12):
            (tmp_path / f"v/{i:02d}/to{j:02d}").symlink_to(tmp_path / f"v/{j:02d}")
    found = files.find([tmp_path / "v"], files.VIDEO_SUFFIXES)
    assert _names(tmp_path / "v", found) == [f"{i:02d}/{i}.mp4" for i in range(12)]
    assert (len(found.loops), len(found.doubles)) == (12, 132)


def test_a_link_that_is_a_loop_by_itself_and_broken_links_are_named(tmp_path):
    folder = _touch(tmp_path / "v", "a.mp4")
    (folder / "self").symlink_to("self")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    found = files.find([folder], files.VIDEO_SUFFIXES)
    # what is named like a video becomes one failed input
    assert _names(folder, found) == ["a.mp4", "gone.mp4"]
    assert found.remark() == f"passed over: 2 broken links ({folder}/gone, {folder}/self)"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder = _touch(tmp_path / "v", "a.mp4", "secret/b.mp4")
    scan = os.scandir

    def scandir(path):
        if os.path.basename(path) == "secret":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = files.find([folder], files.VIDEO_SUFFIXES)
    assert _names(folder, found) == ["a.mp4"]
    assert (
        found.remark() == f"passed over: 1 unreadable folder ({folder}/secret: Permission denied)"
    )


def test_folders_named_like_videos_are_searched(tmp_path):
    folder = _touch(tmp_path / "v", "dvd.vob/a.mp4")
    assert _names(folder, jobs.find_inputs([folder], None)) == ["dvd.vob/a.mp4"]


def test_a_hidden_folder_that_is_given_is_searched(tmp_path):
    folder = _touch(tmp_path / ".v", "a.mp4", ".b.mp4")
    assert _names(folder, jobs.find_inputs([folder], None)) == ["a.mp4"]
    assert spans.find_videos(folder) == ["a.mp4"]
    given = jobs.find_inputs([folder / ".b.mp4"], None)
    assert _names(folder, given) == [".b.mp4"]


def test_names_in_a_store_are_sifted_alike(tmp_path):
    store = storage.Storage(f"memory://{tmp_path}/v")
    for name in ("a.MP4", "sub/b.ts", "._a.mp4", ".t/x.mp4", "c.txt", "out/made.mp4"):
        there = storage.Storage(f"{store}/{name}".rpartition("/")[0])
        there.make()
        there.write(name.rpartition("/")[2], b"1")
    found = store.find(files.VIDEO_SUFFIXES, leave_out=storage.Storage(f"{store}/out"))
    assert found.paths == ["a.MP4", "sub/b.ts"]
    assert found.remark() == (
        "passed over: 2 hidden, 1 of another kind (.txt), 1 in the output folder"
    )


def test_a_source_makes_a_manifest_of_what_every_command_finds(videos, capsys, tmp_path):
    folder_source.main([str(videos), f"--out={tmp_path}/m.jsonl"])
    assert "passed over: 4 hidden" in capsys.readouterr().err
    listed = [entry.file for entry in manifest.read(tmp_path / "m.jsonl")]
    assert sorted(listed) == spans.find_videos(videos)


# ---- the output folder ------------------------------------------------------------------------


def test_the_output_folder_is_never_searched(tmp_path):
    folder = _touch(tmp_path / "v", "a.mov", "out/a.mp4", "out/deep/a.mp4", "results/x.mp4")
    found = every_command(folder, folder / "out")
    ways = {"sample, generate", "sample, MM-Diffusion"}
    assert {way: found[way] for way in ways} == dict.fromkeys(ways, ["a.mov", "results/x.mp4"])
    remark = files.find([folder], files.VIDEO_SUFFIXES, leave_out=[folder / "out"]).remark()
    assert remark == "passed over: 2 in the output folder"
    there = spans.find_videos(folder, leave_out=storage.Storage(folder / "out"))
    assert there == ["a.mov", "results/x.mp4"]


@pytest.mark.parametrize("how", ["link to it", "link inside", "written otherwise"])
def test_the_output_folder_is_known_by_every_name(tmp_path, monkeypatch, how):
    folder = _touch(tmp_path / "v", "a.mov", "out/deep/b.mp4")
    monkeypatch.chdir(folder)
    out = {"written otherwise": "../v/./out", "link inside": "out"}.get(how, "alias")
    (folder / "alias").symlink_to("out" if how == "link to it" else "out/deep")
    assert _names(folder, jobs.find_inputs([folder], out)) == ["a.mov"]


@pytest.mark.parametrize("out", ["v", "v/../v/", "alias"])
def test_an_output_folder_that_is_the_input_is_refused(tmp_path, monkeypatch, out):
    _touch(tmp_path / "v", "a.mov")
    (tmp_path / "alias").symlink_to("v")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"v is to be searched.*\({out}\).*v/out") as error:
        jobs.find_inputs(["v"], out)
    assert "\n" not in str(error.value)
    # a file in there is a plain input, and so is a folder inside the output folder
    assert jobs.find_inputs(["v/a.mov"], out) == [pathlib.Path("v/a.mov")]
    assert jobs.find_inputs(["v"], ".") == [pathlib.Path("v/a.mov")]


def test_prepare_follows_links_and_leaves_its_shards_out(tmp_path, capsys):
    videos = shard_sets.write_videos(tmp_path / "far", 1).rename(tmp_path / "v")
    (tmp_path / "far").mkdir()
    (videos / "train/v0.mp4").rename(tmp_path / "far/v0.mp4")
    (videos / "train/link").symlink_to("../../far")
    _touch(videos, "shards/mine.mp4", "train/._v0.mp4")
    words = [str(videos), str(videos / "shards"), *shard_sets.FLAGS, "--workers=1"]
    for _ in range(2):  # the second run finds what the first has planned
        prepare.main(words)
        seen = capsys.readouterr().err
        assert seen.count("passed over: 1 hidden, 1 in the output folder\n") == 1
        assert "came after" not in seen
        assert shard_sets.read_ids(videos / "shards", "train") == ["train/link/v0#0"]


def test_shards_written_among_the_videos_hide_none_of_them(tmp_path):
    """They are no media: nothing of them can become an input."""
    folder = _touch(tmp_path / "v", "a.mov", "sub/b.mp4")
    there = spans.find_videos(folder, leave_out=storage.Storage(folder))
    assert there == ["a.mov", "sub/b.mp4"]


# ---- evaluation -------------------------------------------------------------------------------


def test_shadows_and_hidden_truth_are_no_items(tmp_path):
    folder = _touch(tmp_path / "v", "a.wav", "._a.wav", "._c.wav", "cat/b.wav")
    assert list(run_card.find_audio(folder)) == ["a", "cat/b"]
    (folder / "a.json").write_text(json.dumps({"level": "plain", "events": []}))
    (folder / "._a.json").write_bytes(b"\0\5\26\7")
    assert [scene.name for scene in embedded.read_truth(folder)] == ["a"]


def test_shadows_of_weights_are_no_weights(tmp_path):
    folder = _touch(tmp_path / "w", "unet/._model.safetensors", "unet/model.safetensors")
    found = weight_folders.weight_files(folder, folders=("unet",))
    assert [path.name for _, path in found] == ["model.safetensors"]


def test_many_links_to_one_silent_file_are_as_many_items(tmp_path):
    folder = _touch(tmp_path / "v", "silence.flac")
    for name in ("a.wav", "b.wav"):
        (folder / name).symlink_to("silence.flac")
    assert list(run_card.find_audio(folder)) == ["a", "b", "silence"]


def test_clips_of_the_sounding_protocol_are_found_in_class_folders(tmp_path):
    folder = _touch(tmp_path / "v", "cat/0.mp4", "cat/0.wav", "dog/0.MP4", "dog/0.WAV", "._x.mp4")
    found = sounding_protocol.find_clips(folder)
    assert {name: _names(folder, pair) for name, pair in found.items()} == {
        "cat/0": ["cat/0.mp4", "cat/0.wav"],
        "dog/0": ["dog/0.MP4", "dog/0.WAV"],
    }
    shutil.rmtree(folder / "cat")
    (folder / "dog/0.WAV").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files missing .*dog/0.wav"):
        sounding_protocol.find_clips(folder)
