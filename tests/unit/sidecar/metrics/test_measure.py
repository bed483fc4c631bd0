"""What one span adds, held against counts that are made of the spans themselves."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar.metrics.instruments import RECORDS_REJECTED
from realtime_otel_sidecar.metrics.measure import pack, unpack
from realtime_otel_sidecar.metrics.reading import LARGEST, LONGEST_LABEL
from realtime_otel_sidecar.metrics.sums import Sums
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Attributes, Span, SpanEvent, Value
from tests.conversations import Conversation, closed, numbered, weather_call
from tests.properties.arriving import share, stitched
from tests.properties.generating import EACH_SOURCE

from .measuring import PRICES, meter, scenario_spans, series_of, span, stored, summed, total, values

# The names as a dashboard writes them: nothing here is looked up in the table that is tested.
LATENCIES = [
    "openai.realtime.turn.vad_stop_to_first_audio", "openai.realtime.turn.voice_end_to_first_audio",
    "openai.realtime.turn.commit_to_first_audio", "openai.realtime.turn.vad_stop_to_playback",
    "openai.realtime.turn.voice_end_to_playback", "openai.realtime.turn.commit_to_playback",
    "openai.realtime.tool.output_to_first_audio", "openai.realtime.response.time_to_created",
    "openai.realtime.response.audio.duration", "openai.realtime.tool.waiting",
    "openai.realtime.tool.arguments_duration",
]  # fmt: skip
"""Histograms of an attribute as it stands."""


def check_sums(sums: Sums, spans: list[Span]) -> None:
    """The sums are those that a loop over the spans finds."""
    of = {operation: [each for each in spans if each.attributes[key.OPERATION] == operation] for operation in key.SPANS}
    responses, tools, sessions = of["realtime_inference"], of["execute_tool"], of["realtime_session"]
    heard = [*of["user_speech"], *of["transcript"]]

    for name in LATENCIES:
        found = [number(each, name) for each in spans if name in each.attributes]
        assert sum(series.count for series in series_of(sums, name)) == len(found)
        assert total(sums, name) == pytest.approx(sum(found))
    stated = [each for each in responses if not inferred(each)]
    duration = series_of(sums, "gen_ai.client.operation.duration")
    assert sum(series.count for series in duration) == len(stated)
    assert sum(series.total for series in duration) == pytest.approx(
        sum(each.end - each.start for each in stated) / 1e9
    )
    for kind in ("input", "output"):
        expected = sum(number(each, f"gen_ai.usage.{kind}_tokens") for each in responses)
        assert total(sums, "gen_ai.client.token.usage", type=kind) == expected
    ends = Counter((each.attributes[key.OPERATION], each.attributes[key.CLOSE_REASON]) for each in spans)
    assert total(sums, "openai.realtime.spans") == len(spans)
    for (operation, reason), count in ends.items():
        where = {"name": str(operation), "reason": str(reason)}
        assert total(sums, "openai.realtime.spans", **where) == count
    assert total(sums, "openai.realtime.tool.calls") == len(tools)
    failed = Counter((str(each.attributes.get("gen_ai.tool.name", "")), each.error) for each in tools if each.error)
    for (tool, error), count in failed.items():
        where = {"tool.name": tool, "error.type": error}
        assert total(sums, "openai.realtime.tool.calls", **where) == count
    assert total(sums, "openai.realtime.sessions.ended") == len(sessions)
    assert sum(s.count for s in series_of(sums, "openai.realtime.session.duration")) == len(sessions)
    assert total(sums, "openai.realtime.session.turns") == sum(number(each, key.TURNS) for each in sessions)
    assert total(sums, "openai.realtime.errors") == sum(number(each, key.ERRORS) for each in sessions)
    cut = [each for each in of["user_speech"] if key.CUT_PHASE in each.attributes]
    assert total(sums, "openai.realtime.interruptions") == len(cut)
    for status in ("completed", "failed"):
        expected = sum(each.attributes.get("openai.realtime.transcription.status") == status for each in heard)
        assert total(sums, "openai.realtime.transcriptions", status=status) == expected
    for state, name in (("taken", key.RECORDS), ("missing", key.RECORDS_MISSING), ("dropped", key.RECORDS_DROPPED)):
        assert total(sums, "openai.realtime.records", state=state) == sum(number(each, name) for each in sessions)


def number(span: Span, name: str) -> float:
    """The attribute's value, nothing for an absent one."""
    value = span.attributes.get(name, 0)
    assert isinstance(value, int | float)
    return value


