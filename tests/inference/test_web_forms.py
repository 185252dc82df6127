"""The forms of MM-Diffusion and MMAudio over HTTP, with tiny networks."""

import contextlib
from pathlib import Path

import filled
import numpy as np
import pytest
import tiny_foley

from foley_jax.inference import load, takes, text_foley
from foley_jax.media import audio as audio_io
from tests.inference import standing_in
from tests.media import media_files
from tests.mm_diffusion import sounding_config
from tests.mmaudio import tiny_mmaudio

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra 'web'")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@contextlib.contextmanager
def _client(source):
    """Gradio's client of a model's page."""
    from foley_jax.inference import web

    blocks, address = web.serve(str(source), takes.Limits(), port=0, wait=False)
    try:
        yield gradio_client.Client(address, verbose=False)
    finally:
        blocks.close()


def test_sounding_videos_from_noise_from_a_video_and_from_audio(tmp_path):
    filled.save_run(tmp_path / "mm", sounding_config.tiny())
    (silent,) = tiny_foley.write_videos(tmp_path, [1.0])
    wav = tmp_path / "click.wav"
    audio_io.write_wav(wav, np.sin(np.arange(4800, dtype=np.float32)) / 2, 8000)
    video, audio = (gradio_client.handle_file(str(path)) for path in (silent, wav))
    values = {"seed": 1, "steps": 2, "api_name": "/sounding_video"}
    with _client(tmp_path / "mm") as client:

        def made(way, video=None, audio=None, takes=1):
            return client.predict(way=way, video=video, audio=audio, takes=takes, **values)

        for answer, count in (
            (made("from noise", takes=2), 2),
            (made("audio for the video", video=video), 1),
            (made("video for the audio", audio=audio), 1),
        ):
            *_, files, scores = answer
            assert len(files) == 2 * count and len(scores) == count
            assert all(Path(file).stat().st_size > 100 for file in files)
        for way, words in (
            ("audio for the video", "no video"),
            ("video for the audio", "no audio"),
        ):
            with pytest.raises(Exception, match=f"{words}; choose or record"):
                made(way)


def test_mmaudio_s_form_takes_text_and_edits(tmp_path, monkeypatch):
    model = text_foley.TextFoley(tiny_mmaudio.make(), "tiny")
    monkeypatch.setattr(load, "any_system", lambda *_, **__: model)
    (silent,) = tiny_foley.write_videos(tmp_path, [1.0])
    video = gradio_client.handle_file(str(silent))
    with _client("tiny") as client:

        def heard(**changed):
            *shown, _, _ = standing_in.ask(client, video, **changed).result()
            return audio_io.load(shown[1], 16000)

        waves, dogs = heard(text="waves"), heard(text="a dog")
        assert len(waves) == 16000 and np.abs(waves - dogs).max() > 1e-3
        with pytest.raises(Exception, match="no audio track"):
            heard(start_s=0.2, stop_s=0.5)
        own = media_files.write(tmp_path / "own.mp4")
        old_L, video = audio_io.load(own, 16000), gradio_client.handle_file(str(own))
        edited = heard(text="waves", start_s=0.2, stop_s=0.5)
        np.testing.assert_allclose(edited[:3200], old_L[:3200], atol=1e-4)  # 16 bits
        assert np.abs(edited[3200:8000] - old_L[3200:8000]).max() > 1e-3
