"""The page of a report: who is shown, in which order, with links that lead somewhere."""

import dataclasses
import html
import html.parser
from pathlib import Path
import re
import urllib.parse

import numpy as np
import pytest

from foley_jax.evaluation.pages import page, page_ranking, page_table
from foley_jax.evaluation.protocols import protocol
from foley_jax.evaluation.protocols import rules as rules_lib
from foley_jax.media import audio as audio_io
from tests.media import media_files

RATE = 16000
VOID = ("meta", "img", "input", "link", "br")


class Gap(rules_lib.Rules):
    """A protocol for tests: how far the peak of an audio clip is from the reference's."""

    name, key, ascending = "gap<1>", "error", False
    columns = {"error": "error"}

    def settings(self):
        return {"detector": {"lag_s": 0.25}, "note": "<none>"}

    def skipped(self):
        return {"FD & co": "no weights <vggish.pth>"}

    def extract_features(self, paths, what):
        return rules_lib.listen_each(
            paths, what, RATE, lambda audio_L: float(np.abs(audio_L).max())
        )

    def figures(self, heard, reference):
        errors = [abs(heard[n] - reference[n]) for n in heard]
        return {"clips": len(heard), "error": float(np.mean(errors))}

    def row(self, heard, reference):
        error = abs(heard - reference)
        return {"error": error if error < 0.7 else float("nan"), "count": 3, "tiny": 2e-5}


class Elements(html.parser.HTMLParser):
    """All elements; fails where the tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def find(self, *tags):
        return [attributes for tag, attributes in self.all if tag in tags]


def _tone(folder, name, level, seconds=0.4):
    folder.mkdir(exist_ok=True, parents=True)
    time = np.arange(round(seconds * RATE) - RATE // 5)
    struck = level * np.cos(time) * np.exp(-time / 400)  # an onset, and no click at the end
    audio = np.concatenate([np.zeros(RATE // 5), struck]).astype(np.float32)
    audio_io.write_wav(folder / f"{name}.wav", audio, RATE)


def _cards(text):
    """Titles of the items, in order."""
    return [html.unescape(t) for t in re.findall(r"<h5>(.*?)</h5>", text)]


def _targets(folder, text):
    """Files that the page's players and images point to."""
    elements = Elements(text)
    urls = [a["src"] for a in elements.find("video", "audio", "img")]
    assert urls and not any(":" in url or url.startswith("/") for url in urls)
    return [folder / urllib.parse.unquote(url) for url in urls]


@pytest.fixture
def small(monkeypatch):
    """One item at either end: fewer images."""
    monkeypatch.setattr("foley_jax.evaluation.pages.page_cards.SHOWN", 1)


@pytest.fixture
def folders(tmp_path):
    """Six items; names that need escapes, a broken, a missing and an incomparable one."""
    names = ("a #1 <b>?", "mid", "bad", "gone", "far", "good%20")
    for name in names:
        _tone(tmp_path / "true audio clips", name, 0.8)
    ours = tmp_path / "our #1"
    for name, level in {"a #1 <b>?": 0.3, "mid": 0.6, "far": 0.0, "good%20": 0.79}.items():
        _tone(ours, name, level)
    (ours / "bad.wav").write_bytes(b"broken")
    return tmp_path / "true audio clips", ours


@pytest.fixture
def result(folders):
    return protocol.evaluate(Gap(), {'ours <"&|">': [folders[1]]}, folders[0])


def test_page_says_what_was_judged_and_what_is_missing(tmp_path, result, small):
    path = page.write(tmp_path / "report", Gap(), result)
    assert path == tmp_path / "report" / "index.html"
    text = path.read_text()
    Elements(text)
    assert "<b>?" not in text and "<vggish" not in text and "<none>" not in text
    shown = html.unescape(text)
    assert "protocol <code>gap<1></code>" in shown
    assert 'ours <"&|">, our #1: 4 of 6 scored; 1 missing (gone), 1 unreadable (bad)' in shown
    assert "FD & co</dt><dd>no weights <vggish.pth>" in shown
    assert "detector.lag_s</dt><dd>0.25" in shown
    error = result.figures['ours <"&|">']["error"]
    assert f'ours <"&|"></th><td class="number">4</td><td class="number">{error:.3f}' in shown


