"""Processes of one run hear of each other's end; here two ends of the connection in one process."""

import contextlib
import queue
import re
import secrets
import socket

import forked
import pytest

from foley_jax.runtime import watchdog

WAIT_S = 20


class Circle:
    """`count` watches that are connected as those of a run, and what each would end with."""

    def __init__(self, count):
        self.news = queue.Queue()
        self.token = secrets.token_bytes(16)

        def watch(index):
            return watchdog.Watch(index, count, lambda text: self.news.put((index, text)))

        self.watches = [watch(index) for index in range(count)]
        self.port = self.watches[0].listen()
        self.watches[0].welcome(self.token)
        for other in self.watches[1:]:
            assert other.call(["no.such.host.invalid", "127.0.0.1"], self.port, self.token)

    def heard(self, count):
        """The next `count` endings, by process."""
        return dict(self.news.get(timeout=WAIT_S) for _ in range(count))

    def die(self, index):
        """Returns what the operating system does with the connections of a dead process."""
        for link in self.watches[index]._links.values():
            link.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def circle():
    made = Circle(4)
    yield made
    for watch in made.watches:
        watch.leave()


def test_all_hear_of_a_death_that_only_process_0_sees(circle):
    circle.watches[2]._over = True  # a dead process hears nothing
    circle.die(2)
    heard = circle.heard(3)
    assert set(heard) == {0, 1, 3}
    assert all(re.match("process 2 of 4 has died; the same command", x) for x in heard.values())


def test_all_see_the_death_of_process_0(circle):
    circle.watches[0]._over = True
    circle.die(0)
    heard = circle.heard(3)
    assert set(heard) == {1, 2, 3}
    assert all(x.startswith("process 0 of 4 has died") for x in heard.values())


@pytest.mark.parametrize("index", [0, 3])
def test_who_fails_says_why(circle, index):
    circle.watches[index].leave("no room\nat all")
    heard = circle.heard(3)
    assert set(heard) == {0, 1, 2, 3} - {index}
    assert set(heard.values()) == {f"process {index} of 4 failed: no room at all"}


def test_who_leaves_in_good_order_ends_nobody(circle):
    circle.watches[1].leave()
    circle.watches[1].leave("too late")  # only the first word counts
    circle.watches[3]._over = True
    circle.die(3)
    heard = circle.heard(2)  # 0 and 2: the others are gone
    assert set(heard) == {0, 2} and all("process 3 of 4" in x for x in heard.values())
    assert circle.news.empty()


def test_strangers_are_not_let_in(circle):
    stranger = watchdog.Watch(2, 4, lambda text: None)
    assert not stranger.call(["127.0.0.1"], circle.port, b"x" * 16)
    with socket.create_connection(("127.0.0.1", circle.port), timeout=WAIT_S) as link:
        link.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(20))
        link.settimeout(WAIT_S)
        with contextlib.suppress(ConnectionResetError):  # it has closed without reading all
            assert link.recv(1) == b""
    assert circle.news.empty()


def test_unreachable_process_0(circle):
    lonely = watchdog.Watch(1, 2, lambda text: None)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not lonely.call(["127.0.0.1"], port, circle.token)


def test_a_process_alone_watches_nobody():
    watchdog.watch()
    watchdog.leave()
    watchdog.give_way(60.0)  # at once
    watchdog.end("nobody to tell")
    assert watchdog._watch is None


def test_error_of_one_process_is_a_line_of_both(toy_data, tmp_path):
    """One of two finds no data; the other would wait for it in its first step."""
    config = forked.HERE / "toy_config.py"
    commands = [
        [f"--config={config}:{data}", f"--workdir={tmp_path / 'run'}"]
        for data in (toy_data, tmp_path / "empty")
    ]
    pair = forked.start_together(commands, tmp_path, count=2, devices=1)
    with forked.ended(*pair):
        assert [run.wait_end(60) for run in pair] == [1, 1]
    last = [run.output.rstrip().splitlines()[-1] for run in pair]
    assert last[1].startswith("error: ") and str(tmp_path / "empty") in last[1]
    assert last[0].startswith("error: process 1 of 2 failed: ") and "empty" in last[0]
