"""A listening test in a real browser: answered by a script, left and resumed, scored by command."""

import contextlib
import json
import threading

import numpy as np
import pytest

from foley_jax.evaluation.listening import __main__ as command
from foley_jax.evaluation.listening import server
from foley_jax.media import audio as audio_io
from tests import browsers
from tests.media import media_files

ITEMS, RATE = ("a", "b", "c"), 16000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A test of recordings, of hits that are a little late, and of another clip's."""
    folder = tmp_path_factory.mktemp("listening")
    for item, name in enumerate(ITEMS):
        (folder / "true").mkdir(exist_ok=True)
        media_files.write(folder / "true" / f"{name}.mp4", seconds=0.8, times_s=(0.3,))
        for system, at_s in (("ours", 0.3 + 0.1 * item), ("shuffled", 0.6 - 0.1 * item)):
            (folder / system).mkdir(exist_ok=True)
            audio_L = media_files.clicks([at_s], 0.8, RATE)
            audio_io.write_wav(folder / system / f"{name}.wav", audio_L, RATE)
    words = ["make", f"--real={folder / 'true'}", f"--system=ours={folder / 'ours'}"]
    words += [f"--system=shuffled={folder / 'shuffled'}", f"--out={folder / 'page'}"]
    words += ["--per_listener=7", "--checks=1", "--orders=2", "--height=48", "--rate=16000"]
    assert command.main(words) == 0
    return folder


class Person:
    """Answers as who hears whose clip it is: recordings are real, best, and preferred."""

    STRENGTH = ("shuffled", "ours", "real")

    def __init__(self, folder):
        key = json.loads((folder / "page.key.json").read_text())
        self.of = {name: clip["system"] for name, clip in key["clips"].items()}
        self.checks = {q["clips"][0]: q["expected"] for q in key["questions"] if q["expected"]}
        self.kinds = set()

    def option(self, question, clips):
        """Number of the option."""
        if clips[0] in self.checks:
            self.kinds.add("attention")
            return self.checks[clips[0]] - 1
        marks = [self.STRENGTH.index(self.of[clip]) for clip in clips]
        kind = next(word for word in ("prefer", "recording", "quality", "sync") if word in question)
        self.kinds.add(kind)
        if kind == "prefer":
            return int(np.argmax(marks))
        return int(marks[0] < 2) if kind == "recording" else 2 * marks[0]


HEARD = """
const done = arguments[0], media = [...document.querySelectorAll("audio, video")];
Promise.all(media.map((one) => new Promise((ended, failed) => {
  one.addEventListener("ended", ended);
  one.addEventListener("error", () => failed(one.error.message));
  one.playbackRate = 4;
  one.play().catch(failed);
}))).then(() => done(media.map((one) => one.src.split("/").pop())), (why) => done(String(why)));
"""


def _enter(driver, address, listener):
    driver.get(address)
    box = browsers.wait(driver, lambda d: browsers.find(d, "#listener"))[0]
    box.clear()
    box.send_keys(listener)
    browsers.find(driver, "button")[0].click()


def _answer(driver, person):
    """Hears all clips of a question and answers it; returns its text of where it stands."""
    stands = browsers.find(driver, "p.soft")[0].text
    go = browsers.find(driver, "fieldset + button")[0]
    assert not go.is_enabled()
    clips = driver.execute_async_script(HEARD)
    assert isinstance(clips, list), clips
    question = browsers.find(driver, "legend")[0].text
    browsers.find(driver, "label.option input")[person.option(question, clips)].click()
    assert go.is_enabled()
    go.click()
    return stands


@contextlib.contextmanager
def _served(folder):
    running = server.make(folder / "page", folder / "answers.jsonl", "127.0.0.1", 0)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield "http://{}:{}/".format(*running.server_address[:2])
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.slow
def test_a_listener_stops_comes_back_and_is_scored(made):
    person = Person(made)
    with _served(made) as address, browsers.chromium(390) as driver:
        _enter(driver, address, "anna")
        first = [_answer(driver, person) for _ in range(3)]
        _enter(driver, address, "anna")  # the page loaded anew
        later = [_answer(driver, person) for _ in range(5)]
        told = browsers.wait(driver, lambda d: "have arrived" in d.page_source)
        assert told and [*first, *later] == [f"Question {n} of 8" for n in range(1, 9)]
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    score = ["score", str(made / "answers.jsonl"), f"--key={made / 'page.key.json'}"]
    assert command.main([*score, f"--out={made / 'report'}"]) == 0
    found = json.loads((made / "report" / "metrics.json").read_text())
    assert found["listeners"] == ["anna"] or "anna" in found["listeners"]
    assert not found["excluded"] and "attention" in person.kinds and len(person.kinds) > 2
    wins = found["wins"]
    assert not wins or wins["real"].get("shuffled", 0) >= wins["shuffled"].get("real", 0)


@pytest.mark.slow
def test_a_page_from_the_disk_gives_a_file_that_is_scored(made, tmp_path):
    person = Person(made)
    with browsers.chromium(1280, tmp_path) as driver:
        _enter(driver, (made / "page" / "index.html").as_uri() + "?seat=1", "bert")
        while browsers.find(driver, "fieldset"):
            _answer(driver, person)
        browsers.find(driver, "button")[0].click()
        path = tmp_path / "answers_bert.jsonl"
        browsers.wait(driver, lambda _: path.is_file() and path.stat().st_size)
    score = ["score", str(path), f"--key={made / 'page.key.json'}", f"--out={tmp_path / 'report'}"]
    assert command.main(score) == 0
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert "bert" in found["listeners"] and "real" in found["figures"]
    shares = {name: row["mean"] for name, row in found["figures"]["real"].items()}
    assert all(share == float(name == "real") for name, share in shares.items())
