"""Every fault of scraped videos ends as records in sync, or as lines in failures.jsonl.

`fault_corpus.FAULTS` is the table: files by kind, what is expected of each; `-s` prints it beside
what was seen. In short (records of at most 2 s out of 3 s):

  truncated, without moov, empty, noise, a web page             unreadable
  cut off behind the index; mkv and ts cut off                  what is left; empty for the rest
  bits flipped                                                  records, damaged images
  audio alone, with or without cover art; image alone         no_video; no_audio
  0.2 s long                                                    too_short
  codecs nobody knows; timestamps years apart                   unsupported
  images of a file or its whole audio lost                    empty
  decoding that takes minutes                                   timeout
  wrong extension, odd names, more tracks, cover art, 8 kHz mono, 48 kHz 5.1, NaN samples, wrong
  channel count, variable frame rate, rotation, odd or zero or changing sizes, 10 bits, 4:4:4,
  alpha, B frames in AVI, live WebM, late, short, long or interrupted audio, late image, edit
  lists, negative, huge, wrapping and repeated timestamps       records in sync
"""

import json

from array_record.python import array_record_module
import numpy as np
import pytest

from data_prep import clip_making, prepare
from foley_jax.data import records
from tests.data_prep import fault_corpus, sync_measure
from tests.media import sync_media

RATE_HZ = 16000
FORMAT = clip_making.Format(
    fps=4.0, size=32, sample_rate_hz=RATE_HZ, clip_seconds=fault_corpus.CLIP_SECONDS
)
# A clip of any other file takes under a second, on a loaded machine too.
LIMIT_S = 5.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[dict[str, list[records.Clip]], dict[str, list[str]]]:
    """Records and reasons of failure of the whole corpus, by file."""
    videos = tmp_path_factory.mktemp("faults")
    fault_corpus.make(videos)
    shards = tmp_path_factory.mktemp("prepared") / "shards"
    prepare.prepare(videos, shards, FORMAT, split="train", task_limit_s=LIMIT_S)
    clips: dict[str, list[records.Clip]] = {}
    for path in records.shard_paths(shards, "train"):
        for data in array_record_module.ArrayRecordReader(str(path)).read_all():
            clip = records.decode(data)
            clips.setdefault(clip.source, []).append(clip)
    failures: dict[str, list[str]] = {}
    for line in (shards / "failures.jsonl").read_text().splitlines():
        one = json.loads(line)
        failures.setdefault(one["file"], []).append(one["reason"])
    for of_file in clips.values():
        of_file.sort(key=lambda clip: clip.start_s)
    return clips, failures


def offsets(clip: records.Clip, fault: fault_corpus.Fault) -> list[float]:
    """Source frames between what is shown and what audio clips, frame by frame."""
    clicks_s = [t - fault.late / RATE_HZ for t in sync_measure.heard(clip.audio, RATE_HZ)]
    numbers = enumerate(sync_media.numbers(clip.frames_THWC()))
    found = [
        sync_measure.distance(number, i / clip.fps, clicks_s, fault.fps)
        for i, number in numbers
        if number >= 0
    ]
    return [off for off in found if off is not None]


@pytest.mark.parametrize("name", fault_corpus.FAULTS, ids=ascii)
def test_file_ends_as_expected(prepared, name):
    fault = fault_corpus.FAULTS[name]
    clips, failures = (seen.get(name, []) for seen in prepared)
    lengths = tuple(len(clip.frames) / clip.fps for clip in clips)
    assert (lengths, tuple(failures)) == (fault.records, fault.reasons)
    for clip in clips:
        assert len(clip.audio) == round((clip.end_s - clip.start_s) * RATE_HZ)
        # no frame without its audio, no audio beyond the last frame
        assert 0 <= len(clip.frames) - len(clip.audio) / RATE_HZ * clip.fps < 1
    if not clips or fault.fps is None:
        return
    found = [off for clip in clips for off in offsets(clip, fault)]
    assert found
    slack = 2e-3 * fault.fps  # timestamps of 1 ms
    assert np.abs(found).max() <= 0.5 + slack


def test_variable_times_are_followed(prepared):
    """Frames of irregular times: what is on screen at i / 4 s, and its clicks."""
    times_s = np.array(fault_corpus.VFR_S)
    first, second = prepared[0]["variable_frame_rate.mp4"]
    for clip in (first, second):
        at_s = clip.start_s + np.arange(len(clip.frames)) / clip.fps
        wanted = np.searchsorted(times_s, at_s + 1e-3, side="right") - 1
        assert sync_media.numbers(clip.frames_THWC()) == wanted.tolist()
    wanted_s = [times_s[i] for i in range(5, 58, 20)]
    heard_s = [c.start_s + t for c in (first, second) for t in sync_measure.heard(c.audio, RATE_HZ)]
    np.testing.assert_allclose(sorted(heard_s), wanted_s, atol=1 / RATE_HZ)


def test_slow_and_fast_images_show_the_right_frame(prepared):
    for name, fps in (("one_frame_a_second.mp4", 1), ("240_frames_a_second.mp4", 240)):
        for clip in prepared[0][name]:
            at_s = clip.start_s + np.arange(len(clip.frames)) / clip.fps
            wanted = np.floor(at_s * fps).astype(int).tolist()
            assert sync_media.numbers(clip.frames_THWC()) == wanted
    heard_s = sync_measure.heard(prepared[0]["240_frames_a_second.mp4"][0].audio, RATE_HZ)
    np.testing.assert_allclose(sorted(heard_s), [20 / 240, 300 / 240], atol=1 / RATE_HZ)


def test_links_and_pipes_are_named_and_folders_are_no_files(prepared):
    clips, failures = prepared
    assert failures["broken_link.mp4"] == failures["pipe.mp4"] == ["missing"]
    others = {"broken_link.mp4", "pipe.mp4"}
    assert failures.keys() | clips.keys() == {*fault_corpus.FAULTS, *others}


def test_table(prepared):
    """Prints the whole corpus: expected, seen."""
    clips, failures = prepared
    rows = [f"{'file':56} {'expected':26} {'seen':26} source frames off"]
    for name, fault in fault_corpus.FAULTS.items():
        seen = [f"{len(clip.frames) / clip.fps:g} s" for clip in clips.get(name, [])]
        wanted = [f"{length_s:g} s" for length_s in fault.records]
        found = []
        if fault.fps is not None:
            found = [off for clip in clips.get(name, []) for off in offsets(clip, fault)]
        sync = f"{min(found):+.2f} to {max(found):+.2f}" if found else "-"
        rows.append(
            f"{ascii(name)[1:-1]:56} {', '.join([*wanted, *fault.reasons]):26} "
            f"{', '.join([*seen, *failures.get(name, [])]):26} {sync}"
        )
    print("\n" + "\n".join(rows))
    assert len(rows) == 1 + len({*clips, *(failures.keys() & fault_corpus.FAULTS.keys())})
