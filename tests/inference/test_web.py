"""The page over HTTP: a take of a video, failures told to their visitor, nothing else served."""

import urllib.error
import urllib.request

import pytest
import tiny_foley

from foley_jax import serve
from foley_jax.inference import takes

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra 'web'")
LIMITS = takes.Limits(most_s=4.0, most_mb=1.0)


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
