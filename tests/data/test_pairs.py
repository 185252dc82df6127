"""Pairs for the alignment classifier: proportions, shifts, and features that fit their frames."""

import dataclasses

import numpy as np
import pytest

from foley_jax.data import clips, pairs, records
from foley_jax.media import specs

HOP_256 = specs.AudioSpec()
HOP_250 = specs.AudioSpec(hop=250)
SMALL = specs.VideoSpec(4.0, 16, 16)


def make_clip(number, seconds=10.0, source=None):
    """Feature i is (i, number); sample j is j // 16 (milliseconds) + 10000 * number."""
    count = SMALL.num_frames(seconds)
    rows = np.stack([np.arange(count), np.full(count, number)], axis=1).astype(np.float16)
    return records.Clip(
        id=str(number),
        split="train",
        labels=[],
        source=source or f"{number}.mp4",
        start_s=0.0,
        end_s=seconds,
        fps=4.0,
        frames=[],
        audio=(np.arange(round(seconds * 16000)) // 16 + 10000 * number).astype(np.int16),
        sample_rate_hz=16000,
        cavp_TD=rows,
    )


SOURCE = [make_clip(number) for number in range(3)]


def draw(transform, number, source=SOURCE, index=None):
    """Example `number`, what its audio is, and when its audio and its features begin (s)."""
    index = number % len(source) if index is None else index
    example = transform(source, index, np.random.default_rng(number))
    first = int(example["mel_frame_BT"][0])
    audio_s = first * transform.audio.frame_s
    of = int(example["audio_BPL"][0, 0]) // 10000
    return example, of, audio_s, float(example["cavp_BLD"][0, 0]) / 4


@pytest.mark.parametrize("audio", [HOP_256, HOP_250])
def test_rows_and_frames_of_every_kind_are_what_they_are_said_to_be(audio):
    transform = pairs.AlignmentPairs(SMALL, audio)
    half_frame = audio.frame_s / 2 + 1e-9
    seen = set()
    for number in range(60):
        example, of, audio_s, row_s = draw(transform, number)
        kind = pairs.KINDS[example["pair_B"]]
        rows = example["cavp_BLD"]
        assert rows.shape == (32, 2) and rows.dtype == np.float32
        np.testing.assert_array_equal(np.diff(rows[:, 0]), 1.0)
        np.testing.assert_array_equal(rows[:, 1], number % 3)
        frames = example["mel_frame_BT"]
        np.testing.assert_array_equal(frames, frames[0] + np.arange(512))
        assert frames[-1] < audio.num_frames(example["audio_BPL"].shape[1])
        assert (of == number % 3) == (kind != "other")
        if kind == "true":
            assert abs(audio_s - row_s) <= half_frame
        elif kind == "shifted":
            assert abs(audio_s - row_s) >= 1.0 - half_frame
        # where a feature would stand if the pair matched: near its place in the feature of features
        times = example["context_s_BL"]
        np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-6)
        assert abs(times[0]) <= half_frame
        seen.add((kind, round(audio_s - row_s)))
    assert {kind for kind, _ in seen} == set(pairs.KINDS)
    assert {("shifted", 1), ("shifted", -1)} <= seen


@pytest.mark.parametrize(("fields", "want"), [({}, (0.5, 0.25, 0.25)), ("half", (0.3, 0.6, 0.1))])
def test_proportions(fields, want):
    if fields == "half":
        fields = {"true_share": 0.3, "shifted_share": 0.6}
    transform = pairs.AlignmentPairs(SMALL, HOP_250, **fields)
    rng, num = np.random.default_rng(0), 20_000
    drawn = [pairs.KINDS.index(transform._kind(rng, 3)) for _ in range(num)]
    # five standard deviations of a share estimated from `num` draws
    np.testing.assert_allclose(np.bincount(drawn) / num, want, atol=5 * np.sqrt(0.25 / num))
    counts = np.bincount([draw(transform, n)[0]["pair_B"] for n in range(300)], minlength=3)
    np.testing.assert_allclose(counts / 300, want, atol=5 * np.sqrt(0.25 / 300))


def test_shifts_reach_from_the_smallest_to_the_end_of_the_record():
    shifts = {}
    for smallest in (0.25, 1.0, 1.5):
        transform = pairs.AlignmentPairs(
            SMALL, HOP_250, true_share=0.0, shifted_share=1.0, min_shift_s=smallest
        )
        drawn = [draw(transform, number)[2:] for number in range(500)]
        shifts[smallest] = {audio_s - row_s for audio_s, row_s in drawn}
        # 40 features leave windows of 32 features 2 s of room, in steps of one feature
        steps = np.arange(smallest, 2.0 + 1e-6, 0.25)
        assert shifts[smallest] == {*steps, *-steps}


def test_an_example_is_a_function_of_its_seed():
    transform = pairs.AlignmentPairs(SMALL, HOP_256)
    for number in range(20):
        first, again = draw(transform, number)[0], draw(transform, number)[0]
        assert set(first) == set(again)
        for key in first:
            np.testing.assert_array_equal(first[key], again[key])
    kinds = [int(draw(transform, number)[0]["pair_B"]) for number in range(20)]
    assert len(set(kinds)) == 3


def test_a_repeated_record_is_never_shifted_by_its_own_period():
    source = [make_clip(0, seconds=2.5), make_clip(1)]  # 10 features, four times over
    transform = pairs.AlignmentPairs(
        SMALL, HOP_250, true_share=0.0, shifted_share=1.0, min_shift_s=1.0
    )
    for number in range(50):
        example, of, audio_s, row_s = draw(transform, number, source, index=0)
        assert pairs.KINDS[example["pair_B"]] == "shifted" and of == 0
        off = (audio_s - row_s) % 2.5
        assert min(off, 2.5 - off) >= 1.0
    # a period of 1 s has no place that is 1 s off: the pair becomes one with another video
    source = [make_clip(0, seconds=1.0), make_clip(1)]
    example, of, *_ = draw(transform, 0, source, index=0)
    assert pairs.KINDS[example["pair_B"]] == "other" and of == 1


def test_other_audio_is_of_another_video_where_there_is_one():
    same = [make_clip(n, source="long.mp4") for n in range(2)]
    transform = pairs.AlignmentPairs(SMALL, HOP_250, true_share=0.0, shifted_share=0.0)
    mixed = [*same, make_clip(2)]
    of = [draw(transform, number, mixed, index=0)[1] for number in range(40)]
    assert set(of) == {2}
    assert {draw(transform, number, same, index=0)[1] for number in range(10)} == {1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_shift_s": 2.5}, "min_shift_s is 2.5; .* by 0.25 to 2 s"),
        ({"min_shift_s": 0.0}, "min_shift_s is 0"),
        ({"true_share": 0.9}, "below 0"),
        ({"window_frames": 700}, "longer than a record"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        pairs.AlignmentPairs(SMALL, HOP_250, **fields)


def test_records_that_do_not_fit_are_refused():
    transform = pairs.AlignmentPairs(SMALL, HOP_250, true_share=0.0, shifted_share=0.0)
    with pytest.raises(ValueError, match="need two records"):
        draw(transform, 0, SOURCE[:1])
    slow = dataclasses.replace(SOURCE[0], fps=5.0)
    with pytest.raises(ValueError, match="5 frames/s"):
        draw(transform, 0, [slow, slow])
    assert transform.clip_seconds == clips.CLIP_SECONDS
