"""`realtime-otel dev` as a developer has it: the real process, a real agent, a real browser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, expect

from tests.conversing import Servers, demo_servers, hold_conversation
from tests.page import calls
from tests.page.browser import NEEDS_CHROMIUM, opened
from tests.sidecar import Backend, Client
from tests.unit.sidecar.rig import eventually

COMMAND = Path(sys.executable).with_name("realtime-otel")
SPEED = 2.0


class Dev(NamedTuple):
    """A process, and what it says of itself."""

    process: subprocess.Popen[str]
    url: str
    endpoint: str

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])


@contextmanager
def running(*flags: object) -> Iterator[Dev]:
    command = [str(COMMAND), "dev", "--page", "0", "--listen", "127.0.0.1:0", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        yield Dev(process, first.split()[-1], second.rpartition("OTEL_EXPORTER_OTLP_ENDPOINT=")[2].strip())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with demo_servers({}) as started:
        yield started


@NEEDS_CHROMIUM
def test_a_conversation_is_shown_while_it_goes_on(browser: Browser, servers: Servers) -> None:
    with running() as dev, opened(browser, dev.url) as here:
        page = here.page
        expect(page.locator("main")).to_contain_text(f"export OTEL_EXPORTER_OTLP_ENDPOINT={dev.endpoint}")
        assert here.violations() == []
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": dev.endpoint,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        }
        talking = threading.Thread(
            target=lambda: hold_conversation(servers, "weather", speed=SPEED, environment=environment)
        )
        talking.start()
        page.locator(".list .badge.live").wait_for(timeout=30_000)
        page.locator(".list a").click()
        session = page.locator(".tree .row.session .badge.live")
        session.wait_for()
        page.locator(".lane.user .bar-of").wait_for()
        grown = [page.locator(".figures dd").first.inner_text()]
        page.wait_for_function("before => document.querySelector('.figures dd').innerText !== before", arg=grown[0])
        expect(page.locator(".badge.live")).to_have_count(0, timeout=30_000)
        talking.join()
        assert page.locator(".lane.user .bar-of").all_inner_texts() == ["What is the weather like in Lisbon right now?"]
        expect(page.locator(".lane.tool .bar-of").first).to_contain_text("get_weather")
        expect(page.locator(".tree")).to_contain_text("POST /calls")  # the application's own spans go the same way
        expect(page.locator(".tree")).to_contain_text("looking up the weather in Lisbon")
        page.get_by_role("link", name="All conversations").click()
        expect(page.locator(".list tbody tr")).to_have_count(1)
        assert here.violations() == []
        assert here.said == []
        assert {re.sub(r"[0-9a-f]{32}", "…", each.removeprefix(dev.url)) for each in here.requested} == {
            "", "conversations", "conversations/…",
        }  # fmt: skip


@NEEDS_CHROMIUM
def test_what_the_reader_has_chosen_stays_chosen_as_the_page_is_renewed(browser: Browser) -> None:
    recording = calls.recorded()
    with running() as dev, opened(browser, dev.url) as here, Client(dev.port) as client:
        client.send(recording.request(0, 20))
        here.page.locator(".list a").click()
        here.page.locator(".tree .row.user").first.click()
        here.page.locator(".tree .row.user").first.focus()
        client.send(recording.request(20))
        expect(here.page.locator(".badge.live")).to_have_count(0)
        assert calls.QUESTION in here.details()
        assert here.page.evaluate("document.activeElement.dataset.row") is not None


@NEEDS_CHROMIUM
def test_a_server_that_has_gone_is_said(browser: Browser) -> None:
    with running() as dev, opened(browser, dev.url) as here:
        with Client(dev.port) as client:
            client.send(calls.recorded().request())
        here.page.locator(".list a").wait_for()
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(20) == 0
        expect(here.page.locator('[role="status"]')).to_contain_text("does not answer")
        assert here.page.locator(".list a").count() == 1


def test_it_says_two_lines_ends_with_a_signal_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for ask in (signal.SIGINT, signal.SIGTERM):
        with running() as dev:
            assert list(tmp_path.iterdir())
            dev.process.send_signal(ask)
            out, err = dev.process.communicate(timeout=20)
            assert (dev.process.returncode, out, err) == (0, "", "")
            assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_given_stays(tmp_path: Path) -> None:
    with running("--data-dir", tmp_path / "data") as dev, Client(dev.port) as client:
        client.send(calls.recorded().request())
        dev.process.send_signal(signal.SIGINT)
        dev.process.communicate(timeout=20)
    assert list((tmp_path / "data").iterdir())


def test_with_an_endpoint_spans_go_there_too() -> None:
    with Backend() as backend, running("--endpoint", backend.endpoint) as dev, Client(dev.port) as client:
        client.send(calls.recorded().request())
        backend.wait_until(lambda: len(backend.accepted) > 0)

        def shown() -> bytes:
            with urllib.request.urlopen(f"{dev.url}conversations") as answer:  # noqa: S310 - of the test
                return bytes(answer.read())

        eventually(lambda: b'"turns":2' in shown())


def test_only_the_newest_are_kept() -> None:
    with running("--keep", 2) as dev, Client(dev.port) as client:
        for number in range(4):
            client.send(calls.recorded(name=f"stream-{number}").request())

        def streams() -> list[str]:
            with urllib.request.urlopen(f"{dev.url}conversations") as answer:  # noqa: S310 - of the test
                return re.findall(r'"stream":"([^"]*)"', answer.read().decode())

        eventually(lambda: "stream-3" in streams())
        assert len(streams()) == 2


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--page", "seventy"], 2, "argument --page: seventy is no whole number from 0 to 65535"),
        (["--keep", "0"], 2, "argument --keep: 0 is no whole number from 1 to 10000"),
        (["--listen", "nowhere"], 1, "listen is 'nowhere'"),
        (["--endpoint", "nowhere"], 1, "endpoint is 'nowhere'"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], status: int, said: str) -> None:
    done = subprocess.run([COMMAND, "dev", *flags], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == status
    assert said in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with running() as dev:
        taken = dev.url.rstrip("/").rpartition(":")[2]
        command = [str(COMMAND), "dev", "--page", taken, "--listen", "127.0.0.1:0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith(f"realtime-otel: port {taken} cannot be had for the page: Address already in use")
