"""A span made anew: all else is kept, the network sees it, and nothing jumps at the borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diff_foley.sampling import editing
from foley_jax.diffusion import inpainting, schedule
from foley_jax.diffusion.samplers import ddim, dpm_multistep, plms
from foley_jax.media import audio as audio_io
from foley_jax.media import specs

RATE = 16000


@pytest.mark.parametrize("sampler", [ddim, dpm_multistep, plms])
@pytest.mark.parametrize("steps", [4, 25])
def test_the_known_part_ends_as_it_is_under_any_solver(sampler, steps):
    table = schedule.scaled_linear()
    known = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6)), jnp.float32)
    is_known = jnp.arange(6)[None] < 3
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return 0.1 * x

    x_T = jax.random.normal(jax.random.key(1), (1, 6))
    keeping = inpainting.keeping(denoise, table, known, is_known)
    made = sampler.sample(keeping, table, x_T, num_steps=steps)
    free = sampler.sample(denoise, table, x_T, num_steps=steps)
    np.testing.assert_allclose(made[0, :3], known[0, :3], atol=0.05)
    np.testing.assert_allclose(made[0, 3:], free[0, 3:], rtol=1e-5)  # a denoiser of each alone
    assert np.isfinite(seen).all()


def test_columns_outside_the_span_and_within_the_audio_are_known():
    spec = specs.AudioSpec(**tiny_foley.ldm().audio)
    kept = editing.Kept(np.zeros(RATE, np.float32), 0.25, 0.5)
    found = editing.columns(
        kept,
        2,
        encode=lambda mel: np.ones((1, 4, mel.shape[2] // 8, 2), np.float32),
        audio=spec,
        block_frames=64,
        column_frames=8,
    )
    column_s = 8 * spec.frame_s
    begins = np.arange(16) * column_s
    wanted = [(b + column_s <= 0.25 or b >= 0.5) and b + column_s <= 1 for b in begins]
    assert found.z_HWC.shape == (4, 16, 2) and found.known_W.tolist() == wanted
    assert 0 < sum(wanted) < 16


def test_outside_the_span_every_sample_is_kept():
    rng = np.random.default_rng(0)
    old, new = rng.uniform(-1, 1, (2, RATE)).astype(np.float32)
    made = editing.spliced(editing.Kept(old, 0.25, 0.5), new, RATE)
    np.testing.assert_array_equal(made[:4000], old[:4000])
    np.testing.assert_array_equal(made[8000:], old[8000:])
    np.testing.assert_array_equal(made[4400:7600], new[4400:7600])
    # the share of the new one grows without a jump
    ones = editing.spliced(editing.Kept(old * 0, 0.25, 0.5), np.ones_like(new), RATE)
    assert np.abs(np.diff(ones)).max() < 0.005


def test_a_span_beyond_full_scale_leaves_the_rest_as_loud_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    old = rng.uniform(-0.5, 0.5, RATE).astype(np.float32)
    new = rng.uniform(-3, 3, RATE).astype(np.float32)
    kept = editing.Kept(old, 0.25, 0.5)
    for name, own in (("old", old), ("made", editing.spliced(kept, new, RATE))):
        audio_io.write_wav(tmp_path / f"{name}.wav", own, RATE)
    before, after = (audio_io.load(tmp_path / f"{name}.wav", RATE) for name in ("old", "made"))
    np.testing.assert_array_equal(after[:4000], before[:4000])
    np.testing.assert_array_equal(after[8000:], before[8000:])
    assert 0.9 < np.abs(after[4000:8000]).max() <= 1
    broken = np.full_like(new, np.nan)
    assert np.isnan(editing.spliced(kept, broken, RATE)[4000:8000]).all()


def test_audio_is_extended_beyond_its_end():
    old, new = np.ones(RATE // 2, np.float32), np.full(RATE, 0.8, np.float32)
    made = editing.spliced(editing.Kept(old, 0.5, 1.0), new, RATE)
    np.testing.assert_array_equal(made[: RATE // 2], old)
    np.testing.assert_array_equal(made[RATE // 2 + 320 :], np.float32(0.8))
    assert editing.spliced(None, new, RATE) is new


@pytest.mark.parametrize("span", [(2.0, 1.0), (-1.0, 1.0), (3.0, 4.0), (1.0, 1.0)])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(ValueError, match="the span to regenerate is"):
        editing.checked(span, 3.0)
    assert editing.checked((1.0, 9.0), 3.0) == (1.0, 3.0)


@pytest.mark.slow
def test_a_span_of_a_clip_is_made_anew(tmp_path):
    foley = sample.load(tiny_foley.save_runs(tmp_path / "runs") / "ldm")
    (video,) = tiny_foley.write_videos(tmp_path, [2.5])
    rng = np.random.default_rng(0)
    old = (0.1 * rng.standard_normal(round(2.5 * RATE))).astype(np.float32)
    audio_io.write_wav(tmp_path / "old.wav", old, RATE)
    old = audio_io.load(tmp_path / "old.wav", RATE)  # as 16 bits keep it
    options = {"steps": 3, "audio": tmp_path / "old.wav"}
    made = foley(video, regenerate=(1.0, 1.5), seed=1, **options).audio
    np.testing.assert_array_equal(made[:RATE], old[:RATE])
    np.testing.assert_array_equal(made[24000:], old[24000 : len(made)])
    other = foley(video, regenerate=(1.0, 1.5), seed=2, **options).audio
    assert np.abs(made[RATE:24000] - old[RATE:24000]).max() > 1e-3
    assert np.abs(made[RATE:24000] - other[RATE:24000]).max() > 1e-3
    with pytest.raises(ValueError, match="'official' keeps no audio"):
        foley(video, regenerate=(1.0, 1.5), preset="official", **options)


@pytest.mark.slow
def test_the_command_regenerates_a_span_of_every_video(tmp_path, capsys):
    runs = tiny_foley.save_runs(tmp_path / "runs")
    (video,) = tiny_foley.write_videos(tmp_path, [1.5])
    command = [str(video), f"--model={runs / 'ldm'}", "--steps=2", "--regenerate=0.5:1"]
    assert sample.main([*command, f"--out={tmp_path / 'out'}"]) == 1
    assert "no audio track" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sample.main([*command[:-1], "--regenerate=1:0.5"])
    assert "expected START:STOP in seconds" in capsys.readouterr().err
