"""Debian's Chromium without a window, driven by selenium; tests are skipped where it is missing."""

import contextlib
import shutil
import tempfile

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # root cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)


@contextlib.contextmanager
def chromium(width=1280, downloads=None):
    """A browser of its own, with an empty profile; widths below 500 are those of a phone."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra 'browser'")
    if not BROWSER or not DRIVER:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for one in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},900"):
            options.add_argument(one)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            if downloads is not None:  # else the second of a page waits for a person's consent
                allowed = {"behavior": "allow", "downloadPath": str(downloads)}
                driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
            if width < 500:
                size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield driver
        finally:
            driver.quit()


def wait(driver, until, seconds=120):
    """Waits until a function of the browser gives something true, and returns it."""
    from selenium.webdriver.support import ui

    return ui.WebDriverWait(driver, seconds, 0.2).until(until)


def find(driver, selector):
    """All elements of a CSS selector."""
    return driver.find_elements("css selector", selector)


PLAYED = """
const done = arguments[1], media = document.querySelectorAll(arguments[0]);
const one = media[media.length - 1];
one.addEventListener("ended", () => done([one.currentTime, one.webkitAudioDecodedByteCount]));
one.addEventListener("error", () => done(one.error.message));
one.play().catch((error) => done(String(error)));
"""


def played(driver, selector):
    """Plays the last media of a selector; returns how far it came, and bytes of audio decoded."""
    return driver.execute_async_script(PLAYED, selector)
