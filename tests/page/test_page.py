"""The page in a real browser: what is to be seen, and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from realtime_otel.contract import Fact
from realtime_otel_sidecar.page.document import document
from tests import conversations as talk
from tests.page import calls
from tests.page.browser import NEEDS_CHROMIUM, PHONE, Opened, opened, written

pytestmark = NEEDS_CHROMIUM

EACH_SCHEME = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture
def address(tmp_path: Path) -> str:
    return written(tmp_path, [calls.spans()])


@pytest.fixture
def here(browser: Browser, address: str) -> Iterator[Opened]:
    with opened(browser, address) as page:
        yield page
        assert page.said == []


def texts(here: Opened, selector: str) -> list[str]:
    return here.page.locator(selector).all_inner_texts()


# --- What is to be seen ---------------------------------------------------------------------------------------------


def test_each_says_something_in_a_lane_of_its_own(here: Opened) -> None:
    assert texts(here, ".lane.user .bar-of") == [calls.QUESTION, calls.CORRECTION]
    assert texts(here, ".lane.agent .audio") == [calls.ANSWER, calls.RESULT]
    assert texts(here, ".lane.tool .bar-of") == ["get_weather", "get_weather"]


def test_the_bars_are_where_the_times_say(here: Opened) -> None:
    first, second = here.box(".lane.user .bar-of", 0), here.box(".lane.user .bar-of", 1)
    heard, unheard = here.box(".audio", 0), here.box(".bar-of.unheard")
    assert first["width"] == pytest.approx(second["width"] * 1.5 / 2.01, rel=0.02)
    assert first["x"] + first["width"] < heard["x"] < second["x"]
    assert heard["width"] == pytest.approx(unheard["width"], rel=0.02), "3 s of 6 s"
    assert heard["x"] + heard["width"] == pytest.approx(unheard["x"], abs=1)


def test_tools_that_ran_side_by_side_are_above_one_another(here: Opened) -> None:
    oslo, athens = here.box(".lane.tool .bar-of", 0), here.box(".lane.tool .bar-of", 1)
    assert oslo["y"] + oslo["height"] <= athens["y"]
    assert athens["x"] < oslo["x"] + oslo["width"], "they ran at the same time"


def test_an_interruption_shows_where_it_cut_and_what_was_not_heard(here: Opened) -> None:
    assert texts(here, ".bar-of.unheard") == ["heard 3.0 of 6.0 s"]
    cut = here.box(".line.cut")
    assert cut["x"] == pytest.approx(here.box(".bar-of.unheard")["x"], abs=2)
    assert "barge-in" in here.page.locator(".tree .row.user").nth(1).inner_text()


def test_how_long_the_user_waited_is_between_the_two(here: Opened) -> None:
    bracket, speech, audio = here.box(".bracket"), here.box(".lane.user .bar-of"), here.box(".audio")
    assert bracket["x"] == pytest.approx(speech["x"] + speech["width"], abs=2)
    assert bracket["x"] + bracket["width"] == pytest.approx(audio["x"], abs=2)
    assert texts(here, ".bracket") == ["360 ms", "1.42 s"]


def test_the_head_says_it_in_figures(here: Opened) -> None:
    figures = dict(zip(texts(here, ".figures dt"), texts(here, ".figures dd"), strict=True))
    assert {name: text.split("\n")[0] for name, text in figures.items()} == {
        "Length": "13.42 s", "Turns": "2", "Tools": "2", "Response time": "890 ms", "Interruptions": "1",
        "Errors": "1", "Tokens": "610",
    }  # fmt: skip
    assert texts(here, "h1") == ["hotline"]
    assert texts(here, ".notice") == []


def test_what_a_tool_logs_stands_in_its_place(here: Opened) -> None:
    rows = [re.sub(r"\s+", " ", text) for text in texts(here, ".tree .row .what")]
    at = rows.index("INFO asking the station in Oslo")
    assert rows[at - 1].startswith('get_weather {"city": "Oslo"}')
    assert here.page.locator(".lane.tool .log").count() == 2


def test_what_is_no_span_has_a_mark(here: Opened) -> None:
    marks = here.page.locator(".lane.event .mark")
    assert [mark.get_attribute("aria-label") for mark in marks.all()] == ["error at 0:13.4"]


def test_losses_are_said_and_what_was_inferred_is_dashed(browser: Browser, tmp_path: Path) -> None:
    steps = calls.conversation()
    stopped = next(n for n, step in enumerate(steps) if "speech_stopped" in str(step))
    lost = calls.spans(without=[stopped, stopped + 1])
    with opened(browser, written(tmp_path, [lost])) as here:
        assert "Records that never came: 2." in here.page.locator(".notice").inner_text()
        assert here.page.locator(".lane.user .end-inferred").count() == 1


def test_where_records_were_lost_is_a_band_across_all_lanes_and_a_mark_that_says_how_many(
    browser: Browser, tmp_path: Path
) -> None:
    steps = calls.conversation()
    stopped = next(n for n, step in enumerate(steps) if "speech_stopped" in str(step))
    drops = talk.fact(Fact.RECORDS_DROPPED, ranges=[[len(steps) - 3, len(steps) - 3]], in_place=True)
    steps[-4] = drops._replace(after=steps[-4].after)
    lost = calls.spans(calls.recorded(steps), without=[stopped, stopped + 1, len(steps) - 3])
    with opened(browser, written(tmp_path, [lost])) as here:
        marks = here.page.locator(".lane.event .mark.warn")
        labels = [mark.get_attribute("aria-label") for mark in marks.all()]
        assert [label and label.rpartition(" at ")[0] for label in labels] == [
            "Records lost: 2 records missing",
            "Records lost: 2 records dropped by the emitter",
        ]
        speech = here.box(".lane.user .bar-of >> nth=0")
        band, mark = here.box(".overlay .lost >> nth=0"), here.box(".lane.event .mark.warn >> nth=0")
        assert band["x"] == pytest.approx(mark["x"] + mark["width"] / 2, abs=2)
        assert band["x"] == pytest.approx(speech["x"], abs=2), "its end was lost, not its start"
        assert band["width"] > 20
        assert here.page.locator(".overlay .lost").count() == 2
        assert "Records lost" in here.page.locator(".legend").inner_text()
        assert "Records lost: 2 records missing" in here.page.locator(".tree").inner_text()
        assert "openai.realtime.gap.first_seq" in here.choose(".lane.event .mark.warn")


def test_a_conversation_without_audio_and_transcripts_is_shown_by_its_lengths(browser: Browser, tmp_path: Path) -> None:
    steps = [*talk.opened(), *talk.session(), *talk.speech("item_1"), *talk.closed()]
    with opened(browser, written(tmp_path, [calls.spans(calls.recorded(steps))])) as here:
        assert texts(here, ".lane.user .bar-of") == ["1.00 s"]
        assert here.page.locator(".lane.agent, .lane.tool").count() == 0


# --- What can be done -----------------------------------------------------------------------------------------------


def test_a_click_shows_all_that_is_known_of_a_span(here: Opened) -> None:
    shown = here.choose(".lane.user .bar-of >> nth=1")
    for text in (
        calls.CORRECTION,
        "Interrupts",
        "heard 3.0 of 6.0 s",
        "interrupts Agent at",
        "openai.realtime.item.id",
    ):
        assert text in shown
    shown = here.choose(".lane.tool .bar-of")
    for text in ('"city": "Oslo"', "22 degrees", "asking the station in Oslo", "ran 620 ms", "Resource"):
        assert text in shown


def test_what_was_not_heard_and_when_it_was_made_lead_to_the_same_span(here: Opened) -> None:
    shown = here.choose(".lane.agent .audio")
    assert here.choose(".bar-of.unheard") == shown == here.choose(".bar-of.making")


def test_a_link_leads_to_the_other_span(here: Opened) -> None:
    here.choose(".lane.user .bar-of >> nth=1")
    here.page.get_by_role("button", name=re.compile("^Agent at 0:02.5")).click()
    assert calls.ANSWER in here.details()
    assert here.page.locator('.tree [aria-selected="true"] .said').inner_text() == calls.ANSWER


def test_the_timeline_can_be_used_with_the_keyboard_alone(here: Opened) -> None:
    page = here.page
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.lane.user') !== null"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert calls.CORRECTION in here.details()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert "Agent" in here.details()
    assert page.evaluate("document.activeElement.closest('.lane.agent') !== null")
    page.keyboard.press("Escape")
    assert "Choose a span" in here.details()


def test_the_tree_can_be_used_with_the_keyboard_alone(here: Opened) -> None:
    page, rows = here.page, here.page.locator('[role="treeitem"]')
    count = rows.count()
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert calls.QUESTION in here.details()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert rows.count() == 1, "folded"
    page.keyboard.press("ArrowRight")
    assert rows.count() == count
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement === document.querySelector('[role=\"treeitem\"]')"), "to its parent"


def test_zooming_widens_the_track_and_fit_shows_all_of_it(here: Opened) -> None:
    page, before = here.page, here.box(".track")["width"]
    ticks = len(texts(here, ".tick"))
    page.get_by_role("button", name="Zoom in").click()
    page.keyboard.press("+")
    assert here.box(".track")["width"] > before * 2
    assert len(texts(here, ".tick")) > ticks
    page.get_by_role("button", name="Show all of it").click()
    assert here.box(".track")["width"] == pytest.approx(before, abs=1)


def test_a_long_conversation_begins_so_that_its_turns_can_be_read(browser: Browser, tmp_path: Path) -> None:
    steps = calls.conversation()
    hour = [*steps[:-1], *talk.later(3000, talk.closed())]
    with opened(browser, written(tmp_path, [calls.spans(calls.recorded(hour))])) as here:
        assert here.box(".lane.user .bar-of")["width"] > 10
        assert here.box(".track")["width"] > 20_000


def test_several_conversations_are_a_list_first(browser: Browser, tmp_path: Path) -> None:
    both = [calls.spans(calls.recorded(name=name)) for name in ("one", "two")]
    with opened(browser, written(tmp_path, both)) as here:
        assert here.page.locator(".list tbody tr").count() == 2
        assert here.violations() == []
        here.page.locator(".list a").first.click()
        assert texts(here, ".lane.user .bar-of") == [calls.QUESTION, calls.CORRECTION]
        here.page.get_by_role("link", name="All conversations").click()
        assert here.page.locator(".list tbody tr").count() == 2
        assert here.said == []


# --- Everywhere, for everybody --------------------------------------------------------------------------------------


@EACH_SCHEME
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: Browser, address: str, scheme: str, viewport: dict[str, int] | None) -> None:
    given = {"viewport": viewport} if viewport else {}
    with opened(browser, address, color_scheme=scheme, **given) as here:
        assert here.violations() == []
        here.choose(".lane.tool .bar-of")
        assert here.violations() == []


def test_it_follows_the_system_as_it_turns_dark(here: Opened) -> None:
    def brightness() -> int:
        background = here.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", background)[:3]))

    bright = brightness()
    here.page.emulate_media(color_scheme="dark")
    assert brightness() < 120 < 600 < bright


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport=PHONE, has_touch=True) as here:
        assert here.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        here.page.locator(".lane.user .bar-of").first.tap()
        expect(here.page.locator(".details blockquote")).to_be_in_viewport()


def test_on_paper_there_are_no_buttons_and_all_of_the_track(here: Opened) -> None:
    here.page.get_by_role("button", name="Zoom in").click()
    here.page.emulate_media(media="print")
    assert here.box(".track")["width"] <= here.box(".timeline")["width"]
    expect(here.page.get_by_role("button", name="Zoom in")).to_be_hidden()
    assert here.page.pdf().startswith(b"%PDF")


def test_nothing_is_loaded_from_anywhere(browser: Browser, address: str) -> None:
    with opened(browser, address) as here:
        here.choose(".lane.tool .bar-of")
        assert here.requested == [address]
        assert here.page.evaluate("fetch('https://example.com').then(() => 'sent', () => 'refused')") == "refused"


def test_a_file_without_spans_says_so(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "empty.html"
    file.write_text(document([]), "utf-8")
    with opened(browser, file.as_uri()) as here:
        assert "There is no span in this file." in here.page.locator("main").inner_text()
        assert here.violations() == []
