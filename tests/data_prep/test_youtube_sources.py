"""VGGSound and AudioSet: rows of the official files find their videos.

The rows are made up; headings and form are those of the official files.
"""

import json
import pathlib

import pytest

from data_prep import clip_making, manifest, prepare
from data_prep.sources import audioset, on_disk, vggsound, youtube
from foley_jax.data import pipeline
from tests.media import media_files

CSV = """\
---aaaaaaaa,1,people marching,test
-bbbbbbbbb_,30,"bird chirping, tweeting",train
cccccccccc-,120,playing harp,train
dddddddddd0,0,dog barking,train
"""


@pytest.fixture
def vgg(tmp_path) -> pathlib.Path:
    (tmp_path / "vggsound.csv").write_text(CSV)
    (tmp_path / "videos").mkdir()
    return tmp_path


def touch(folder: pathlib.Path, *names: str):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def run(module, *args) -> tuple[list[manifest.Entry], list[dict]]:
    out = pathlib.Path(args[-1]).parent / "m.jsonl"
    module.main([*map(str, args), f"--out={out}"])
    lines = out.with_name("m.missing.jsonl").read_text().splitlines()
    return manifest.read(out), [json.loads(line) for line in lines]


def test_vggsound_finds_clips_and_names_the_missing(vgg, capsys):
    names = ("---aaaaaaaa_000001.mp4", "part 1/-bbbbbbbbb__000030.WEBM", "stranger.mp4")
    touch(vgg / "videos", *names)
    entries, missing = run(vggsound, vgg / "vggsound.csv", vgg / "videos")
    assert entries == [
        manifest.Entry("---aaaaaaaa_000001", names[0], "test", 0.0, 10.0, ["people marching"]),
        manifest.Entry(
            "-bbbbbbbbb__000030", names[1], "train", 0.0, 10.0, ["bird chirping, tweeting"]
        ),
    ]
    assert [(one["id"], one["wanted"], one["reason"]) for one in missing] == [
        ("cccccccccc-_000120", "cccccccccc-_000120.mp4", "no_file"),
        ("dddddddddd0_000000", "dddddddddd0_000000.mp4", "no_file"),
    ]
    said = capsys.readouterr().out
    assert "1 test, 1 train clips" in said and "2 missing" in said
    assert "1 videos belong to no clip, for example stranger.mp4" in said


@pytest.mark.parametrize(
    "stem",
    [
        *("-bbbbbbbbb__30", "-bbbbbbbbb__30_40", "-bbbbbbbbb__30000_40000"),
        *("-bbbbbbbbb__30.000_40.000", "-bbbbbbbbb__30.000", "-bbbbbbbbb__030.000"),
        *("Y-bbbbbbbbb__000030", "video_-bbbbbbbbb__30_40", "-bbbbbbbbb_-30-40"),
    ],
)
def test_usual_names_of_downloaders_are_known(vgg, stem):
    touch(vgg / "videos", f"{stem}.mp4")
    entries, missing = run(vggsound, vgg / "vggsound.csv", vgg / "videos")
    assert [(e.id, e.file) for e in entries] == [("-bbbbbbbbb__000030", f"{stem}.mp4")]
    assert len(missing) == 3


def test_file_named_by_the_id_alone_is_the_clip_or_the_whole_video(vgg):
    videos = vgg / "videos"
    media_files.write(videos / "-bbbbbbbbb_.mp4", seconds=2, times_s=())
    media_files.write(videos / "---aaaaaaaa.mp4", seconds=12, times_s=())
    media_files.write(videos / "cccccccccc-.mp4", seconds=12, times_s=())
    touch(videos, "dddddddddd0.mp4")
    entries, missing = run(vggsound, vgg / "vggsound.csv", videos)
    times = {e.file: (e.start_s, e.end_s) for e in entries}
    assert times == {"-bbbbbbbbb_.mp4": (0, 10), "---aaaaaaaa.mp4": (1, 11)}
    reasons = {one["id"]: one["reason"] for one in missing}
    assert reasons == {"cccccccccc-_000120": "too_short", "dddddddddd0_000000": "unreadable"}
    entries, missing = run(vggsound, "--whole=yes", vgg / "vggsound.csv", videos)
    assert [e.start_s for e in entries] == [1, 30, 120, 0] and not missing
    entries, missing = run(vggsound, "--whole=no", vgg / "vggsound.csv", videos)
    assert [e.start_s for e in entries] == [0, 0, 0, 0] and not missing


