"""The browsers of the page tests: any Chromium or Chrome on the path, or one that playwright installed."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT_FOLDERS = {"darwin": "~/Library/Caches/ms-playwright"}  # elsewhere ~/.cache/ms-playwright
PLAYWRIGHT_PATTERNS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium_headless_shell-*/*/*headless*shell",
)
CHROMIUM_SKIP_REASON = "Chromium tests: install chromium or Chrome, or run `playwright install chromium`"


def find_chromium() -> Path | None:
    """Return a Chromium or Chrome, the newest of playwright's where none is on the path; None without any."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return Path(path)
    default = PLAYWRIGHT_FOLDERS.get(sys.platform, "~/.cache/ms-playwright")
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or default).expanduser()
    for pattern in PLAYWRIGHT_PATTERNS:
        if paths := sorted(folder.glob(pattern)):
            return paths[-1]
    return None


CHROMIUM = find_chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=CHROMIUM_SKIP_REASON)


def launch_chromium(playwright: "Playwright") -> "Iterator[Browser]":
    """Yield a running Chromium, and close it; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip(CHROMIUM_SKIP_REASON)
    arguments = ["--no-sandbox", "--disable-background-networking", "--no-first-run"]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
    yield browser
    browser.close()
