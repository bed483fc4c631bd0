"""A real browser, and the page as a reader has it: a file that was opened."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import Browser, Page, sync_playwright

from realtime_otel_sidecar.page.document import document
from realtime_otel_sidecar.page.view import view

CHROMIUM: Final = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
ARGUMENTS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
DESKTOP: Final = {"width": 1440, "height": 1000}
WAIT_MS: Final = 20_000
PHONE: Final = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page that is open, and what it did."""

    page: Page
    requested: list[str] = field(default_factory=list)
    """Addresses of everything that was asked for."""
    said: list[str] = field(default_factory=list)
    """Messages of the console, errors, dialogs: what a policy has forbidden is there, too."""

    def choose(self, selector: str) -> str:
        """Click, and read the details."""
        self.page.locator(selector).first.click()
        return self.details()

    def details(self) -> str:
        return self.page.locator(".details").inner_text()

    def box(self, selector: str, number: int = 0) -> dict[str, float]:
        """Where something is: x, y, width, height, in pixels."""
        box = self.page.locator(selector).nth(number).bounding_box()
        assert box is not None
        return {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}

    def violations(self) -> list[str]:
        """What axe finds against the page's accessibility."""
        found = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in found for node in each["nodes"]]


@contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Opened]:
    """The page at an address. ``context``: of the browser, such as ``viewport`` and ``color_scheme``."""
    given = browser.new_context(**({"viewport": DESKTOP} | context))
    try:
        given.set_default_timeout(WAIT_MS)
        page = given.new_page()
        here = Opened(page)
        page.on("request", lambda request: here.requested.append(request.url))
        page.on("console", lambda message: here.said.append(message.text))
        page.on("pageerror", lambda error: here.said.append(str(error)))
        page.on("dialog", lambda dialog: here.said.append(f"dialog: {dialog.message}"))
        page.goto(address)
        page.locator("main").wait_for()
        yield here
    finally:
        given.close()


def written(folder: Path, requests: Iterable[ExportTraceServiceRequest]) -> str:
    """The page with these spans as a file; returns its address."""
    file = folder / "conversation.html"
    file.write_text(document(view(requests)), "utf-8")
    return file.as_uri()