def inferred(span: Span) -> bool:
    return "openai.realtime.start.inferred" in span.attributes or "openai.realtime.close.inferred" in span.attributes


def test_the_sums_over_all_scenarios_are_those_that_their_spans_add_up_to() -> None:
    check_sums(summed(scenario_spans()), list(scenario_spans()))


@EACH_SOURCE
@share(0.1)
@given(data=st.data())
def test_the_sums_over_a_conversation_are_those_that_its_spans_add_up_to(
    source: st.SearchStrategy[Conversation], data: st.DataObject
) -> None:
    spans = stitched(numbered(data.draw(source))).spans

    check_sums(summed(spans, meter(PRICES)), spans)


# --- What counts ----------------------------------------------------------------------------------------------------


def test_a_span_is_measured_the_same_each_time_and_comes_back_from_the_journal_as_it_was() -> None:
    by = meter(PRICES)
    measured = [by.measure(each) for each in scenario_spans()]

    assert [meter(PRICES).measure(each) for each in scenario_spans()] == measured
    again = unpack(pack(measured))
    assert again == measured
    kinds = [[type(each.value) for each in one.measurements] for one in measured]
    assert [[type(each.value) for each in one.measurements] for one in again] == kinds


def test_nothing_measured_takes_no_room_in_the_journal() -> None:
    assert pack([]) == b""
    assert unpack(b"") == []
    with pytest.raises(msgspec.DecodeError):
        unpack(b"\x01")


def test_a_span_that_is_not_exported_counts_and_is_no_exemplar() -> None:
    seen, unseen = span("realtime_inference"), span("realtime_inference", sampled=False)

    assert meter().measure(unseen).measurements == meter().measure(seen).measurements != []
    assert meter().measure(unseen).span_id == b""
    sums = summed([seen, unseen])
    (duration,) = series_of(sums, "gen_ai.client.operation.duration")
    assert duration.count == 2
    assert [exemplar.span_id for exemplar in duration.exemplars.values()] == [seen.span_id]
    assert summed([unseen]).__iter__().__next__()[1].exemplars == {}


@pytest.mark.parametrize("mark", ["openai.realtime.start.inferred", "openai.realtime.close.inferred"])
@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("realtime_inference", "gen_ai.client.operation.duration"),
        ("user_speech", "openai.realtime.user_speech.duration"),
        ("execute_tool", "openai.realtime.tool.duration"),
    ],
)
def test_a_duration_with_an_inferred_end_is_not_known(operation: str, name: str, mark: str) -> None:
    mcp: Attributes = {"gen_ai.tool.type": "extension"}

    assert [value for _, value in values(meter().measure(span(operation, mcp)), name)] == [1.0]
    doubtful = meter().measure(span(operation, mcp | {mark: True}))
    assert values(doubtful, name) == []
    assert len(values(doubtful, "openai.realtime.spans")) == 1, "it counts as a span, with the mark as a label"


def test_a_session_that_fell_silent_lasted_as_long_as_something_came_of_it() -> None:
    silent = span("realtime_session", {"openai.realtime.close.inferred": True, key.CLOSE_REASON: "silence"})

    assert values(meter().measure(silent), "openai.realtime.session.duration") == [(("openai", "", "silence"), 1.0)]