def test_worst_and_best_by_the_key_and_its_direction(tmp_path, result, small):
    text = page.write(tmp_path, Gap(), result).read_text()
    assert _cards(text) == ["a #1 <b>?", "good%20"]  # a larger error is worse
    assert "<b>error 0.500</b> · count 3 · tiny 2.0e-05" in text
    assert "(smaller is better)" in text

    class Upwards(Gap):
        ascending = True

    text = page.write(tmp_path, Upwards(), result).read_text()
    assert _cards(text) == ["good%20", "a #1 <b>?"] and "(larger is better)" in text


def test_items_without_a_figure_are_listed_with_the_reason(tmp_path, result, small):
    text = html.unescape(page.write(tmp_path, Gap(), result).read_text())
    found = text[text.index("<details>") : text.index("</details>")]
    assert "3 without <code>error</code>" in found and "<li>gone: missing</li>" in found
    assert re.search("<li>bad: .*not a readable media file", found)
    assert "<li>far: silent</li>" in found  # its figure is nan


def test_links_lead_to_files(tmp_path, result, small):
    text = page.write(tmp_path / "in" / "a report", Gap(), result).read_text()
    targets = _targets(tmp_path / "in" / "a report", text)
    assert all(path.is_file() for path in targets)
    assert tmp_path / "our #1" / "a #1 <b>?.wav" in [path.resolve() for path in targets]
    assert len(targets) == 2 * 4  # two items, two sides, a player and an image each


def test_a_copied_page_stands_alone(tmp_path, result, small):
    page.write(tmp_path / "report", Gap(), result, copy=True)
    moved = (tmp_path / "report").rename(tmp_path / "sent")
    for folder in ("true audio clips", "our #1"):
        (tmp_path / folder).rename(tmp_path / f"{folder} away")
    targets = _targets(moved, (moved / "index.html").read_text())
    assert all(path.resolve().is_relative_to(moved) and path.is_file() for path in targets)
    audio_clips = [path for path in targets if path.suffix == ".wav"]
    away = tmp_path / "our #1 away" / "a #1 <b>?.wav"
    assert audio_clips[1].read_bytes() == away.read_bytes()


def test_images_and_players_have_words(tmp_path, result, small):
    elements = Elements(page.write(tmp_path, Gap(), result).read_text())
    assert elements.find("html")[0]["lang"] == "en"
    alts = [a["alt"] for a in elements.find("img")]
    assert alts[0] == "Log-mel of the reference of a #1 <b>?: 1 onset at 0.20 s"
    assert all(a["aria-label"] for a in elements.find("audio", "video"))


def test_media_that_vanish_or_break_leave_a_reason(tmp_path, result, folders, small):
    (folders[1] / "a #1 <b>?.wav").write_bytes(b"broken now")
    (folders[0] / "good%20.wav").unlink()
    text = html.unescape(page.write(tmp_path, Gap(), result).read_text())
    assert "no image of its audio: a #1 <b>?.wav: not a readable media file" in text
    assert "good%20.wav is no longer there" in text
    assert str(tmp_path) not in text


def test_videos_beside_audio_and_silent_images(tmp_path, small):
    media_files.write((tmp_path / "true").with_suffix(".mp4"), seconds=0.5, times_s=(0.25,))
    (tmp_path / "true").mkdir()
    (tmp_path / "true.mp4").rename(tmp_path / "true" / "clip.mp4")
    _tone(tmp_path / "ours", "clip", 0.3)
    media_files.write(tmp_path / "ours" / "clip.mp4", seconds=0.5, audio=False)
    found = protocol.evaluate(Gap(), {"ours": [tmp_path / "ours"]}, tmp_path / "true")
    out = tmp_path / "report"
    text = page.write(out, Gap(), found).read_text()
    players = [p.relative_to(out / "..") for p in _targets(out, text) if p.suffix != ".png"]
    assert players == [Path("true/clip.mp4"), Path("ours/clip.mp4"), Path("ours/clip.wav")]
    # what was heard in the video without audio cannot be drawn
    found.files["ours"][0]["clip"] = tmp_path / "ours" / "clip.mp4"
    text = page.write(out, Gap(), found).read_text()
    assert "clip.mp4: has no audio track" in text and text.count("<img") == 1


