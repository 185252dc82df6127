"""Notices at once that another process of the same run is gone, and ends this one with one line.

A process whose partner died waits in a collective for ever, or until jax's heartbeat gives up
(100 s) and aborts it under pages of stack traces. Here every process keeps a connection to process
0, which the operating system closes when a process dies, however it dies. Who leaves in good order
says so first. A machine that lost its power is noticed by TCP's keep-alive, in about a minute.
"""

from collections.abc import Callable, Sequence
import ctypes
import json
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time

from jax._src import distributed  # the only way to the coordinator's key-value store

REACH_S = 10.0  # to connect to process 0
PATIENCE_S = 2.0  # between the failure of a collective and the news of its cause
_BYE = b"bye"
_CARD = "foley_jax/peers"  # key of process 0's addresses, port and token
CARD_S = 300.0
_TOKEN_BYTES = 16
_KEEP_ALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
_watch: "Watch | None" = None


class Watch:
    """The connections of one process; its threads end the process when another one is gone.

    Args:
      index: of this process.
      count: of all processes.
      end: what to call with the line that says who is gone.
    """

    def __init__(self, index: int, count: int, end: Callable[[str], None]):
        self.index, self.count, self._end = index, count, end
        self._links: dict[int, socket.socket] = {}  # by the index of the process at the other end
        self._lock = threading.Lock()
        self._over = False
        self._server: socket.socket | None = None

    def listen(self) -> int:
        """Opens the port of process 0; returns its number."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        return self._server.getsockname()[1]

    def welcome(self, token: bytes) -> None:
        """Lets the others in, in a thread of its own."""
        self._start(self._accept, token)

    def _accept(self, token: bytes) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except OSError:  # closed: the run is over
                return
            try:
                link.settimeout(REACH_S)
                card = _read(link, _TOKEN_BYTES + 4)
                if not secrets.compare_digest(card[:_TOKEN_BYTES], token):
                    raise OSError("not of this run")
                (index,) = struct.unpack("!i", card[_TOKEN_BYTES:])
                link.sendall(token)
            except OSError:
                link.close()
                continue
            self._follow(index, link)

    def call(self, hosts: Sequence[str], port: int, token: bytes) -> bool:
        """Connects to process 0 at one of its addresses; False if it cannot be reached."""
        for host in hosts:
            try:
                link = socket.create_connection((host, port), timeout=REACH_S)
            except OSError:
                continue
            try:
                link.sendall(token + struct.pack("!i", self.index))
                if secrets.compare_digest(_read(link, _TOKEN_BYTES), token):
                    self._follow(0, link)
                    return True
            except OSError:
                pass
            link.close()
        return False

    def _follow(self, index: int, link: socket.socket) -> None:
        link.settimeout(None)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with self._lock:
            self._links[index] = link
        self._start(self._read_on, index, link)

    def _read_on(self, index: int, link: socket.socket) -> None:
        try:
            with link.makefile("rb") as lines:
                news = lines.readline()
        except OSError:
            news = b""
        with self._lock:
            if self._over:
                return
            if news.strip() == _BYE:
                del self._links[index]
                return
            self._over = True
        text = news.decode(errors="replace").strip()
        text = text or (
            f"process {index} of {self.count} has died; the same command, started on all again, "
            "continues from the last checkpoint"
        )
        self._tell(text.encode())
        self._end(text)

    def _tell(self, news: bytes) -> None:
        """A line for all that this process is connected to."""
        for link in list(self._links.values()):
            try:
                link.sendall(news + b"\n")
                link.close()
            except OSError:
                pass

    def leave(self, failure: str | None = None) -> None:
        """Says goodbye, or why this process fails, and watches no more."""
        with self._lock:
            if self._over:
                return
            self._over = True
        news = _BYE
        if failure is not None:
            news = f"process {self.index} of {self.count} failed: {failure}".encode()
        self._tell(news.replace(b"\n", b" "))
        if self._server is not None:
            self._server.close()

    def _start(self, target, *args) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()


def watch() -> None:
    """Starts to watch the other processes of this run; all call it, after they have joined."""
    global _watch
    state = distributed.global_state
    if state.client is None or state.num_processes == 1:
        return
    _watch = Watch(state.process_id, state.num_processes, _end)
    if sys.platform == "linux":
        _delay_abort()
    store = distributed.global_state.client
    if _watch.index == 0:
        token = secrets.token_bytes(_TOKEN_BYTES)
        card = {"hosts": _own_addresses(), "port": _watch.listen(), "token": token.hex()}
        _watch.welcome(token)
        store.key_value_set(_CARD, json.dumps(card))
        return
    card = json.loads(store.blocking_key_value_get(_CARD, int(1000 * CARD_S)))
    if not _watch.call(card["hosts"], card["port"], bytes.fromhex(card["token"])):
        print(
            f"process {_watch.index} cannot reach process 0 at {card['hosts']}, port "
            f"{card['port']}: should another process die, it is noticed after 100 s only",
            file=sys.stderr,
        )


def _delay_abort() -> None:
    """Gives the line about a dead process 0 the time to appear.

    jax aborts at the same moment, from a thread of its own that waits for nobody. With libc's
    `sleep` as the signal's handler that thread first sleeps for 6 s: the signal's number.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _own_addresses() -> list[str]:
    """Names under which others may find this machine, the likeliest first."""
    found = []
    coordinator = os.environ.get("JAX_COORDINATOR_ADDRESS", "").rpartition(":")[0].strip("[]")
    if coordinator:
        found.append(coordinator)
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))  # sends nothing; chooses the way out
                found.append(probe.getsockname()[0])
        except OSError:
            continue
    return [*dict.fromkeys([*found, socket.gethostname()])][:6]


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = link.recv(count - len(data))
        if not more:
            raise OSError("closed early")
        data += more
    return data


def _end(news: str) -> None:
    """Ends this process at once: its main thread may wait for the other for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    # jax's threads write to descriptor 2 until the end; nothing shall stand behind this line
    own = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(own, f"\nerror: {news}\n".encode())
    os._exit(1)


def leave() -> None:
    """Tells the others that this process ends in good order."""
    if _watch is not None:
        _watch.leave()


def give_way(patience_s: float = PATIENCE_S) -> None:
    """For a process that failed: where another one is gone, that is why, and this one ends here.

    Collectives fail a moment before or after the connection closes. Returns at once where nobody
    is watched, after `patience_s` where all others live.
    """
    if _watch is not None:
        time.sleep(patience_s)


def end(failure: str) -> None:
    """Ends a process that failed alone, and the others, which would wait for it.

    Returns where nobody is watched.

    Args:
      failure: one line, which the others show.
    """
    if _watch is None:
        return
    _watch.leave(failure)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
