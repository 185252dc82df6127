"""The page's script, run by Node.js where it is there: order, resuming, sending, downloads."""

import json
from pathlib import Path
import shutil
import subprocess

import pytest

from foley_jax.evaluation.listening import answers, listening_page, questions, server
from tests.evaluation import listeners

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
BROWSER = Path(__file__).with_name("fake_browser.js")


@pytest.fixture(scope="module")
def made():
    return listeners.plan(num_items=2, num_seats=6)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    listening_page.write(out, answers.public("t1", "</script><b>", made))
    return out


def _browse(folder, *visits):
    job = {"page": (folder / "index.html").read_text(), "visits": visits}
    ended = subprocess.run(
        [NODE, str(BROWSER)], input=json.dumps(job), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def _visit(listener="anna", most=1000, online=True, **more):
    return {"listener": listener, "most": most, "online": online, **more}


def _expected(made, seat):
    asked = [(made.questions[a.question], a.flipped) for a in made.seats[seat]]
    return [[f"media/{clip}" for clip in q.clips[:: -1 if flip else 1]] for q, flip in asked]


@pytest.mark.parametrize("listener", ["anna", "bert-2", "Z_9", "a" * 40])
def test_a_listener_is_asked_what_the_plan_says(made, folder, listener):
    found = _browse(folder, _visit(listener))
    seat = questions.seat_of(listener, 6)
    assert [clips for _, clips in found["seen"]] == _expected(made, seat)
    assert found["early"] == 0  # nobody goes on before the clips were heard
    test = server.load_test(folder)
    given = [answers.parse(line, test) for line in found["sent"]]
    assert [a.question for a in given] == [made.questions[a.question].id for a in made.seats[seat]]
    assert {a.listener for a in given} == {listener} and {a.seat for a in given} == {seat}
    assert "All answers have arrived" in found["last"][-1]


def test_the_chosen_side_is_the_clip_that_is_answered(made, folder):
    found = _browse(folder, _visit())
    test = server.load_test(folder)
    for count, ((_, clips), line) in enumerate(zip(found["seen"], found["sent"])):
        answer = answers.parse(line, test)
        if len(clips) == 2:
            assert f"media/{answer.value}" == clips[count % 2]


def test_who_comes_back_goes_on_behind_the_last_answer(made, folder):
    found = _browse(folder, _visit(most=5), _visit(most=7), _visit())
    seat = questions.seat_of("anna", 6)
    assert [clips for _, clips in found["seen"]] == _expected(made, seat)
    assert len(found["sent"]) == len(set(found["sent"])) == len(made.seats[seat])


def test_another_listener_begins_at_the_start(made, folder):
    found = _browse(folder, _visit(most=5), _visit("bert", most=2))
    assert [c for _, c in found["seen"][5:]] == _expected(made, questions.seat_of("bert", 6))[:2]


def test_without_a_server_answers_are_downloaded(made, folder, tmp_path):
    found = _browse(folder, _visit(online=None))
    assert not found["sent"] and "Please download" in found["last"][-1]
    path = tmp_path / "answers_anna.jsonl"
    path.write_text(found["downloads"][0])
    given, complaints = answers.read([path], server.load_test(folder))
    assert len(given) == len(made.seats[0]) and not complaints


def test_what_was_not_sent_is_sent_later_and_once(made, folder):
    found = _browse(folder, _visit(most=6, online=False), _visit())
    assert len(found["sent"]) == len(set(found["sent"])) == len(made.seats[0])


def test_an_address_may_name_the_seat_and_what_cannot_be_played_is_said(made, folder):
    found = _browse(folder, _visit("deaf", search="?seat=4"))
    assert [clips for _, clips in found["seen"]] == _expected(made, 4)
    test = server.load_test(folder)
    assert {answers.parse(line, test).value for line in found["sent"]} == {"unplayable"}


def test_a_wrong_id_stays_at_the_door(folder):
    found = _browse(folder, _visit("no spaces"), _visit(""))
    assert not found["seen"] and "1 to 40 letters" in found["last"][0]
