"""Chromium, for the scripts beside it that take the README's pictures."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-lcd-text", "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium(width: int, height: int, *, dark: bool) -> Iterator[webdriver.Chrome]:
    """A browser whose page has that many CSS pixels, a pixel of the picture each."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "google-chrome"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield browser
        finally:
            browser.quit()


def png_of(browser: webdriver.Chrome, **how: Any) -> bytes:
    """What it shows; `clip` may say which part."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **how})
    return base64.b64decode(taken["data"])