def test_wrong_rows_are_named_with_their_line(vgg):
    touch(vgg / "videos", "---aaaaaaaa_000001.mp4")
    heading = "YouTube ID,start seconds,label,split\n"
    (vgg / "vggsound.csv").write_text(heading + CSV)
    entries, _ = run(vggsound, vgg / "vggsound.csv", vgg / "videos")
    assert len(entries) == 1
    for row, why in (
        ("short,1,x,train", "'short' is no YouTube id"),
        ("eeeeeeeeeee,1,x,dev", "split is 'dev'"),
        ("eeeeeeeeeee,1.5,x,train", "1.5"),
        ("eeeeeeeeeee,1,x", "not enough values"),
    ):
        (vgg / "vggsound.csv").write_text(CSV + row + "\n")
        with pytest.raises(SystemExit, match=f"line 5: .*{why}.*wanted YouTube ID, start seconds"):
            run(vggsound, vgg / "vggsound.csv", vgg / "videos")


def test_nothing_found_is_an_error_that_shows_both_names(vgg):
    touch(vgg / "videos", "what.mp4")
    with pytest.raises(
        SystemExit, match="example what.mp4; the first wants ---aaaaaaaa_000001.mp4"
    ):
        run(vggsound, vgg / "vggsound.csv", vgg / "videos")
    assert len((vgg / "m.missing.jsonl").read_text().splitlines()) == 4
    assert not (vgg / "m.jsonl").exists()
    with pytest.raises(SystemExit, match="no such folder of videos"):
        run(vggsound, vgg / "vggsound.csv", vgg / "nowhere")


def test_paths_may_start_above_the_folder(vgg):
    touch(vgg / "videos", "---aaaaaaaa_000001.mp4")
    entries, _ = run(vggsound, f"--root={vgg}", vgg / "vggsound.csv", vgg / "videos")
    assert entries[0].file == "videos/---aaaaaaaa_000001.mp4"
    with pytest.raises(SystemExit, match="is not above"):
        run(vggsound, f"--root={vgg / 'videos'}", vgg / "vggsound.csv", vgg)


