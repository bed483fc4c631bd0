"""The pictures of the documentation, of real conversations in a real browser: `make pictures`.

Each is taken as the system is light and dark. The conversation is `two-stations` of the examples' scenarios. The page
takes the system's font; where Inter is installed (Debian: fonts-inter), it is that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

FOLDER: Final = Path(__file__).resolve().parents[1] / "pictures"
SCHEMES: Final = ("light", "dark")
SIZE: Final = {"width": 1280, "height": 860}
LIST_SIZE: Final = {"width": 1280, "height": 330}
SCALE: Final = 1.25
ARGUMENTS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
SCENARIOS: Final = ("weather", "parallel-calls", "barge-in", "failing-tool", "two-stations")
"""Held at the same time; the last one goes on longest."""
LONG_MS: Final = 60_000


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("the pictures need chromium", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        conversation(browser, Path(folder) / "conversation.html")
        conversations(browser)
        browser.close()
    return 0


def conversation(browser: Browser, file: Path) -> None:
    """The page of one conversation, where the user cuts an answer."""
    demo = [sys.executable, "-m", "examples.demo", "--html", str(file)]
    subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
    for scheme in SCHEMES:
        with opened(browser, file.as_uri(), scheme, SIZE) as page:
            page.locator(".lane.user .bar-of").nth(1).click()
            save(page, f"conversation-{scheme}")


def conversations(browser: Browser) -> None:
    """The list of `realtime-otel dev`, one of them still open."""
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", "dev", "--page", "0", "--listen", "127.0.0.1:0"]
    dev = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert dev.stdout is not None  # noqa: S101 - for the type checker
    url, endpoint = dev.stdout.readline().split()[-1], dev.stdout.readline().partition("=")[2].strip()
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    agent = [sys.executable, "-m", "examples.voice_agent", "--demo", "--scenario"]
    quiet = subprocess.DEVNULL
    agents = [subprocess.Popen([*agent, each], env=environment, stdout=quiet, stderr=quiet) for each in SCENARIOS]
    try:
        with opened(browser, url, "light", LIST_SIZE) as page:
            expect(page.locator(".list tbody tr")).to_have_count(len(SCENARIOS), timeout=LONG_MS)
            expect(page.locator(".list .badge.live")).to_have_count(1, timeout=LONG_MS)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                save(page, f"conversations-{scheme}")
    finally:
        for each in agents:
            each.wait()  # it ends by itself, and its servers with it
        dev.terminate()
        dev.wait()


@contextmanager
def opened(browser: Browser, address: str, scheme: str, size: dict[str, int]) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=SCALE,
        reduced_motion="reduce",
        timezone_id="UTC",
    )
    page = context.new_page()
    page.goto(address)
    page.locator("main").wait_for()
    yield page
    context.close()


def save(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
