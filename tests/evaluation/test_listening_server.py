"""The server of a listening test: its page, ranges, answers; and what it refuses."""

import http.client
import json
import math
import socket
import struct
import threading
import time

import numpy as np
import pytest
from scipy import stats

from foley_jax.evaluation.listening import __main__ as command
from foley_jax.evaluation.listening import answers, listening_page, questions, scoring, server
from tests.evaluation import listeners

CLIP = bytes(range(256)) * 4
TYPE = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def folder(tmp_path):
    made = listeners.plan(num_items=2, kinds=("quality",))
    out = tmp_path / "page"
    (out / "media").mkdir(parents=True)
    listening_page.write(out, answers.public("t1", "A <b> test", made))
    for question in made.questions:
        for name in question.clips:
            (out / "media" / name).write_bytes(CLIP)
    (out / "media" / "stranger.wav").write_bytes(b"not of the test")
    (tmp_path / "secret.txt").write_text("top secret")
    return out


@pytest.fixture
def running(folder):
    made = server.make(folder, folder.parent / "answers.jsonl", "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made.server_address
    made.shutdown()
    thread.join()
    made.server_close()


def _ask(address, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    found = reply.status, reply.read(), dict(reply.getheaders())
    connection.close()
    return found


def _answer(folder, **changes):
    asked = json.loads((folder / "test.json").read_text())["questions"]
    question = next(q["id"] for q in asked if q["kind"] == "quality")
    good = {"test": "t1", "listener": "anna", "seat": 0, "question": question, "answer": 4}
    return json.dumps({**good, "seconds": 2.0, **changes}) + "\n"


def test_the_page_and_its_clips_are_served(folder, running):
    status, body, headers = _ask(running, "GET", "/")
    assert status == 200 and body == (folder / "index.html").read_bytes()
    assert b"A &lt;b&gt; test" in body and b"A <b> test" not in body
    assert "Python" not in headers["Server"]
    assert _ask(running, "GET", "/index.html?seat=3")[0] == 200
    assert _ask(running, "GET", "/media/clip_good_0")[1] == CLIP
    status, body, headers = _ask(running, "HEAD", "/media/clip_good_0")
    assert status == 200 and body == b"" and headers["Content-Length"] == str(len(CLIP))


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-", 200, slice(None)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=1000-", 206, slice(1000, None)),
        ("bytes=1000-99999", 206, slice(1000, None)),
        ("bytes=-24", 206, slice(-24, None)),
        ("bytes=0-3,5-6", 200, slice(None)),
        ("bytes=2000-", 416, None),
        ("bytes=5-3", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_parts_of_a_clip_are_served(running, asked, status, part):
    found, body, headers = _ask(running, "GET", "/media/clip_good_0", headers={"Range": asked})
    assert found == status
    if part is not None:
        assert body == CLIP[part] and headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/media/../../secret.txt",
        "/media/%2e%2e/%2e%2e/secret.txt",
        "/media/..%2f..%2fsecret.txt",
        "/media//etc/passwd",
        "//etc/passwd",
        "/media/",
        "/media/stranger.wav",
        "/test.json",
        "/answers.jsonl",
        "/answers",
        "/media/clip_good_0%00",
        "/\\..\\secret.txt",
    ],
)
def test_nothing_else_is_served(folder, running, path):
    status, body, _ = _ask(running, "GET", path)
    assert status == 404
    assert b"secret" not in body and str(folder.parent).encode() not in body