SPEECH, CONVERSATION, MUSIC = "/m/09x0r", "/m/01h8n0", "/m/04rlf"
BELL, DOG = "/m/0gy1t2s", "/m/0bt9lr"
ONTOLOGY = [
    {"id": SPEECH, "name": "Speech", "child_ids": [CONVERSATION]},
    {"id": CONVERSATION, "name": "Conversation", "child_ids": []},
    {"id": MUSIC, "name": "Music", "child_ids": [BELL]},
    {"id": BELL, "name": "Bicycle bell", "child_ids": []},
    {"id": DOG, "name": "Dog", "child_ids": []},
]
HEAD = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
"""


def row(youtube_id: str, *tags: str, start: int = 30) -> str:
    return f'{youtube_id}, {start}.000, {start + 10}.000, "{",".join(tags)}"\n'


@pytest.fixture
def audio_set(tmp_path) -> pathlib.Path:
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    balanced = [
        row("a_dog______", DOG),
        row("spoken_____", DOG, SPEECH),
        row("chat_______", CONVERSATION),
        row("bell_______", BELL),
        *(row(f"music{i:06d}", MUSIC, DOG) for i in range(6)),
        row("songofspeec", MUSIC, SPEECH),
    ]
    (tmp_path / "balanced_train_segments.csv").write_text(HEAD + "".join(balanced))
    test = [row("testmusic_0", MUSIC), row("testmusic_1", MUSIC), row("a_dog_test_", DOG, "/m/x")]
    (tmp_path / "eval_segments.csv").write_text(HEAD + "".join(test))
    return tmp_path


def select(folder: pathlib.Path, **options) -> dict[str, list[str]]:
    ontology = audioset.Ontology(folder / "ontology.json")
    kept = audioset.select(audioset.read_folder(folder), ontology, **options)
    return {segment.youtube_id: segment.labels for segment in kept}


def test_the_rule_of_audioset_v2a(audio_set):
    kept = select(audio_set, num_music=2)
    assert {k for k in kept if not k.startswith("music")} == {
        *("a_dog______", "bell_______", "a_dog_test_", "testmusic_0", "testmusic_1")
    }
    music = [k for k in kept if k.startswith("music")]
    assert len(music) == 2 and kept[music[0]] == ["Music", "Dog"]
    assert kept["a_dog_test_"] == ["Dog", "/m/x"]
    # more of them is the same ones and others
    assert set(music) < {k for k in select(audio_set, num_music=4) if k.startswith("music")}
    # by the word of the rule: the tag Speech alone
    official = select(audio_set, num_music=2, rule="official")
    assert set(official) - set(kept) == {"chat_______"}
    with pytest.raises(ValueError, match="rule is 'best'"):
        select(audio_set, rule="best")


def test_audioset_from_files_to_manifest(audio_set, capsys):
    videos = audio_set / "videos"
    touch(
        videos, "a_dog_______30.000_40.000.mp4", "Ybell________30_40.mkv", "spoken______000030.mp4"
    )
    (audio_set / "vggsound.csv").write_text("bell_______,30,bicycle bell,test\n")
    command = ["--music=1", audio_set, audio_set / "ontology.json", videos]
    entries, missing = run(audioset, *command)
    assert [(e.id, e.end_s - e.start_s, e.labels) for e in entries] == [
        ("a_dog_______000030", 10, ["Dog"]),
        ("bell________000030", 10, ["Bicycle bell"]),
    ]
    assert len(missing) == 4 and {one["split"] for one in missing} == {"train", "test"}
    said = capsys.readouterr().out
    assert "unbalanced_train_segments.csv is not there" in said
    assert "6 of 14 clips are of AudioSet-V2A" in said
    assert "for example spoken______000030.mp4" in said
    entries, _ = run(audioset, f"--without={audio_set / 'vggsound.csv'}", *command)
    assert [e.id for e in entries] == ["a_dog_______000030"]


def test_audioset_names_what_is_wrong(audio_set, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of AudioSet's files"):
        audioset.read_folder(tmp_path / "empty")
    (audio_set / "ontology.json").write_text("{}")
    with pytest.raises(ValueError, match="has no tag named 'Speech'"):
        select(audio_set)
    (audio_set / "ontology.json").write_text("[3]")
    with pytest.raises(ValueError, match="not AudioSet's ontology.json"):
        audioset.Ontology(audio_set / "ontology.json")
    (audio_set / "eval_segments.csv").write_text(HEAD + 'x_23456789_, 5.0, 3.0, "/m/0bt9lr"\n')
    with pytest.raises(ValueError, match=r"line 4: the clip is from 5.0 to 3.0 s; wanted YTID,"):
        audioset.read_folder(audio_set)


def test_one_clip_once(tmp_path):
    touch(tmp_path, "aaaaaaaaaaa_000001.mp4")
    segment = youtube.Segment("aaaaaaaaaaa", 1.0, 11.0, "train", [])
    odd = youtube.Segment("aaaaaaaaaaa", 2.5, 11.0, "train", [])
    found = youtube.search([segment, segment, odd], on_disk.Stock(tmp_path), whole="auto")
    assert [e.id for e in found.entries] == ["aaaaaaaaaaa_000001"]
    assert [one.id for one in found.missing] == ["aaaaaaaaaaa_000002.500"]


def test_from_csv_and_folder_to_clips(vgg):
    """Returns the same ten seconds, cut by the downloader or still in the whole video."""
    videos = vgg / "videos"
    media_files.write(videos / "dddddddddd0_000000.mp4", seconds=10, times_s=(0.5,))
    media_files.write(videos / "---aaaaaaaa.mp4", seconds=12, times_s=(1.5,))
    manifest_path = vgg / "vgg.jsonl"
    vggsound.main([str(vgg / "vggsound.csv"), str(videos), f"--out={manifest_path}"])
    format = clip_making.Format(fps=4.0, size=16, sample_rate_hz=16000, clip_seconds=10.0)
    index = prepare.prepare(videos, vgg / "shards", format, manifest=manifest_path)
    assert index.num_failures == 0 and index.splits == ("test", "train")
    for split, name, label, grey in (
        ("test", "---aaaaaaaa_000001", "people marching", 80),
        ("train", "dddddddddd0_000000", "dog barking", 0),
    ):
        (clip,) = pipeline.open_source(vgg / "shards", split)
        assert (clip.id, clip.labels, len(clip.frames)) == (name, [label], 40)
        assert abs(media_files.onset_s(clip.audio / 32768) - 0.5) < 0.003
        assert abs(clip.frames_THWC(0, 1).mean() - grey) < 4