def test_runs_are_told_apart(tmp_path, folders, small):
    _tone(tmp_path / "two", "mid", 0.2)
    systems = {"ours": [folders[1], tmp_path / "two"]}
    found = protocol.evaluate(Gap(), systems, folders[0])
    text = page.write(tmp_path / "report", Gap(), found).read_text()
    assert _cards(text) == ["mid, run 1 (two)", "good%20, run 0 (our #1)"]


def test_protocols_that_pair_nothing_show_the_first_audio_alone(tmp_path, result, small):
    class Sets(Gap):
        is_paired = False

    rows = [{k: v for k, v in row.items() if k != "error"} for row in result.samples]
    found = dataclasses.replace(result, samples=rows)
    text = page.write(tmp_path, Sets(), found).read_text()
    assert _cards(text) == ["a #1 <b>?", "far"] and "No item has <code>error</code>" in text
    assert text.count("<audio") == 2 and text.count("Log-mel of the reference") == 0


def test_reference_alone_is_shown(tmp_path, folders, small):
    text = page.write(tmp_path, Gap(), protocol.evaluate(Gap(), {}, folders[0])).read_text()
    assert _cards(text) == ["a #1 <b>?", "mid"]


def test_all_rows_stand_in_the_table_with_their_full_value(tmp_path, result, small):
    text = page.write(tmp_path, Gap(), result).read_text()
    body = text[text.index('<table id="samples">') : text.index("</table>", -9000)]
    rows = Elements(body[body.index("<tbody>") :].split("</tbody>")[0] + "</tbody>").find("tr")
    assert [r["data-name"] for r in rows] == [r["name"] for r in result.samples]
    assert rows[-1]["data-system"] == 'ours <"&|">'
    scored = next(r for r in result.samples if r["system"] != "reference" and r["name"] == "mid")
    assert f'data-v="{scored["error"]!r}">{scored["error"]:.3f}' in body
    assert "<td class=number>-</td>" in body  # a number that is none has no value to sort by
    assert re.search(r'<a href="#item-0">a #1 &lt;b&gt;\?</a>', body)
    assert 'id="item-0"' in text


def test_rows_beyond_the_limit_are_left_to_the_file(monkeypatch):
    monkeypatch.setattr(page_table, "MOST_ROWS", 4)
    rows = [
        {"system": s, "run": 0, "name": f"{k}", "status": "scored", "error": float("inf")}
        for s in ("reference", "ours")
        for k in range(5)
    ]
    found = protocol.Result({}, rows, {"reference": [], "ours": []}, [], {}, {})
    text = page_table.samples(Gap(), found, {})
    assert "Here are 4 of 10 rows; per_sample.csv has all." in text
    assert text.count('data-system="ours"') == 2 and text.count("<tr data") == 4
    assert 'data-v="Infinity">inf' in text


def test_a_page_without_protocol_is_refused(tmp_path, result):
    class Nameless(Gap):
        name = ""

    with pytest.raises(ValueError, match="no protocol"):
        page.write(tmp_path, Nameless(), result)


@pytest.mark.parametrize(
    ("values", "worst", "best"),
    [
        ([0.3, 0.1, 0.2, 0.9], "bc", "da"),
        ([0.3, None, float("nan")], "a", ""),
        ([0.3, 0.1, 0.2], "bc", "a"),  # the middle one once
        ([0.5, 0.5, 0.5, 0.5, 0.5], "ab", "ed"),
        ([], "", ""),
    ],
)
def test_ranking(values, worst, best):
    rows = [{"name": n, "f1": v} for n, v in zip("abcdefg", values)]
    ranked = page_ranking.rank(rows, "f1", True, 2)
    assert "".join(r["name"] for r in ranked.worst) == worst
    assert "".join(r["name"] for r in ranked.best) == best
    assert len(ranked.without) == sum(v is None or v != v for v in values)


def test_ranking_refuses_no_rows_at_all():
    with pytest.raises(ValueError, match="count is 0"):
        page_ranking.rank([], "f1", True, 0)
