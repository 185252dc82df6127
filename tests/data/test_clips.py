"""Which stretches become examples: the official rules against goldens, the aligned ones exactly."""

from pathlib import Path
import random

import numpy as np
import pytest

from foley_jax.data import clips, records, split_merge
from foley_jax.media import specs

GOLDENS = Path(__file__).parents[1] / "goldens" / "diff_foley"
HOP_256 = specs.AudioSpec()
HOP_250 = specs.AudioSpec(hop=250)
SMALL = specs.VideoSpec(4.0, 16, 16)


def make_clip(number=0, seconds=10.0, *, dim=3):
    """Frame i is grey 6 * i, feature i is (i, number, 0), sample j is j // 16 (milliseconds)."""
    count = SMALL.num_frames(seconds)
    frames = np.broadcast_to(
        6 * np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 16, 16, 3)
    )
    rows = np.zeros((count, dim), np.float16)
    rows[:, 0], rows[:, 1] = np.arange(count), number
    return records.Clip(
        id=str(number),
        split="train",
        labels=[],
        source="v.mp4",
        start_s=0.0,
        end_s=seconds,
        fps=4.0,
        frames=records.encode_frames(frames),
        audio=(np.arange(round(seconds * 16000)) // 16 + 1000 * number).astype(np.int16),
        sample_rate_hz=16000,
        cavp_TD=rows,
    )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_starts_are_the_official_draws(n):
    golden = np.load(GOLDENS / "temporal_index.npz")[f"starts_n{n}"]
    ours = [
        clips.sample_starts(
            random.Random(seed), num_clips=n, clip_frames=16, num_frames=40, min_gap=8
        )
        for seed in range(len(golden))
    ]
    np.testing.assert_array_equal(ours, golden)


def test_distribution_of_starts_is_the_official_one():
    golden = np.load(GOLDENS / "temporal_index.npz")["n3_hist_start1_start2_start3"]
    rng, counts, num = random.Random(0), np.zeros((3, 25)), 20_000
    for _ in range(num):
        starts = clips.sample_starts(rng, num_clips=3, clip_frames=16, num_frames=40, min_gap=8)
        counts[np.arange(3), starts] += 1
    # five standard deviations of a share estimated from `num` draws
    np.testing.assert_allclose(counts / num, golden, atol=5 * np.sqrt(0.25 / num))


def test_too_short_for_the_clips_is_refused():
    with pytest.raises(ValueError, match="20 frames has no room for 3 clips .* it needs 32"):
        clips.sample_starts(random.Random(0), num_clips=3, clip_frames=16, num_frames=20, min_gap=8)


def official_sizes():
    return split_merge.WindowSizes(
        audio=HOP_256,
        fps=4.0,
        num_samples=160_000,
        num_frames=625,
        num_features=40,
        window_frames=512,
        window_features=32,
    )


def test_split_merge_is_the_official_one():
    """Ramps: value = 10000 * (video + 1) + time index; video 2 has 400 frames and 25 features."""
    golden = np.load(GOLDENS / "split_merge.npz")
    order = golden["dataset_order"]
    frames_of, rows_of = {0: 625, 1: 625, 2: 400}, {0: 40, 1: 40, 2: 25}
    for i, seed in enumerate(golden["python_random_seed"]):
        parts = split_merge.official(
            random.Random(int(seed)), int(golden["index"][i]), 3, official_sizes(), 0.5
        )
        assert (len(parts) == 2) == bool(golden["is_concat"][i])
        frames, rows = [], []
        for part in parts:
            video = int(order[part.record])
            index = (part.frame + np.arange(part.num_frames)) % frames_of[video]
            frames.append(10000 * (video + 1) + index)
            index = (part.feature + np.arange(part.num_features)) % rows_of[video]
            rows.append(10000 * (video + 1) + index)
        np.testing.assert_array_equal(np.concatenate(frames), golden["mix_spec_row"][i])
        np.testing.assert_array_equal(
            np.concatenate(rows), golden["mix_video_feat_col"][i][: sum(map(len, rows))]
        )
        assert np.all(golden["mix_video_feat_col"][i][32:] == -1)


@pytest.mark.parametrize("audio", [HOP_256, HOP_250])
@pytest.mark.parametrize("merge", [0.0, 1.0])
def test_aligned_windows_say_exactly_when_their_rows_are(audio, merge):
    window = clips.LdmWindows(SMALL, audio, merge_probability=merge, aligned=True)
    source = [make_clip(n) for n in range(3)]
    sizes, seen = window.sizes, set()
    for seed in range(60):
        example = window(source, seed % 3, np.random.default_rng(seed))
        frame = example["mel_frame_BT"] % sizes.num_frames
        waveform = example["mel_frame_BT"] // sizes.num_frames
        video = example["cavp_BLD"][:, 1].astype(int)
        first = np.searchsorted(waveform, np.arange(2))  # first column of each audio clip
        for row_time, at, number in zip(
            example["cavp_BLD"][:, 0] / 4.0, example["context_s_BL"], video
        ):
            part = int(number != video[0])
            # on the window's clock a feature begins when its time in the video is heard
            heard = frame[first[part]] * audio.frame_s + at - first[part] * audio.frame_s
            assert abs(heard - row_time) < 1e-6
            sample = example["audio_BPL"][part, round(row_time * 16000)]
            assert abs(sample / 1000 - number - row_time) < 2e-3
        for part in set(waveform):  # both cuts are where a feature begins, to the nearest mel frame
            begin = frame[first[part]] * audio.frame_s * 4
            assert abs(begin - round(begin)) <= 2 * audio.frame_s + 1e-6
        seen.add((len(set(video)), int(frame[0])))
    assert {count for count, _ in seen} == {2 if merge else 1}
    assert len(seen) > 5


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("merge", [0.0, 0.5])
def test_window_shapes(aligned, merge):
    window = clips.LdmWindows(SMALL, HOP_256, merge_probability=merge, aligned=aligned)
    source = [make_clip(n) for n in range(2)]
    shapes = set()
    for seed in range(8):
        example = window(source, 0, np.random.default_rng(seed))
        shapes.add(tuple((k, v.shape, v.dtype.name) for k, v in sorted(example.items())))
        assert example["mel_frame_BT"].max() < len(example["audio_BPL"]) * 625
    assert shapes == {
        (
            ("audio_BPL", (2 if merge else 1, 159_999), "int16"),
            ("cavp_BLD", (32, 3), "float32"),
            ("context_s_BL", (32,), "float32"),
            ("mel_frame_BT", (512,), "int32"),
        )
    }


def test_one_record_alone_is_never_merged():
    for aligned in (False, True):
        window = clips.LdmWindows(SMALL, HOP_250, merge_probability=1.0, aligned=aligned)
        example = window([make_clip()], 0, np.random.default_rng(0))
        assert np.all(np.diff(example["mel_frame_BT"]) == 1)


def test_aligned_demo_windows_have_rows_at_the_default_times():
    """Hop 250: a feature is 16 mel frames, so features are at 0, 0.25, ... as at sampling time."""
    window = clips.LdmWindows(SMALL, HOP_250, merge_probability=0.5, aligned=True)
    source = [make_clip(n) for n in range(2)]
    for seed in range(10):
        example = window(source, 1, np.random.default_rng(seed))
        np.testing.assert_allclose(example["context_s_BL"], np.arange(32) / 4, atol=1e-6)


def test_cavp_clips_show_and_audio_the_same_moments():
    transform = clips.CavpClips(video=SMALL, audio=HOP_250)
    example = transform([make_clip()], 0, np.random.default_rng(3))
    assert example["frames_BNTHWC"].shape == (3, 16, 16, 16, 3)
    assert example["frames_BNTHWC"].dtype == np.uint8
    assert example["audio_BL"].shape == (159_999,)
    shown = example["frames_BNTHWC"][..., 0].mean((-2, -1)) / 6.0  # frame numbers [N, T]
    np.testing.assert_allclose(np.diff(shown, axis=1), 1.0, atol=0.2)  # JPEG rounds
    start = np.round(shown[:, 0]).astype(int)
    np.testing.assert_array_equal(example["mel_start_BN"], 16 * start)
    assert np.all(np.diff(start) >= 8)


def test_short_clip_repeats_image_rows_and_audio_together():
    short = make_clip(seconds=5.1)  # 21 frames, but audio for 20 whole ones: 5 s repeat
    line = clips.Timeline.of(short, fps=4.0, num_frames=40, num_samples=160_000)
    np.testing.assert_array_equal(line.index, np.arange(40) % 20)
    np.testing.assert_array_equal(line.audio, np.arange(160_000) % 80_000 // 16)


def test_audio_a_little_shorter_than_the_image_ends_in_silence():
    clip = make_clip()
    clip.audio = clip.audio[:159_000]
    line = clips.Timeline.of(clip, fps=4.0, num_frames=40, num_samples=160_000)
    np.testing.assert_array_equal(line.index, np.arange(40))
    np.testing.assert_array_equal(line.audio[:159_000], clip.audio)
    assert not line.audio[159_000:].any()


def test_clip_shorter_than_a_frame_and_longer_than_needed():
    tiny = make_clip(seconds=0.2)
    line = clips.Timeline.of(tiny, fps=4.0, num_frames=4, num_samples=16_000)
    np.testing.assert_array_equal(line.index, np.zeros(4))
    assert not line.audio[3200:4000].any() and line.audio[4016] == 1
    long = make_clip(seconds=12.0)
    line = clips.Timeline.of(long, fps=4.0, num_frames=40, num_samples=160_000)
    np.testing.assert_array_equal(line.audio, long.audio[:160_000])


def test_audio_crops_cover_the_whole_audio():
    transform = clips.AudioCrops(HOP_250, crop_frames=128)
    examples = [transform([make_clip()], 0, np.random.default_rng(s)) for s in range(200)]
    starts = np.array([e["start_B"] for e in examples])
    assert starts.dtype == np.int32 and starts.shape == (200,)
    assert 0 <= starts.min() < 40 and 640 - 128 - 40 < starts.max() <= 640 - 128
    assert examples[0]["audio_BL"].shape == (159_999,)


def test_examples_depend_on_the_rng_alone():
    for transform in (
        clips.CavpClips(SMALL, HOP_250),
        clips.LdmWindows(SMALL, HOP_256),
        clips.AudioCrops(HOP_256),
    ):
        source = [make_clip(n) for n in range(3)]
        one, two = (transform(source, 1, np.random.default_rng(5)) for _ in range(2))
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize(
    ("change", "transform", "message"),
    [
        ({"fps": 8.0}, clips.CavpClips(SMALL, HOP_250), "hold 8 frames/s and 16000 Hz"),
        ({"cavp_TD": None}, clips.LdmWindows(SMALL, HOP_250), "data_prep.features"),
        ({"audio": np.zeros(0, np.int16)}, clips.AudioCrops(HOP_250), "0 samples of audio"),
        (
            {},
            clips.CavpClips(specs.VideoSpec(4.0, 32, 32), HOP_250),
            "hold 16x16 images, config.video wants 32x32",
        ),
    ],
)
def test_records_that_do_not_fit_are_refused(change, transform, message):
    clip = make_clip()
    for name, value in change.items():
        setattr(clip, name, value)
    with pytest.raises(ValueError, match=message):
        transform([clip, clip], 0, np.random.default_rng(0))


def test_window_longer_than_a_record_is_refused():
    with pytest.raises(ValueError, match="700 mel frames and 32 features is longer than a record"):
        clips.LdmWindows(SMALL, HOP_256, window_frames=700)
    with pytest.raises(ValueError, match="crop of 700 mel frames is longer"):
        clips.AudioCrops(HOP_256, crop_frames=700)([make_clip()], 0, np.random.default_rng(0))
