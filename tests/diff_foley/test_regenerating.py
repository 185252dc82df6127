"""A span made anew: all else is kept, the network sees it, and nothing jumps at the borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_foley

from foley_jax import sample
from foley_jax.diffusion import inpainting, known, schedule
from foley_jax.diffusion.samplers import ddim, dpm_multistep, plms
from foley_jax.media import audio as audio_io

RATE = 16000


@pytest.mark.parametrize("sampler", [ddim, dpm_multistep, plms])
@pytest.mark.parametrize("steps", [4, 25])
def test_the_known_part_ends_as_it_is_under_any_solver(sampler, steps):
    table = schedule.scaled_linear()
    clean = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6)), jnp.float32)
    is_known = jnp.arange(6)[None] < 3
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return 0.1 * x

    x_T = jax.random.normal(jax.random.key(1), (1, 6))
    keeping = inpainting.keeping(denoise, table, clean, is_known)
    made = sampler.sample(keeping, table, x_T, num_steps=steps)
    free = sampler.sample(denoise, table, x_T, num_steps=steps)
    np.testing.assert_allclose(made[0, :3], clean[0, :3], atol=0.05)
    np.testing.assert_allclose(made[0, 3:], free[0, 3:], rtol=1e-5)  # a denoiser of each alone
    assert np.isfinite(seen).all()


def test_latents_are_encoded_a_window_at_a_time_and_silence_follows():
    mel_FT = np.arange(12, dtype=np.float32).reshape(2, 6)
    seen = []

    def encode(mel_1FT):
        seen.append(mel_1FT.copy())
        return mel_1FT[:, :1, ::2, None]

    z_HWC = known.encoded(mel_FT, 2, encode, block_frames=4, silence=-5.0)
    assert [part.shape for part in seen] == [(1, 2, 4)] * 2
    np.testing.assert_array_equal(z_HWC[0, :, 0], [0, 2, 4, -5])
    both = known.columns_on_tape([None, known.KnownColumns(z_HWC, np.arange(4) < 3)], [0, 4], 12)
    np.testing.assert_array_equal(both.z_HWC[0, 4:8, 0], z_HWC[0, :, 0])
    assert np.flatnonzero(both.known_W).tolist() == [4, 5, 6]
    assert known.columns_on_tape([None], [0], 4) is None


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
