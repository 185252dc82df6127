"""The wrong pitch of Diff-Foley's published outputs: found, and put right."""

import numpy as np
import pytest

from foley_jax.evaluation import pitch_defect, repair_pitch
from foley_jax.media import audio as audio_io
from foley_jax.media import mel
from foley_jax.vocoders import griffin_lim

RATE = 16000
TONE_HZ = 2000.0


def _sound(seed=0):
    """Two seconds of a tone in noise of all frequencies."""
    t = np.arange(2 * RATE) / RATE
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * TONE_HZ * t) + noise).astype(np.float32)


def _as_the_notebook(audio_L, basis_rate_hz=pitch_defect.WRONG_RATE_HZ):
    mel_BFT = mel.log_mel(audio_L[None], pitch_defect.SPEC)
    made = griffin_lim.mel_to_audio(
        mel_BFT, pitch_defect.SPEC, length=len(audio_L), basis_rate_hz=basis_rate_hz
    )
    return np.asarray(made)[0]


def _peak_hz(audio_L):
    power_K = np.abs(np.fft.rfft(audio_L * np.hanning(len(audio_L))))
    return np.argmax(power_K) * RATE / len(audio_L)


@pytest.fixture(scope="module")
def wrong():
    return _as_the_notebook(_sound())


def test_what_the_notebook_writes_is_found(wrong):
    assert pitch_defect.has_defect(wrong) and pitch_defect.step_db(wrong) > 17
    right = _as_the_notebook(_sound(), basis_rate_hz=RATE)
    assert abs(pitch_defect.step_db(right)) < 5


def test_other_audio_is_not_taken_for_it():
    noise = np.random.default_rng(1).standard_normal(2 * RATE)
    spectrum, hertz = np.fft.rfft(noise), np.fft.rfftfreq(2 * RATE, 1 / RATE)
    for gain in (
        np.ones_like(hertz),
        10 ** (-hertz / 1000),  # falls everywhere, 6 dB in every 300 Hz
        np.exp(-((hertz / 1500) ** 2)),
        (hertz < 3500) * 1.0,  # ends, but elsewhere
    ):
        shaped = (0.1 * np.fft.irfft(spectrum * gain)).astype(np.float32)
        assert not pitch_defect.has_defect(shaped)
    for empty in (np.zeros(2 * RATE, np.float32), np.zeros(10, np.float32)):
        assert pitch_defect.step_db(empty) == 0
    edge = np.fft.irfft(spectrum * (hertz < pitch_defect.EDGE_HZ))
    assert pitch_defect.has_defect((0.1 * edge).astype(np.float32))


def test_the_pitch_comes_back(wrong):
    assert _peak_hz(wrong) == pytest.approx(TONE_HZ * RATE / pitch_defect.WRONG_RATE_HZ, rel=0.01)
    repaired = np.asarray(pitch_defect.repaired(wrong))
    assert repaired.shape == wrong.shape and not pitch_defect.has_defect(repaired)
    assert _peak_hz(repaired) == pytest.approx(TONE_HZ, rel=0.01)
    # the mel is that of the sound before the notebook had it
    want, got = (np.asarray(mel.log_mel(x[None], pitch_defect.SPEC)) for x in (_sound(), repaired))
    low = np.asarray(mel.log_mel(wrong[None], pitch_defect.SPEC))
    assert np.abs(got - want).mean() < 0.3 * np.abs(low - want).mean()


def test_a_folder_is_put_right_and_the_rest_copied(tmp_path, capsys, wrong):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    audio_io.write_wav(source / "deep/low.wav", wrong, RATE)
    audio_io.write_wav(source / "fine.wav", _sound(), RATE)
    assert repair_pitch.main([str(source)]) == 0
    assert "1 of 2 have the wrong pitch" in capsys.readouterr().out and not out.exists()
    (source / "broken.wav").write_bytes(b"no audio")
    assert repair_pitch.main([str(source), str(out)]) == 1
    said = capsys.readouterr()
    assert "1 of 3 have the wrong pitch; 1 failed" in said.out and "broken.wav" in said.err
    assert (out / "fine.wav").read_bytes() == (source / "fine.wav").read_bytes()
    right = audio_io.load(out / "deep/low.wav", RATE)
    assert len(right) == len(wrong) and _peak_hz(right) == pytest.approx(TONE_HZ, rel=0.01)
    assert repair_pitch.main([str(tmp_path / "none"), str(out)]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    assert repair_pitch.main([str(source / "deep/low.wav")]) == 0


def test_the_source_is_never_written_over(tmp_path, capsys, wrong):
    audio_io.write_wav(tmp_path / "low.wav", wrong, RATE)
    before = (tmp_path / "low.wav").read_bytes()
    for source in (tmp_path, tmp_path / "low.wav"):
        assert repair_pitch.main([str(source), str(tmp_path)]) == 1
        assert "error" in capsys.readouterr().err
    assert (tmp_path / "low.wav").read_bytes() == before
