"""The page over HTTP: a take of a video, failures told to their visitor, nothing else served."""

import urllib.error
import urllib.request

import numpy as np
import pytest
import tiny_foley

from foley_jax import serve
from foley_jax.inference import takes
from foley_jax.media import audio as audio_io
from foley_jax.media import video as video_io

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra 'web'")
LIMITS = takes.Limits(most_s=4.0, most_mb=1.0)
RATE = 16000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from foley_jax.inference import web

    folder = tmp_path_factory.mktemp("server")
    runs = tiny_foley.save_runs(folder / "runs")
    blocks, address = web.serve(str(runs / "ldm"), LIMITS, port=0, wait=False)
    yield folder, address.rstrip("/")
    blocks.close()


def _ask(client, path, **changed):
    options = {"text": "", "negative_text": "", "seed": 1, "steps": 2, "guidance": 3.0, "takes": 2}
    options |= {"level_db": -60, "fade_s": 0.0, **changed}
    video = gradio_client.handle_file(str(path))
    return client.predict(video=video, api_name="/audio_for_video", **options)


@pytest.mark.slow
def test_takes_come_back_and_failures_are_told(server, tmp_path):
    _, address = server
    client = gradio_client.Client(address, verbose=False)
    short, long = tiny_foley.write_videos(tmp_path, [1.5, 5.0])
    *shown, files, scores = _ask(client, short)
    assert len(files) == 4 and set(scores) == {"take 1", "take 2"}
    assert len(shown) == 3 * LIMITS.most_takes
    broken, big = tmp_path / "broken.mp4", tmp_path / "big.mp4"
    broken.write_bytes(b"nothing" * 100)
    big.write_bytes(b"0" * 1_500_000)
    for path, words in ((long, "lasts 5.0 s, at most 4 s"), (broken, "broken.mp4")):
        with pytest.raises(Exception, match=words) as raised:
            _ask(client, path)
        assert "/tmp" not in str(raised.value)
    with pytest.raises(Exception, match="maximum file size"):
        _ask(client, big)
    with pytest.raises(Exception, match="1000 is greater than maximum"):
        _ask(client, short, steps=1000)
    assert _ask(client, short, takes=1)[-1].keys() == {"take 1"}  # it goes on


@pytest.mark.slow
def test_no_file_of_the_machine_is_served(server):
    folder, address = server
    for path in ("/etc/passwd", "../../etc/passwd", "%2e%2e/etc/passwd", f"{folder}/runs/ldm"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert raised.value.code in (403, 404)


def test_what_is_missing_is_told(tmp_path, capsys):
    assert serve.main([f"--model={tmp_path / 'none'}"]) == 1
    assert "no checkpoint in" in capsys.readouterr().err


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A video of 2 s with noise for its audio, and that noise."""
    folder = tmp_path_factory.mktemp("heard")
    (silent,) = tiny_foley.write_videos(folder, [2.0])
    audio_L = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    path = folder / "heard.mp4"
    video_io.mux(silent, audio_L, RATE, path)
    return path, audio_io.load(path, RATE)


def _take(client, path, **changed):
    """The audio of a take, as loud as it was made, and what 16 bits do to it."""
    *shown, _, scores = _ask(client, path, takes=1, **changed)
    gain = 10 ** (-scores["take 1"].get("gain_db", 0.0) / 20)
    # a step of 16 bits; and decibels are told with four digits
    return audio_io.load(shown[1], RATE) * np.float32(gain), gain / 2**15 + 1e-4


@pytest.mark.slow
def test_a_span_of_the_own_audio_is_made_anew_and_the_rest_kept(server, heard, tmp_path):
    _, address = server
    client = gradio_client.Client(address, verbose=False)
    path, own_L = heard
    made_L, noise = _take(client, path, start_s=1.0, stop_s=1.5)
    same = np.abs(made_L[: len(own_L)] - own_L[: len(made_L)]) < noise
    assert same[: RATE - 1].all() and same[RATE * 3 // 2 :].all()
    assert same[RATE : RATE * 3 // 2].mean() < 0.5
    to_the_end_L, noise = _take(client, path, start_s=1.0)
    same = np.abs(to_the_end_L[: len(own_L)] - own_L[: len(to_the_end_L)]) < noise
    assert same[: RATE - 1].all() and same[RATE:].mean() < 0.5
    varied_L, _ = _take(client, path, vary=0.5)
    anew_L, _ = _take(client, path)
    assert len(varied_L) == len(anew_L) and np.abs(varied_L - anew_L).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"start_s": 3.0, "stop_s": 4.0}, "the span to regenerate is 3 to 4 s.* of the video"),
        ({"start_s": 1.5, "stop_s": 0.5}, "the span to regenerate is 1.5 to 0.5 s"),
        ({"start_s": -1.0, "stop_s": 0.5}, "minimum value 0"),
        ({"vary": 0.0}, "minimum value 0.05"),
        ({"start_s": 0.5, "stop_s": 1.0, "vary": 0.5}, "give one of them"),
        ({"stop_s": 1.0, "level_db": -6}, "leave its level at -60 dB"),
    ],
)
def test_edits_that_cannot_be_are_refused(server, heard, changed, words):
    _, address = server
    client = gradio_client.Client(address, verbose=False)
    with pytest.raises(Exception, match=words) as raised:
        _ask(client, heard[0], **changed)
    assert "/tmp" not in str(raised.value)


@pytest.mark.slow
def test_a_silent_video_has_no_audio_to_keep(server, tmp_path):
    _, address = server
    client = gradio_client.Client(address, verbose=False)
    (silent,) = tiny_foley.write_videos(tmp_path, [1.5])
    with pytest.raises(Exception, match="no audio"):
        _ask(client, silent, start_s=0.5, stop_s=1.0)


def test_a_model_that_keeps_no_audio_refuses_edits():
    edit = takes.Edit(0.5, 1.0)
    assert takes.Edit().options(can_edit=False, mix=takes.Mix()) == {}
    with pytest.raises(takes.RefusedError, match="this model makes all audio anew"):
        edit.options(can_edit=False, mix=takes.Mix())
