"""Enlarged frames beside bicubic ones: their figures, and the command on a tiny network."""

import json
import math

import filled
import numpy as np
from PIL import Image
import pytest

from foley_jax.data import records
from foley_jax.evaluation import super_resolution
from tests.mm_diffusion import sounding_config

pytestmark = pytest.mark.usefixtures("quick_compilation")
CLIPS, SIDE = 3, 16


def frames(seed, count=1):
    return np.random.default_rng(seed).integers(20, 200, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_psnr_of_a_known_error():
    (true,) = frames(0)
    assert super_resolution.psnr(true + 10, true) == pytest.approx(20 * math.log10(25.5))
    assert super_resolution.psnr(true, true) == math.inf


def test_the_gain_is_told_clip_by_clip():
    true = frames(1, CLIPS)
    rows = super_resolution.figures(true + 1, true + np.array([2, 4, 8])[:, None, None, None], true)
    gains = [20 * math.log10(factor) for factor in (2, 4, 8)]
    assert rows["network"]["psnr_db"] == pytest.approx(20 * math.log10(255))
    assert rows["network"]["gain_db"] == pytest.approx(np.mean(gains))
    assert gains[0] <= rows["network"]["gain_low"] < rows["network"]["gain_high"] <= gains[-1]
    assert "gain_db" not in rows["bicubic"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Clips of three frames; the middle one is what is judged."""
    folder = tmp_path_factory.mktemp("shards")
    with records.ShardWriter(folder, "test", 0) as writer:
        for i in range(CLIPS):
            place = {"start_s": 0.0, "end_s": 0.3, "fps": 10.0, "source": f"{i}.mp4"}
            jpegs = records.encode_frames(frames(i, 3))
            audio = {"audio": np.zeros(2400, np.int16), "sample_rate_hz": 8000}
            writer.add(records.Clip(f"test/{i}", "test", [], frames=jpegs, **place, **audio))
    records.write_index(folder, records.Index(10.0, SIDE, SIDE, 8000, (writer.info,)))
    return folder


@pytest.mark.slow
def test_a_run_is_judged_on_held_out_frames(shards, tmp_path, capsys):
    config = sounding_config.tiny_upscaler()
    filled.save_run(tmp_path / "run", config)
    command = [str(shards), f"--model={tmp_path / 'run'}", "--steps=2"]
    assert super_resolution.main([*command, f"--out={tmp_path / 'clean'}"]) == 0
    assert "over bicubic, dB" in capsys.readouterr().out
    found = json.loads((tmp_path / "clean" / "metrics.json").read_text())
    assert found["network"]["clips"] == found["bicubic"]["clips"] == CLIPS
    # filled with noise, it cannot be better; a bicubic frame of white noise is near its mean
    assert found["network"]["gain_db"] < 0 < found["bicubic"]["psnr_db"] < 20
    width = Image.open(tmp_path / "clean" / "sheet.png").width
    assert width >= 4 * SIDE
    again = [*command, "--worse", f"--out={tmp_path / 'worse'}"]
    assert super_resolution.main(again) == 0
    worse = json.loads((tmp_path / "worse" / "metrics.json").read_text())
    assert worse["bicubic"]["psnr_db"] != found["bicubic"]["psnr_db"]


def test_what_is_missing_is_told(shards, tmp_path, capsys):
    command = [str(shards), f"--model={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"]
    assert super_resolution.main(command) == 1
    assert "no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
