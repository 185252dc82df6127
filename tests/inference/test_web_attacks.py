"""What the page's server does with those who mean it ill, or leave; the model is a stand-in."""

import concurrent.futures
import contextlib
import json
import os
from pathlib import Path
import socket
import time
import urllib.error
import urllib.request

import av
import numpy as np
import pytest
import tiny_foley

from tests.inference import standing_in

gradio_client = pytest.importorskip("gradio_client", reason="needs the extra 'web'")
WAITING = 20  # requests in the queue
OTHER_VALUES = ["", "", 1, 2, 3.0, 1, -60, 0, 0, 0, 1]  # of the form, after the video


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The folder of uploads, the address, and the model."""
    folder, model = tmp_path_factory.mktemp("server") / "uploads", standing_in.Model()
    with standing_in.served(folder, model, waiting=WAITING) as address:
        yield folder, address, model


@pytest.fixture
def video(tmp_path):
    return gradio_client.handle_file(str(tiny_foley.write_videos(tmp_path, [1.0])[0]))


@pytest.mark.slow
def test_what_is_too_large_or_an_address_is_refused_at_once(server):
    _, address, _ = server
    host, port = address.removeprefix("http://").split(":")
    for path, size in (("/gradio_api/upload", 2 * 10**9), ("/gradio_api/queue/join", 10**7)):
        with socket.create_connection((host, int(port)), timeout=20) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
            client.sendall(head.encode())
            assert b" 413 " in client.recv(200)  # before a byte of it was sent
    client = gradio_client.Client(address, verbose=False)
    video = {"path": "https://example.com/v.mp4", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="an address was given"):
        standing_in.ask(client, video).result()


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
    folder, address, _ = server
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../../evil.mp4", "..", "/etc/evil.mp4", "..\\\\evil.mp4"])
def test_a_file_lies_in_the_folder_of_uploads_whatever_its_name(server, name):
    folder, address, _ = server
    body = f'--B\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        body.encode() + b"nothing\r\n--B--\r\n",
        {"Content-Type": "multipart/form-data; boundary=B"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            stored = [Path(path).resolve() for path in json.load(answer)]
    except urllib.error.HTTPError as error:
        stored = []
        assert error.code in (400, 422)
    assert all(path.is_relative_to(folder.resolve()) for path in stored)
    assert not [path for path in _files(folder.parent) if not path.is_relative_to(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["{folder}.mp4", "{folder}/../uploads.mp4", "/etc/passwd", "../x"])
def test_no_file_of_the_machine_is_taken_for_an_upload(server, path):
    """Asked without gradio's client, which would look for the file on its own side."""
    folder, address, model = server
    folder.with_suffix(".mp4").write_bytes(b"a secret beside the uploads")
    begun, named = model.begun, path.format(folder=folder)
    for video in ({"path": named}, {"path": named, "url": f"file://{named}"}):
        values = [video | {"meta": {"_type": "gradio.FileData"}}, *OTHER_VALUES]
        event = _posted(f"{address}/gradio_api/call/audio_for_video", {"data": values})["event_id"]
        with urllib.request.urlopen(
            f"{address}/gradio_api/call/audio_for_video/{event}", timeout=30
        ) as answer:
            assert answer.read() == b'event: error\ndata: {"error": null}\n\n'
    assert model.begun == begun


@pytest.mark.slow
def test_a_small_file_of_huge_frames_is_refused(server, tmp_path):
    _, address, model = server
    path, begun = tmp_path / "bomb.mp4", model.begun
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, width=4096, height=4096, pix_fmt="yuv420p")
        stream.options = {"preset": "ultrafast"}
        frame = av.VideoFrame.from_ndarray(np.zeros((4096 * 3 // 2, 4096), np.uint8), "yuv420p")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    client = gradio_client.Client(address, verbose=False)
    with pytest.raises(Exception, match="its frames are 4096x4096, at most 9,437,184 pixels"):
        standing_in.ask(client, gradio_client.handle_file(str(path))).result()
    assert model.begun == begun


@pytest.mark.slow
def test_of_fifty_requests_at_once_those_beyond_the_queue_are_told(server, video):
    _, address, model = server
    client = gradio_client.Client(address, verbose=False, max_workers=60)
    model.go.clear()
    jobs = [standing_in.ask(client, video) for _ in range(50)]
    deadline = time.monotonic() + 60
    while sum(job.done() for job in jobs) < 50 - WAITING - 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    model.go.set()
    concurrent.futures.wait([job.future for job in jobs], timeout=60)
    errors = [str(job.exception(timeout=1)) for job in jobs if job.exception(timeout=1)]
    # one is worked on while the others come
    assert WAITING <= len(jobs) - len(errors) <= WAITING + 1
    assert all("queue is full" in error.lower() for error in errors)
    assert model.most == 1
    assert standing_in.ask(client, video).result(60)[-1].keys() == {"take 1"}  # it goes on


@pytest.mark.slow
@pytest.mark.parametrize("is_tab", [True, False])
def test_one_who_leaves_holds_up_nobody(server, video, is_tab):
    """Closes the connection while the take is made, as a closed tab does, or a plain client.

    A tab has a connection that says that it is open; the take of one that is closed is ended.
    """
    _, address, model = server
    client, begun, made = gradio_client.Client(address, verbose=False), model.begun, model.made
    model.go.clear()
    values = [_uploaded(address, Path(video["path"])), *OTHER_VALUES]
    asked = {"data": values} | ({"session_hash": "a_tab"} if is_tab else {})
    with contextlib.ExitStack() as tab:
        if is_tab:
            tab.enter_context(_listening(address, "heartbeat/a_tab"))
        event = _posted(f"{address}/gradio_api/call/audio_for_video", asked)["event_id"]
        tab.enter_context(_listening(address, f"call/audio_for_video/{event}"))
        deadline = time.monotonic() + 20
        while model.begun == begun and time.monotonic() < deadline:
            time.sleep(0.05)
    assert model.begun == begun + 1
    if is_tab:
        assert model.run.watch.left.wait(20)
    job = standing_in.ask(client, video)
    model.go.set()
    assert job.result(30)[-1].keys() == {"take 1"}
    assert model.made - made == (1 if is_tab else 2)


def _listening(address, path):
    """A connection on which the server is asked to go on telling."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(f"GET /gradio_api/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return connection


def _uploaded(address, path):
    """Uploads a file; returns how a request names it."""
    body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="v.mp4"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    (stored,) = _posted(
        f"{address}/gradio_api/upload", body + path.read_bytes() + b"\r\n--B--\r\n", kind
    )
    return {"path": stored, "meta": {"_type": "gradio.FileData"}}


def _posted(address, body, headers=None):
    """The JSON that a request is answered with."""
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:
        return json.load(answer)