def test_a_function_ran_as_long_as_its_own_process_says() -> None:
    ran = span("execute_tool", {"gen_ai.tool.type": "function", "openai.realtime.tool.duration": 0.25})
    unseen = span("execute_tool", {"gen_ai.tool.type": "function"})

    assert [value for _, value in values(meter().measure(ran), "openai.realtime.tool.duration")] == [0.25]
    assert values(meter().measure(unseen), "openai.realtime.tool.duration") == []


def test_silence_that_the_service_commits_is_no_speech() -> None:
    silence = span("user_speech", {"openai.realtime.speech.idle_timeout": True})

    assert values(meter().measure(silence), "openai.realtime.user_speech.duration") == []


def test_a_response_that_failed_has_no_first_token() -> None:
    heard: Attributes = {"openai.realtime.response.time_to_first_audio": 0.3}
    name = "gen_ai.server.time_to_first_token"

    assert [value for _, value in values(meter().measure(span("realtime_inference", heard)), name)] == [0.3]
    assert values(meter().measure(span("realtime_inference", heard | {"error.type": "server_error"})), name) == []


def test_errors_count_by_type_and_code_and_those_without_room_on_the_span_count_too() -> None:
    invalid: Attributes = {"error.type": "invalid_request_error", "openai.realtime.error.code": "unknown_parameter"}
    events = [
        SpanEvent(1, "error", invalid),
        SpanEvent(2, "error", invalid),
        SpanEvent(3, "error"),
        SpanEvent(4, "log"),
    ]
    measured = meter().measure(span("realtime_session", {"openai.realtime.errors": 7}, events=events))

    assert dict(values(measured, "openai.realtime.errors")) == {
        ("openai", "", "invalid_request_error", "unknown_parameter"): 2,
        ("openai", "", "_OTHER", ""): 5,
    }


def test_what_no_span_shows_is_counted_by_the_caller() -> None:
    measured = meter().count(RECORDS_REJECTED, span("realtime_session").resource.encoded, 5, "too_late")

    assert measured.resource == (("service.namespace", "hotline"), ("service.name", "voice-agent"))
    assert values(measured, "openai.realtime.records.rejected") == [(("too_late",), 1)]
    assert (measured.time, measured.trace_id) == (5, b"")


# --- Tokens ---------------------------------------------------------------------------------------------------------

COUNT = st.integers(0, 1000)
USAGES = st.fixed_dictionaries(
    {}, optional={name: COUNT for name in key.ATTRIBUTES if name.startswith("gen_ai.usage.")}
)


def tokens(attributes: Attributes) -> dict[tuple[str, ...], float]:
    """By type, modality and whether they were cached."""
    measured = meter().measure(span("realtime_inference", attributes))
    return {labels[2:]: value for labels, value in values(measured, "openai.realtime.tokens")}


@given(given=USAGES)
def test_each_token_counts_once(given: dict[str, int]) -> None:
    counted = tokens({**given})
    reasoning = counted.get(("output", "reasoning", ""), 0)

    for kind, modalities in (("input", ("text", "audio", "image")), ("output", ("text", "audio"))):
        stated = [given.get(f"gen_ai.usage.{each}.{kind}_tokens", 0) for each in modalities]
        whole = max(given.get(f"gen_ai.usage.{kind}_tokens", 0), sum(stated))
        assert sum(count for labels, count in counted.items() if labels[0] == kind) == whole
        for modality, count in zip(modalities, stated, strict=True):
            of_it = sum(found for labels, found in counted.items() if labels[:2] == (kind, modality))
            is_reasoned = (kind, modality) == ("output", "text") and of_it != count
            assert of_it == (count - reasoning if is_reasoned else count)
    assert all(count > 0 for count in counted.values())


def test_cached_tokens_are_told_apart_by_modality() -> None:
    assert tokens(
        {
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.text.input_tokens": 60,
            "gen_ai.usage.audio.input_tokens": 40,
            "gen_ai.usage.cache_read.input_tokens": 50,
            "gen_ai.usage.text.cache_read.input_tokens": 50,
        }
    ) == {("input", "text", "true"): 50, ("input", "text", "false"): 10, ("input", "audio", "false"): 40}


