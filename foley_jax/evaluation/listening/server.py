"""Serves a listening test's page and takes answers, with the standard library alone.

What can be asked for is a list made at the start: the page and the clips that its test names. No
path of a request is ever looked up on the disk, and no reply holds a path or an error's text.
"""

from collections.abc import Mapping
import http.server
import json
import os
from pathlib import Path
import re
import sys
import threading
from typing import BinaryIO
import urllib.parse

from foley_jax.evaluation.listening import answers

MOST_BODY = 64 * 1024  # bytes of one request; the page sends 50 answers of some 150 bytes
MOST_ANSWERS = 256 * 1024 * 1024  # bytes of the file of answers
MOST_DRAINED = 1024 * 1024  # bytes of a larger one that are read and dropped
PATIENCE_S = 30.0  # for a client that sends nothing
PIECE = 64 * 1024
ANSWERS_TYPE = "application/x-ndjson"
TYPES = {".html": "text/html; charset=utf-8", ".wav": "audio/wav", ".mp4": "video/mp4"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # the page's icon is an empty data address
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'",
}
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Refused(Exception):
    """A request that is not served: its status, and what the client is told."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status, self.why = status, why


class Store:
    """A file of answers, one line of JSON each, to which threads append.

    Args:
      path: of the file; made with its folder. What it holds stays.
      test: whose answers it takes.
    """

    def __init__(self, path: Path, test: answers.Test):
        self.path, self.test = path, test
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                file.write(b"\n")  # a server that was killed while it wrote

    def add(self, body: str) -> int:
        """Appends all answers of a request, or none; returns how many.

        Raises:
          Refused: a line is no answer, there is none, or the file is full.
        """
        try:
            found = [answers.parse(line, self.test) for line in body.splitlines() if line.strip()]
        except ValueError as error:
            raise Refused(400, str(error)) from error
        if not found:
            raise Refused(400, "no answers, expected one per line")
        records = (answers.record(answer, self.test.id) for answer in found)
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        with self._lock, self.path.open("ab") as file:
            if file.tell() + len(data) > MOST_ANSWERS:
                raise Refused(507, "the file of answers is full; tell whoever asked you")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return len(found)


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def load_test(folder: Path) -> answers.Test:
    """Reads the public part of a test from its page's folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is broken.
    """
    path = folder / answers.TEST_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, expected a folder that `make` wrote")
    return answers.Test.of(json.loads(path.read_text()))


def files_of(folder: Path, test: answers.Test) -> dict[str, Path]:
    """Returns what is served: path of a URL -> file.

    Raises:
      FileNotFoundError: a file of the test is missing.
    """
    clips = sorted({name for _, names in test.questions.values() for name in names})
    found = {"/": folder / "index.html", "/index.html": folder / "index.html"}
    found |= {f"/media/{name}": folder / "media" / name for name in clips}
    for path in found.values():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, copy the whole folder that `make` wrote")
    return found


def make(folder: Path, store: Path, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """Returns a server of a test, bound and not yet serving.

    Args:
      folder: of the page.
      store: file that answers are appended to; outside of `folder`.
      host, port: to bind to; port 0 is any free one.
    Raises:
      OSError: the port is taken.
      FileNotFoundError, ValueError: as `load_test` and `files_of`.
    """
    test = load_test(folder)
    handler = type(
        "Handler", (_Handler,), {"files": files_of(folder, test), "store": Store(store, test)}
    )
    return _Server((host, port), handler)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Tells of what went wrong, which a listener who breaks a connection off is not."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request.

    Attributes:
      files: path of a URL -> file.
      store: of answers.
    """

    files: Mapping[str, Path]
    store: Store
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "foley_jax", ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Serves the page or a clip, or a range of it."""
        self._reply(self._send_file)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._reply(self._send_file)

    def do_POST(self) -> None:
        """Takes answers."""
        self._reply(self._take_answers)

    def log_message(self, *_) -> None:
        """Writes nothing: requests of listeners are nobody's business."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Replies as all refusals are, also to what is not HTTP; the texts may quote a request."""
        self._send(code, _json({"error": "no such request here"}), "application/json", close=True)

    def _reply(self, act) -> None:
        try:
            act()
        except Refused as refused:
            # what the client still sends was not read: the connection cannot go on
            self._send(
                refused.status, _json({"error": refused.why}), "application/json", close=True
            )
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except OSError:
            why = "the server cannot read or write its files; tell whoever asked you"
            self._send(500, _json({"error": why}), "application/json", close=True)

    def _send(self, status: int, body: bytes, kind: str, close: bool = False, **more: str) -> None:
        self._head(status, kind, len(body), close, more)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(
        self, status: int, kind: str, length: int, close: bool, more: Mapping[str, str]
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def _send_file(self) -> None:
        path = self.files.get(urllib.parse.urlsplit(self.path).path)
        if path is None:
            raise Refused(404, "no such page")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last = _range(self.headers.get("Range", ""), size)
            more = {"Accept_Ranges": "bytes", "Cache_Control": "no-store"}
            if (first, last) != (0, size - 1):
                more["Content_Range"] = f"bytes {first}-{last}/{size}"
            left = last - first + 1
            kind = TYPES.get(path.suffix, "application/octet-stream")
            self._head(206 if "Content_Range" in more else 200, kind, left, False, more)
            if self.command == "HEAD":
                return
            file.seek(first)
            while left > 0 and (piece := file.read(min(PIECE, left))):
                self.wfile.write(piece)
                left -= len(piece)

    def _take_answers(self) -> None:
        if urllib.parse.urlsplit(self.path).path != "/answers":
            raise Refused(404, "no such page")
        # a page of another site cannot send this type without asking first
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != ANSWERS_TYPE:
            raise Refused(415, f"expected answers as {ANSWERS_TYPE}")
        stated = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", stated):
            raise Refused(411, "expected a Content-Length")
        if int(stated) > MOST_BODY:
            # a client that is still sending sees no reply, unless some of it is read
            for _ in range(min(int(stated), MOST_DRAINED) // PIECE):
                if not self.rfile.read(PIECE):
                    break
            raise Refused(413, f"{int(stated)} bytes, expected at most {MOST_BODY}")
        body = self.rfile.read(int(stated))
        if len(body) < int(stated):
            raise Refused(400, "the request ended early")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise Refused(400, "answers are not UTF-8") from error
        self._send(200, _json({"accepted": self.store.add(text)}), "application/json")


def _range(asked: str, size: int) -> tuple[int, int]:
    """First and last byte of what a client wants; all of it where it asks for something else."""
    found = RANGE.fullmatch(asked.strip())
    if not found or not any(found.groups()) or not size:
        return 0, size - 1
    first, last = found.groups()
    if not first and int(last):  # so many of the last bytes
        return max(0, size - int(last)), size - 1
    if not first or int(first) >= size or (last and int(last) < int(first)):
        raise Refused(416, "no such part of the file")
    return int(first), min(int(last), size - 1) if last else size - 1


def _json(node: object) -> bytes:
    return json.dumps(node).encode() + b"\n"