def test_answers_are_appended_whole_or_not_at_all(folder, running):
    two = _answer(folder) + _answer(folder, listener="bert")
    status, body, _ = _ask(running, "POST", "/answers", two, TYPE)
    assert (status, json.loads(body)) == (200, {"accepted": 2})
    status, body, _ = _ask(running, "POST", "/answers", _answer(folder) + "{}\n", TYPE)
    assert status == 400 and "other fields" in json.loads(body)["error"]
    kept = (folder.parent / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["listener"] for line in kept] == ["anna", "bert"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/answers", "x" * (server.MOST_BODY + 1), TYPE, 413),
        ("/answers", "x" * 3_000_000, TYPE, 413),
        ("/answers", "\n\n", TYPE, 400),
        ("/answers", b"\xff\xfe", TYPE, 400),
        ("/answers", "[" * 5000, TYPE, 400),
        ("/answers", "{}", {"Content-Type": "text/plain"}, 415),
        ("/answers", "{}", {**TYPE, "Content-Length": "-1"}, 411),
        ("/answers", "{}", {**TYPE, "Content-Length": "a"}, 411),
        ("/elsewhere", "{}", TYPE, 404),
    ],
)
def test_bad_requests_are_refused_without_a_path(folder, running, path, body, headers, status):
    try:
        found, reply, _ = _ask(running, "POST", path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        assert len(body) > 1_000_000  # the server did not wait for the end
        found = status
        reply = b""
    assert found == status
    assert str(folder.parent).encode() not in reply and b"Traceback" not in reply
    assert (folder.parent / "answers.jsonl").read_text() == ""
    assert _ask(running, "GET", "/")[0] == 200  # it goes on


def test_what_is_no_http_is_refused_without_being_quoted(folder, running):
    with socket.create_connection(running, timeout=10) as connection:
        connection.sendall(b"BREW /<script> HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = connection.recv(4096)
    assert b"501" in reply and b"script" not in reply and b"BREW" not in reply


def test_a_lost_file_is_told_without_its_path(folder, running):
    (folder / "media/clip_good_0").unlink()
    status, body, _ = _ask(running, "GET", "/media/clip_good_0")
    assert status == 500 and str(folder).encode() not in body and b"clip_good" not in body


def test_many_listeners_at_once_lose_nothing(folder, running):
    def send(k):
        for _ in range(5):
            _ask(running, "POST", "/answers", _answer(folder, listener=f"p{k}") * 3, TYPE)

    threads = [threading.Thread(target=send, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (folder.parent / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 8 * 5 * 3
    given, complaints = answers.read([folder.parent / "answers.jsonl"], server.load_test(folder))
    assert len(given) == 8 and not complaints


def test_a_line_cut_off_by_a_kill_costs_itself_alone(folder):
    path = folder.parent / "answers.jsonl"
    path.write_text(_answer(folder) + '{"test": "t')
    store = server.Store(path, server.load_test(folder))
    assert store.add(_answer(folder, listener="bert")) == 1
    given, complaints = answers.read([path], store.test)
    assert [a.listener for a in given] == ["anna", "bert"] and len(complaints) == 1


def test_a_folder_that_is_no_test_is_refused(tmp_path, folder, capsys):
    (tmp_path / "empty").mkdir()
    assert command.main(["serve", str(tmp_path / "empty"), f"--answers={tmp_path / 'a'}"]) == 1
    assert "test.json is not there" in capsys.readouterr().err
    assert command.main(["serve", str(folder), f"--answers={folder / 'a.jsonl'}"]) == 1
    assert "outside it" in capsys.readouterr().err
    assert command.parser().parse_args(["serve", "x", "--answers=y"]).host == "127.0.0.1"


def test_known_preferences_among_three_systems_arrive_and_are_found(tmp_path):
    """True audio, generated audio and that of wrong pairs: sent to the server, read and scored."""
    known = {"real": 0.9, "ours": 0.2, "shuffled": -1.1}  # their mean is 0
    made = listeners.plan(systems=tuple(known), kinds=(questions.PREFERENCE,), num_items=16)
    key, out = listeners.key_of(made, systems=known), tmp_path / "page"
    (out / "media").mkdir(parents=True)
    listening_page.write(out, answers.public("t1", "three systems", made))
    for name in {name for question in made.questions for name in question.clips}:
        (out / "media" / name).write_bytes(CLIP)
    rng, path = np.random.default_rng(3), tmp_path / "answers.jsonl"
    with server.make(out, path, "127.0.0.1", 0) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        for k in range(24):
            person = listeners.Listener(f"p{k}", known, {}, {}, rng)
            lines = (answers.record(one, "t1") for one in person.all_of(made))
            body = "".join(json.dumps(line) + "\n" for line in lines)
            assert _ask(running.server_address, "POST", "/answers", body, TYPE)[0] == 200
        running.shutdown()
    given, complaints = answers.read([path], key.test)
    assert not complaints and len({one.listener for one in given}) == 24
    scores = scoring.score(key, given)
    for system, strength in known.items():
        figures = scores.figures[questions.PREFERENCE][system]
        low, high = figures["strength_low"], figures["strength_high"]
        # three deviations, so that no seed must be chosen
        assert low - (high - low) / 4 < strength < high + (high - low) / 4, (system, figures)
        assert high - low < 0.6
        for other in known.keys() - {system}:
            won, lost = scores.wins[system][other], scores.wins[other][system]
            interval = stats.binomtest(won, won + lost).proportion_ci(0.997)
            expected = 1 / (1 + math.exp(known[other] - strength))
            assert interval.low < expected < interval.high, (system, other, won, lost)


def test_a_connection_that_is_broken_off_is_no_error(running, capfd):
    at_once, threads = struct.pack("ii", 1, 0), threading.active_count()  # closing resets it
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(running) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            client.sendall(said)
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)  # until each was noticed
    assert _ask(running, "GET", "/")[0] == 200
    assert capfd.readouterr().err == ""
