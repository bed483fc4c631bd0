"""Who has heard all of an answer has interrupted nothing, whatever a client says when the user speaks next."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.interruption import TOLERANCE_MS
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    Step,
    closed,
    fact,
    later,
    numbered,
    opened,
    output_item,
    response_created,
    response_done,
    server,
    stream,
)

from .stitching import fed, kept, links, one, reason, spans_of
from .test_two_emitters import of_both

Says = Callable[[int | None], Step]

SPEAKS = server("input_audio_buffer.speech_started", item_id="item_no", audio_start_ms=9000)
FORMATS: Final[dict[str, tuple[dict[str, Any], int]]] = {  # of an item of 2000 ms, the bytes
    "audio/pcm": ({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}, 96_000),
    "audio/pcmu": ({"audio": {"output": {"format": {"type": "audio/pcmu"}}}}, 16_000),
    "audio/pcma": ({"audio": {"output": {"format": {"type": "audio/pcma"}}}}, 16_000),
    "pcm16": ({"output_audio_format": "pcm16"}, 96_000),
    "g711_ulaw": ({"output_audio_format": "g711_ulaw"}, 16_000),
    "g711_alaw": ({"output_audio_format": "g711_alaw"}, 16_000),
}
PCM = FORMATS["audio/pcm"][0]
SIZE = 96_000


def audio(size: int, what: str = "delta", item: str = "item_answer") -> Step:
    """A piece of audio of so many bytes, or the end of a part, with the sum of what its deltas had."""
    extra = {"extra": {contract.DELTA_SIZE: size}} if size else {}
    return server(
        f"response.output_audio.{what}", response_id="resp_1", item_id=item, content_index=0, delta="", **extra
    )


def created(settings: dict[str, Any]) -> list[Step]:
    return [server("session.created", session={"id": "sess_1", **settings}), *response_created("resp_1")]


MADE = [audio(SIZE // 2), audio(SIZE // 2), audio(0, "done")]


def answered(
    sounds: Sequence[Step] = tuple(MADE), settings: dict[str, Any] = PCM, status: str = "completed", **done: Any
) -> list[Step]:
    """An answer of one item, of 2000 ms if nothing else is said."""
    item = output_item("resp_1", "item_answer")
    return [*created(settings), *item, *sounds, *response_done("resp_1", status, **done)]


def truncated(heard: int | None) -> Step:
    return server("conversation.item.truncated", item_id="item_answer", content_index=0, audio_end_ms=heard)


def stopped_hearing(heard: int | None) -> Step:
    return fact(Fact.AUDIO_INTERRUPTED, item_id="item_answer", **({} if heard is None else {"played_ms": heard}))


EITHER = pytest.mark.parametrize("said", [truncated, stopped_hearing])


def was_cut(spans: list[Span]) -> bool:
    """Whether the speech has cut the answer; link, attributes and count must agree."""
    speech, session = one(spans, "user_speech"), one(spans, "realtime_session")
    marks = {
        any(kind == "interrupts" for _, kind, _ in links(speech)),
        key.CUT_RESPONSE in speech.attributes,
        session.attributes.get(key.INTERRUPTIONS) == 1,
    }
    assert len(marks) == 1
    return marks.pop()


def with_losses(records: Sequence[Record]) -> list[Span]:
    """The spans of a stream in which nothing is waited for any longer."""
    stitcher = Stitcher()
    spans = fed(records, stitcher=stitcher).spans
    for stream_key in list(stitcher.open):
        spans += stitcher.tick(stream_key).spans
    return spans


def heard(spans: list[Span]) -> object:
    return one(spans, "user_speech").attributes.get(key.HEARD)


# --- All of it, or less ---------------------------------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize("after", [0.5, 30.0], ids=["still there", "has left"])
def test_an_answer_that_was_heard_to_its_end_was_not_interrupted(after: float, said: Says) -> None:
    spans = spans_of([*answered(), *later(after, [SPEAKS]), said(2000), *closed()])

    assert not was_cut(spans)
    assert kept(spans) == []
    assert reason(one(spans, "realtime_inference")) == "completed"


@EITHER
def test_one_that_was_heard_but_for_a_packet_was_heard_and_but_for_more_was_cut(said: Says) -> None:
    enough = 2000 - TOLERANCE_MS

    assert not was_cut(spans_of([*answered(), SPEAKS, said(enough), *closed()]))
    spans = spans_of([*answered(), SPEAKS, said(enough - 1), *closed()])
    assert was_cut(spans)
    assert heard(spans) == enough - 1


def test_a_clock_that_goes_on_behind_the_end_of_an_answer_cuts_nothing() -> None:
    """openai-agents, where the application tells it nothing of the playback: the time since the first audio came."""
    assert not was_cut(spans_of([*answered(), *later(60, [SPEAKS]), stopped_hearing(60_123), *closed()]))


@pytest.mark.parametrize("name", FORMATS)
def test_how_long_an_answer_is_follows_from_its_format(name: str) -> None:
    settings, size = FORMATS[name]
    sounds = [audio(size), audio(0, "done")]

    assert not was_cut(spans_of([*answered(sounds, settings), SPEAKS, truncated(1990), *closed()]))
    assert was_cut(spans_of([*answered(sounds, settings), SPEAKS, truncated(1900), *closed()]))


def test_of_two_words_about_one_answer_that_it_was_cut_counts() -> None:
    for words in ([stopped_hearing(2000), truncated(900)], [stopped_hearing(900), truncated(900)]):
        spans = spans_of([*answered(), SPEAKS, *words, *closed()])

        assert was_cut(spans)
        assert heard(spans) == 900


def test_without_a_speech_nothing_is_told_either() -> None:
    for said in (truncated(2000), stopped_hearing(2000)):
        assert kept(spans_of([*answered(), said, *closed()])) == []


# --- How much was made ----------------------------------------------------------------------------------------------


def test_deltas_that_are_not_sent_are_known_by_the_end_of_their_part() -> None:
    first = [audio(4), audio(SIZE, "done")]
    off = [audio(SIZE, "done")]

    for sounds in (first, off):
        assert not was_cut(spans_of([*answered(sounds), SPEAKS, truncated(2000), *closed()]))
        assert was_cut(spans_of([*answered(sounds), SPEAKS, truncated(1200), *closed()]))


def test_parts_of_one_item_add_up() -> None:
    sounds = [audio(SIZE // 2), audio(0, "done"), audio(SIZE // 2), audio(0, "done")]

    assert was_cut(spans_of([*answered(sounds), SPEAKS, truncated(1000), *closed()]))
    assert not was_cut(spans_of([*answered(sounds), SPEAKS, truncated(2000), *closed()]))


@EITHER
@pytest.mark.parametrize(
    ("sounds", "settings"),
    [
        pytest.param(MADE, {}, id="of no known format"),
        pytest.param(MADE, {"audio": {"output": {"format": {"type": "audio/opus"}}}}, id="of another format"),
        pytest.param(MADE[:2], PCM, id="not all of it was made"),
        pytest.param([*MADE[:1], *MADE[2:], audio(4, item="item_next")], PCM, id="another item follows"),
        pytest.param([*MADE, audio(4, "done", "item_next")], PCM, id="another one has followed"),
    ],
)
def test_where_the_end_is_not_known_what_was_stopped_was_cut(
    said: Says, sounds: list[Step], settings: dict[str, Any]
) -> None:
    assert was_cut(spans_of([*answered(sounds, settings), SPEAKS, said(2000), *closed()]))


@EITHER
def test_where_nobody_knows_how_much_was_heard_it_was_cut(said: Says) -> None:
    assert was_cut(spans_of([*answered(), SPEAKS, said(None), *closed()]))


@pytest.mark.parametrize(
    ("place", "cut"),
    [
        pytest.param(1, False, id="before the response"),
        pytest.param(6, True, id="first delta"),
        pytest.param(7, True, id="second delta"),
        pytest.param(9, False, id="behind the audio"),
    ],
)
@pytest.mark.parametrize("stated", [False, True], ids=["missing", "stated in its place"])
def test_what_was_lost_of_the_audio_could_have_been_most_of_it(place: int, cut: bool, stated: bool) -> None:
    steps = [*opened(), fact(Fact.HEARTBEAT), *answered(), fact(Fact.HEARTBEAT), SPEAKS, truncated(2000), *closed()]
    instead = fact(Fact.RECORDS_DROPPED, ranges=[], in_place=True)
    whole = numbered(steps)
    lossy = [record for record in whole if record.seq != place]
    if stated:
        lossy = numbered([*steps[:place], instead, *steps[place + 1 :]])

    assert not was_cut(fed(whole).spans)
    for records in (lossy, lossy[::-1]):
        assert was_cut(with_losses(records)) is cut


def test_what_was_lost_does_not_matter_where_the_sum_is_stated() -> None:
    sounds = [audio(4), audio(4), audio(SIZE, "done")]
    records = numbered([*opened(), *answered(sounds), SPEAKS, truncated(2000), *closed()])

    assert not was_cut(with_losses([record for record in records if record.seq != 6]))


def test_a_response_whose_beginning_was_not_seen_may_have_had_more() -> None:
    steps = answered()
    without = [step for step in steps if step.event["type"] != "response.created"]

    assert was_cut(spans_of([*without, SPEAKS, truncated(2000), *closed()]))


# --- What else says so ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["turn_detected", "client_cancelled"])
def test_an_answer_that_was_cancelled_was_cut_however_much_of_it_was_heard(given: str) -> None:
    details = {"type": "cancelled", "reason": given}
    steps = [*created(PCM), *output_item("resp_1", "item_answer"), MADE[0], SPEAKS, *MADE[1:]]

    spans = spans_of(
        [*steps, *response_done("resp_1", "cancelled", status_details=details), truncated(2000), *closed()]
    )

    assert was_cut(spans)
    assert heard(spans) == 2000


def test_an_answer_that_the_client_has_stopped_while_nobody_spoke_shows_where_it_was_truncated() -> None:
    details = {"type": "cancelled", "reason": "client_cancelled"}

    spans = spans_of([*answered(status="cancelled", status_details=details), truncated(2000), *closed()])

    assert [event.attributes[key.AUDIO_END] for event in kept(spans)] == [2000]


@EITHER
@pytest.mark.parametrize("after", [0.5, 30.0], ids=["still there", "has left"])
def test_what_the_service_has_played_to_its_end_was_heard(after: float, said: Says) -> None:
    playing = [server("output_audio_buffer.started", response_id="resp_1")]
    ends = [server("output_audio_buffer.stopped", response_id="resp_1")]

    spans = spans_of([*answered([], {}), *playing, *ends, *later(after, [SPEAKS]), said(700), *closed()])
    assert not was_cut(spans)
    assert reason(one(spans, "realtime_playback")) == "completed"


@pytest.mark.parametrize("said_at", [2.0, 9.0], ids=["still there", "has left"])
def test_what_the_service_has_cleared_was_interrupted_however_much_was_heard(said_at: float) -> None:
    playing = [server("output_audio_buffer.started", response_id="resp_1"), SPEAKS]
    cleared = [server("output_audio_buffer.cleared", response_id="resp_1")]

    spans = spans_of([*answered(), *playing, *cleared, *later(said_at, [truncated(2000)]), *closed()])

    assert was_cut(spans)
    assert heard(spans) == 2000
    assert reason(one(spans, "realtime_playback")) == "interrupted"


# --- Whatever the order of arrival ----------------------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize(("until", "cut"), [(2000, False), (700, True)])
def test_a_truncation_may_arrive_before_what_it_truncates(said: Says, until: int, cut: bool) -> None:
    steps = [*opened(), *answered(), *later(3, [SPEAKS]), said(until), *closed()]
    records = numbered(steps)
    expected = fed(records).spans
    assert was_cut(expected) is cut

    for seed in range(20):
        shuffled = random.Random(seed).sample(records, len(records))
        stitcher = Stitcher()
        spans = fed(shuffled[:7], stitcher=stitcher).spans
        (stream_key,) = stitcher.open
        again = Stitcher()
        again.restore(stream_key, stitcher.snapshot(stream_key), ended=False)
        spans += fed(shuffled[7:], stitcher=again).spans
        assert encode_spans(spans) == encode_spans(expected)


@pytest.mark.parametrize("order", ["agent first", "sideband first", "together"])
def test_a_second_emitter_adds_nothing_to_what_was_made(order: str) -> None:
    for until, cut in ((2000, False), (1900, True)):
        steps = [*opened(), *answered(), *later(3, [SPEAKS]), truncated(until), *later(3, closed())]

        assert was_cut(of_both(steps, order)) is cut


def test_an_end_of_the_audio_that_another_emitter_states_without_an_id_tells_nothing() -> None:
    ours = numbered([*opened(), *answered()[:-1]], of=(agent := stream("CA-2041", chosen=True)))
    theirs = numbered([*opened(), audio(SIZE * 2, "done")], of=stream("CA-2041", chosen=True, emitter_id="sideband"))
    behind = numbered([*opened(), *answered(), *later(3, [SPEAKS]), truncated(2000), *later(3, closed())], of=agent)

    assert not was_cut(with_losses([*ours, *theirs, *behind[len(ours) :]]))
