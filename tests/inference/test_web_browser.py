"""The page in a real browser, and what its server refuses; the model is a stand-in."""

import os
from pathlib import Path
import socket
import time

import numpy as np
import pytest
import tiny_foley

from foley_jax.inference import clip, load, takes
from foley_jax.media import audio as audio_io
from tests import browsers

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra 'web'")
LIMITS = takes.Limits(most_s=4.0, most_mb=1.0)


class Model:
    """Says one tone of a second, whatever it is shown."""

    model = None

    def within(self, run):
        self.run = run
        return self

    def __call__(self, path, *, num_samples, **options):
        with self.run.watch("features"):
            audio_L = 0.1 * np.sin(np.arange(16000, dtype=np.float32) / 8)
        mel_FT, path = np.zeros((8, 16), np.float32), Path(path)
        made = clip.Clip(audio_L, 16000, mel_FT, 1 / 16, {"steps": options["steps"]}, path)
        return [made] * num_samples


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from foley_jax.inference import web

    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "any_system", lambda *_, **__: Model())
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        blocks, address = web.serve("model", LIMITS, port=0, wait=False)
        yield folder, address.rstrip("/")
        blocks.close()


def _fill(driver, field, value):
    """Writes a number beside a slider."""
    driver.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "for (const n of ['input', 'change']) e.dispatchEvent(new Event(n, {bubbles: true}));",
        f"input[type=number][aria-label*='{field}']",
        value,
    )


def _begin(driver, address, path):
    """Opens the page, uploads a file and asks for two takes."""
    driver.get(address)
    browsers.wait(driver, lambda d: browsers.find(d, "button.primary"))
    browsers.wait(driver, lambda d: browsers.find(d, "input[type=file]"))[0].send_keys(str(path))
    browsers.wait(driver, lambda d: browsers.find(d, "video[src]"))
    _fill(driver, "steps", 2)
    _fill(driver, "takes", 2)
    browsers.find(driver, "button.primary")[0].click()


def _takes(driver):
    """The addresses of the takes' videos, when they are there."""
    links = browsers.find(driver, "a[download$='.mp4']")
    return sorted({link.get_attribute("href") for link in links}) if links else None


@pytest.mark.slow
def test_two_visitors_upload_play_and_download_their_own(server, tmp_path):
    _, address = server
    videos = tiny_foley.write_videos(tmp_path, [1.5, 2.0])
    with (
        browsers.chromium(1280, tmp_path) as desk,
        browsers.chromium(390, tmp_path) as phone,
    ):
        for driver, path in ((desk, videos[0]), (phone, videos[1])):
            _begin(driver, address, path)
        found = [browsers.wait(driver, _takes) for driver in (desk, phone)]
        assert len({*found[0], *found[1]}) >= 2 and found[0] != found[1]  # none of another's
        for driver, seconds in ((desk, 1.5), (phone, 2.0)):
            at_s, decoded = browsers.played(driver, "video")
            assert abs(at_s - seconds) < 0.1 and decoded > 1000
            page = driver.execute_script("return document.documentElement.scrollWidth")
            assert page <= driver.execute_script("return window.innerWidth")
        for suffix in ("mp4", "wav"):
            link = browsers.find(desk, f"a[download='take1.{suffix}']")[0]
            desk.execute_script("arguments[0].click()", link)
            saved = tmp_path / f"take1.{suffix}"
            browsers.wait(desk, lambda _, saved=saved: saved.is_file() and saved.stat().st_size)
            assert len(audio_io.load(saved, 16000)) == pytest.approx(1.5 * 16000, abs=1024)


@pytest.mark.slow
def test_a_broken_file_is_told_in_the_page(server, tmp_path):
    _, address = server
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"nothing" * 100)
    with browsers.chromium() as driver:
        _begin(driver, address, path)
        said = browsers.wait(driver, lambda d: browsers.find(d, ".toast-body"))[0].text
    assert "broken.mp4" in said and "/tmp" not in said


@pytest.mark.slow
def test_what_is_too_large_or_an_address_is_refused_at_once(server):
    _, address = server
    host, port = address.removeprefix("http://").split(":")
    for path, size in (("/gradio_api/upload", 2 * 10**9), ("/gradio_api/queue/join", 10**7)):
        with socket.create_connection((host, int(port)), timeout=20) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
            client.sendall(head.encode())
            assert b" 413 " in client.recv(200)  # before a byte of it was sent
    client = gradio_client.Client(address, verbose=False)
    video = {"path": "https://example.com/v.mp4", "meta": {"_type": "gradio.FileData"}}
    values = {"text": "", "negative_text": "", "seed": 1, "steps": 2, "guidance": 3.0, "takes": 1}
    values |= {"level_db": -60, "fade_s": 0.0, "video": video}
    with pytest.raises(Exception, match="an address was given"):
        client.predict(api_name="/audio_for_video", **values)


def _stream(address, head):
    host, port = address.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=30)
    client.sendall(f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\n{head}".encode())
    return client


PART = 'Content-Disposition: form-data; name="files"; filename="v{}.mp4"'


def _files(folder):
    return sorted(Path(at) / name for at, _, names in os.walk(folder) for name in names)


@pytest.mark.slow
def test_nothing_stays_of_what_was_not_uploaded_whole(server):
    folder, address = server
    before = _files(folder)
    head = "Content-Type: multipart/form-data; boundary=B\r\n"
    with _stream(address, f"{head}Content-Length: 900000\r\n\r\n") as client:
        client.sendall(f"--B\r\n{PART.format(1)}\r\n\r\n".encode() + bytes(500_000))
        time.sleep(0.5)  # and it leaves
    with _stream(address, f"{head}Transfer-Encoding: chunked\r\n\r\n") as client:
        for number in range(3):  # each within the limit, together beyond it
            part = f"--B\r\n{PART.format(number)}\r\n\r\n".encode() + bytes(900_000) + b"\r\n"
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        assert b" 413 " in client.recv(200)
    deadline = time.monotonic() + 20
    while _files(folder) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _files(folder) == before
