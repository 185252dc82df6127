"""The page in a real browser, at the width of a desk and of a phone; the model is a stand-in."""

import numpy as np
import pytest
import tiny_foley

from data_prep import scenes
from foley_jax.inference import takes
from foley_jax.media import audio as audio_io
from tests import browsers
from tests.inference import standing_in

pytest.importorskip("gradio", reason="needs the extra 'web'")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with standing_in.served(tmp_path_factory.mktemp("server")) as address:
        yield address


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


def _told(driver):
    """What the server says of the file, beside what the browser says of it."""
    said = "\n".join(one.text for one in browsers.find(driver, ".toast-body"))
    return said if "broken.mp4" in said else None


@pytest.mark.slow
def test_two_visitors_upload_play_and_download_their_own(server, tmp_path):
    videos = tiny_foley.write_videos(tmp_path, [1.5, 2.0])
    with (
        browsers.chromium(1280, tmp_path) as desk,
        browsers.chromium(390, tmp_path) as phone,
    ):
        for driver, path in ((desk, videos[0]), (phone, videos[1])):
            _begin(driver, server, path)
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
            heard_L = audio_io.load(saved, 16000)  # the tone of a second, as the model said it
            assert np.count_nonzero(np.abs(heard_L) > 0.005) == pytest.approx(15000, abs=1500)


@pytest.mark.slow
def test_a_broken_file_is_told_in_the_page(server, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"nothing" * 100)
    with browsers.chromium() as driver:
        _begin(driver, server, path)
        said = browsers.wait(driver, _told)
    assert "/tmp" not in said


@pytest.mark.slow
def test_the_package_s_own_model_speaks_as_the_page_is_opened(tmp_path):
    """No field is touched: what the form begins with is what the model takes."""
    from foley_jax.inference import web

    args = ["--train=0", "--hard_train=0", "--test=1", "--hard_test=0", "--seed=9001"]
    scenes.main([str(tmp_path / "videos"), *args])
    (path,) = (tmp_path / "videos").rglob("*.mp4")
    blocks, address = web.serve("embedded:4_steps", takes.Limits(), port=0, wait=False)
    with browsers.chromium(1280, tmp_path) as driver:
        driver.get(address)
        browsers.wait(driver, lambda d: browsers.find(d, "input[type=file]"))[0].send_keys(
            str(path)
        )
        browsers.wait(driver, lambda d: browsers.find(d, "video[src]"))
        browsers.find(driver, "button.primary")[0].click()
        assert len(browsers.wait(driver, _takes)) == 1
        at_s, decoded = browsers.played(driver, "video")
    blocks.close()
    assert at_s > 1 and decoded > 1000
