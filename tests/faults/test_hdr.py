"""PQ and HLG are shown as BT.709, everything else is read as before; each file says so once."""

import math
import subprocess
import sys
import warnings

import av
import numpy as np
import pytest

from data_prep import clip_making, inspect, prepare
from foley_jax.data import records
from foley_jax.media import container, hdr, specs, video
from tests.faults import odd_media

SPEC = specs.VideoSpec(fps=10, height=24, width=32)
GREY = 512  # of chroma


def pq_nits(signal: float) -> float:
    """BT.2100 table 4."""
    m1, m2 = 0.1593017578125, 78.84375
    c1, c2, c3 = 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    return 10000 * (max(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def pq_signal(nits: float) -> float:
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_nits(signal: float) -> float:
    """BT.2100 table 5, grey on a screen of 1000 cd/m2."""
    if signal <= 0.5:
        scene = signal**2 / 3
    else:
        scene = (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return 1000 * scene**1.2


def shown(nits: float) -> float:
    """8-bit grey: BT.2390 5.4.1 from 1000 to 203 cd/m2, then BT.1886 backwards."""
    top = pq_signal(1000)
    most, e1 = pq_signal(203) / top, min(pq_signal(nits) / top, 1)
    knee = 1.5 * most - 0.5
    if e1 >= knee:
        t = (e1 - knee) / (1 - knee)
        e1 = (
            (2 * t**3 - 3 * t**2 + 1) * knee
            + (t**3 - 2 * t**2 + t) * (1 - knee)
            + (-2 * t**3 + 3 * t**2) * most
        )
    return 255 * (pq_nits(e1 * top) / 203) ** (1 / 2.4)


def read(path) -> np.ndarray:
    """The middle of the first frame, RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", container.MediaWarning)
        return video.read_frames(path, SPEC)[0, 12, 16].astype(int)


def limited(signal: float) -> int:
    """10-bit luma code."""
    return round(64 + 876 * signal)


@pytest.mark.parametrize("transfer", [odd_media.PQ, odd_media.HLG])
@pytest.mark.parametrize("code", [64, 200, 397, 502, 572, 721, 940])
def test_grey_has_the_value_of_the_standards(tmp_path, transfer, code):
    tags = (transfer, odd_media.BT2020, odd_media.BT2020)
    path = odd_media.hevc(tmp_path / "a.mp4", (code, GREY, GREY), tags=tags)
    nits = (pq_nits if transfer == odd_media.PQ else hlg_nits)((code - 64) / 876)
    assert np.abs(read(path) - shown(nits)).max() <= 0.6  # half a step, and float32


@pytest.mark.parametrize(
    ("transfer", "signal"), [(odd_media.PQ, 0.38), (odd_media.HLG, 0.38), (odd_media.PQ, 0.58)]
)
def test_grey_card_is_as_bright_as_in_sdr(tmp_path, transfer, signal):
    tags = (transfer, odd_media.BT2020, odd_media.BT2020)
    path = odd_media.hevc(tmp_path / "a.mp4", (limited(signal), GREY, GREY), tags=tags)
    if signal == 0.38:  # BT.2408 table 1: 18 % grey card, 42.5 % in SDR
        assert np.abs(read(path) - 0.425 * 255).max() <= 2
    else:  # reference white: near white, with room for lights above it
        assert (read(path) > 215).all() and (read(path) < 250).all()


def test_hues_of_bt709_come_back(tmp_path):
    light = np.array([40.0, 10.0, 20.0])  # cd/m2 of BT.709's red, green, blue, below the knee
    to_2020 = np.array(
        [(0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)]
    )
    red, green, blue = (pq_signal(nits) for nits in to_2020 @ light)  # BT.2087
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    chroma = [round(512 + 896 * c) for c in ((blue - luma) / 1.8814, (red - luma) / 1.4746)]
    path = odd_media.hevc(tmp_path / "a.mp4", (limited(luma), *chroma))
    wanted = 255 * (light / 203) ** (1 / 2.4)
    assert np.abs(read(path) - wanted).max() <= 2  # of 10 bits in chroma


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p10le", "gbrp10le"])
def test_any_layout_of_the_pixels(tmp_path, pix_fmt, full_range):
    nits = pq_nits(0.45)
    if pix_fmt == "gbrp10le":
        path, codes = tmp_path / "a.mp4", [round(1023 * 0.45)] * 3
        odd_media.hevc(path, codes, tags=(16, 9, 0), full_range=True, pix_fmt=pix_fmt)
    else:
        luma = round(1023 * 0.45) if full_range else limited(0.45)
        path = odd_media.hevc(
            tmp_path / "a.mp4", (luma, 512, 512), full_range=full_range, pix_fmt=pix_fmt
        )
    assert np.abs(read(path) - shown(nits)).max() <= 1


def test_what_only_the_container_says_counts(tmp_path):
    plain = odd_media.hevc(tmp_path / "a.mp4", (502, GREY, GREY), tags=odd_media.UNTAGGED)
    path = odd_media.rewrapped(plain, tmp_path / "b.mp4", tags=(16, 9, 9))
    assert (video.probe(plain).hdr, video.probe(path).hdr) == ("", "PQ")
    assert np.abs(read(path) - shown(pq_nits(0.5))).max() <= 0.6


@pytest.mark.parametrize(
    "tags", [odd_media.UNTAGGED, (1, 1, 1), (14, 9, 9)], ids=["untagged", "bt709", "bt2020 sdr"]
)
def test_sdr_is_read_as_before(tmp_path, tags):
    path = odd_media.hevc(tmp_path / "a.mp4", (502, 400, 600), tags=tags)
    assert video.probe(path).hdr == ""
    with av.open(str(path)) as opened:
        wanted = next(opened.decode(video=0)).to_ndarray(format="rgb24")
    spec = specs.VideoSpec(10, *wanted.shape[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(video.read_frames(path, spec)[0], wanted)


def test_letterbox_and_size_of_hdr(tmp_path):
    path = odd_media.hevc(tmp_path / "a.mp4", (502, GREY, GREY))
    spec = specs.VideoSpec(fps=10, height=40, width=40, fit="letterbox")
    with pytest.warns(container.MediaWarning):
        frame = video.read_frames(path, spec)[0]
    assert frame.shape == (40, 40, 3) and frame.dtype == np.uint8
    assert not frame[:5].any() and not frame[35:].any() and (frame[5:35] > 100).all()


def test_curve_rises_and_keeps_what_is_dark():
    nits = np.linspace(0, 2000, 4001)
    shown_nits = hdr.rolled_off(nits)
    assert (np.diff(shown_nits) >= -1e-9).all()
    np.testing.assert_array_equal(shown_nits[nits < 87.5], nits[nits < 87.5])
    assert shown_nits[-1] == pytest.approx(hdr.WHITE_NITS)


def test_one_warning_for_a_file(tmp_path):
    path = odd_media.hevc(tmp_path / "caf\u00e9.mp4", (502, GREY, GREY))
    script = (
        "import sys; from foley_jax.media import specs, video\n"
        "for start_s in (0, 0.1, 0): video.read_frames(sys.argv[1], specs.VideoSpec(10, 8, 8), "
        "start_s=start_s)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("toned down to BT.709") == 1
    assert "caf\u00e9.mp4: HDR video (PQ)" in done.stderr


def test_prepared_set_names_its_hdr_videos(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name, tags in (("hdr", (18, 9, 9)), ("sdr", (1, 1, 1))):
        silent = odd_media.hevc(
            tmp_path / f"{name}.mkv", (502, GREY, GREY), tags=tags, num_frames=20
        )
        video.mux(silent, np.zeros(32000, np.float32), 16000, videos / f"{name}.mp4")
    format = clip_making.Format(4.0, 16, 16000, 1.0)
    prepare.prepare(videos, tmp_path / "shards", format, split="train")
    note = '{"file": "hdr.mp4", "note": "HDR video (HLG), toned down to BT.709"}\n'
    assert (tmp_path / "shards" / "notes.jsonl").read_text() == note  # of two clips
    assert "1 videos have notes" in capsys.readouterr().err
    lines = inspect.summary(tmp_path / "shards", records.read_index(tmp_path / "shards"))
    assert "  1 videos: HDR video (HLG), toned down to BT.709 (see notes.jsonl)" in lines


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_copy_keeps_its_tags(tmp_path, suffix):
    path = odd_media.hevc(
        tmp_path / "a.mp4", (502, GREY, GREY), params=f"lossless=1:{odd_media.MASTERED}"
    )
    out = tmp_path / f"out{suffix}"
    video.mux(path, np.zeros(3200, np.float32), 16000, out)
    with av.open(str(out)) as opened:
        context = opened.streams.video[0].codec_context
        tags = context.color_trc, context.color_primaries, context.colorspace, context.color_range
        frame = next(opened.decode(video=0))
        kinds = {data.type.name for data in frame.side_data}
    assert tags == (16, 9, 9, 1)
    assert {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= kinds
    assert video.probe(out).hdr == "PQ"


def test_encoded_copy_is_bt709(tmp_path):
    path = odd_media.hevc(tmp_path / "a.mp4", (502, GREY, GREY), num_frames=10)
    odd_media.trim(path, 0.3, 0.7)  # hidden frames: Matroska makes it be encoded
    out = tmp_path / "out.mkv"
    with pytest.warns(container.MediaWarning):
        video.mux(path, np.zeros(16000, np.float32), 16000, out)
    with av.open(str(out)) as opened:
        context = opened.streams.video[0].codec_context
        assert (context.color_trc, context.color_primaries, context.colorspace) == (1, 1, 1)
    assert video.probe(out).hdr == ""
    assert np.abs(read(out) - shown(pq_nits(0.5))).max() <= 3  # of H.264