def test_cached_tokens_of_an_unnamed_modality_are_given_to_none() -> None:
    stated: Attributes = {"gen_ai.usage.text.input_tokens": 60, "gen_ai.usage.audio.input_tokens": 40}

    assert tokens(stated | {"gen_ai.usage.cache_read.input_tokens": 50}) == {
        ("input", "text", ""): 60,
        ("input", "audio", ""): 40,
    }
    only_text: Attributes = {"gen_ai.usage.text.input_tokens": 60, "gen_ai.usage.cache_read.input_tokens": 50}
    assert tokens(only_text) == {("input", "text", "true"): 50, ("input", "text", "false"): 10}


def test_reasoning_is_part_of_the_text_unless_the_total_has_room_beside_it() -> None:
    usage: Attributes = {"gen_ai.usage.text.output_tokens": 30, "gen_ai.usage.reasoning.output_tokens": 20}

    assert tokens(usage | {"gen_ai.usage.output_tokens": 30}) == {
        ("output", "text", ""): 10,
        ("output", "reasoning", ""): 20,
    }
    assert tokens(usage | {"gen_ai.usage.output_tokens": 50}) == {
        ("output", "text", ""): 30,
        ("output", "reasoning", ""): 20,
    }


# --- What agents can send -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, -0.5, LARGEST + 1, float("nan"), float("inf"), 2**70, True, "5", ["5"]])
def test_what_is_no_amount_is_left_out(value: Value) -> None:
    latency, usage = "openai.realtime.response.time_to_created", "gen_ai.usage.input_tokens"
    measured = meter().measure(span("realtime_inference", {latency: value, usage: value}))

    assert values(measured, latency) == values(measured, "gen_ai.client.token.usage") == []
    assert values(measured, "openai.realtime.tokens") == []
    assert len(values(measured, "openai.realtime.spans")) == 1


ANYTHING = st.one_of(
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from(["\ud800", "a\nb", "\x00", '"}', "x" * 100_000, "é" * 200]),
)


@share(0.5)
@given(
    operation=st.sampled_from([*key.SPANS, "something else"]),
    attributes=st.dictionaries(
        st.sampled_from([*key.ATTRIBUTES, "openai.realtime.rate_limit.tokens.remaining", "application"]), ANYTHING
    ),
    times=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)).map(sorted),
)
def test_whatever_stands_on_a_span_it_can_be_measured_stored_and_added_up(
    operation: str, attributes: Attributes, times: list[int]
) -> None:
    hostile = span(operation, attributes | {key.OPERATION: operation}, start=times[0], end=times[1])

    measured = meter(PRICES).measure(hostile)

    assert unpack(pack([measured])) == [measured]
    for each in measured.measurements:
        assert 0 <= each.value <= 8 * LARGEST, "a few values together at most"
        assert all(len(value) <= LONGEST_LABEL and value.encode() for value in each.labels if value)
    sums = Sums()
    sums.add(measured, 1)
    restored = Sums()
    restored.restore(sums.changes().items())
    assert stored(restored) == stored(sums)


def test_a_session_that_moves_is_one_and_its_tokens_are_each_counted_once() -> None:
    records = numbered([*weather_call()[:-1], *closed()])
    whole = summed(stitched(records, Rules(sharded=True)).spans)

    for cut in range(1, len(records)):
        spans = [*parted(records[:cut]), *parted(records[cut:])]
        sums = summed(spans)
        assert total(sums, "openai.realtime.sessions.ended") == 1
        assert total(sums, "openai.realtime.sessions.moved") == 1
        assert sum(each.count for each in series_of(sums, "openai.realtime.session.duration")) == 1
        for name in ("openai.realtime.tokens", "openai.realtime.tool.calls", "openai.realtime.records"):
            assert total(sums, name) == total(whole, name), name


def parted(records: list[Record]) -> list[Span]:
    return stitched(records, Rules(sharded=True)).spans
