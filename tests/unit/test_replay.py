"""A recorded stream as a trace: in the library, and as the command ``realtime-otel replay``."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console

from realtime_otel.contract import Direction
from realtime_otel_sidecar.otlp.encode import encode_spans, to_otlp_json
from realtime_otel_sidecar.page.view import view
from realtime_otel_sidecar.replay import OPENED, Replay, replay
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.build import GAP
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.session import Session
from realtime_otel_sidecar.stitch.spans import Attributes, SpanEvent
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.tree import render
from tests.conversations import RECORDINGS, Step, call_complete, numbered, recorded, session, weather_call
from tests.unit.core.stitching import check_trace, fed, kept, links, named, one, reason

COMMAND = Path(sys.executable).with_name("realtime-otel")
FILES = sorted(RECORDINGS.glob("*.jsonl"))
NO_RECORDINGS = pytest.mark.skipif(not FILES, reason="there are no recordings beside this checkout")
EACH_RECORDING = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem) for path in FILES] or [pytest.param(Path(), marks=NO_RECORDINGS)]
)

CANARY = "The canary sings at noon"


def lines(steps: Iterable[Step], *, apart: float | None = None) -> list[str]:
    """What a file says of these steps, but for what only an emitter knows."""
    events = [step for step in steps if step.direction is not Direction.EMITTER]
    return [
        json.dumps({"t": None if apart is None else number * apart, "dir": step.direction, "event": step.event})
        for number, step in enumerate(events)
    ]


def written(path: Path, content: Iterable[str]) -> Path:
    file = path / "conversation.jsonl"
    file.write_text("".join(line + "\n" for line in content), "utf-8")
    return file


def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "replay", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def parsed(text: str) -> ExportTraceServiceRequest:
    """OTLP/JSON read back; its ids are hexadecimal, where protobuf's own JSON has base64."""

    def with_base64(node: Any) -> Any:
        if isinstance(node, list):
            return [with_base64(member) for member in node]
        if not isinstance(node, dict):
            return node
        return {
            name: base64.b64encode(bytes.fromhex(member)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else with_base64(member)
            for name, member in node.items()
        }

    return ParseDict(with_base64(json.loads(text)), ExportTraceServiceRequest())


def everything_shown(result: Replay) -> str:
    """All that leaves: encoded spans, OTLP/JSON, the tree."""
    request = encode_spans(result.spans)
    shown = io.StringIO()
    Console(file=shown, width=1000).print(render([request]))
    return request.SerializeToString().decode("latin-1") + to_otlp_json(request) + shown.getvalue()


# --- Recordings -----------------------------------------------------------------------------------------------------


@EACH_RECORDING
def test_every_recording_replays_into_a_trace(path: Path) -> None:
    result = replay(path)

    assert result.problems == []
    check_trace(result.spans)


@EACH_RECORDING
def test_a_recording_gives_the_same_bytes_each_time(path: Path) -> None:
    assert encode_spans(replay(path).spans) == encode_spans(replay(path).spans)


@NO_RECORDINGS
def test_the_recorded_tool_round_is_understood() -> None:
    spans = replay(RECORDINGS / "pydai-azure-spoken-tool.jsonl").spans

    call, (asking, speaking) = one(spans, "execute_tool remember_name"), named(spans, "realtime_inference")
    assert call.parent_span_id == asking.span_id
    assert [link.span_id for link in asking.links] == [one(spans, "user_speech").span_id]
    assert [link.span_id for link in speaking.links] == [call.span_id]
    assert {span.attributes[key.TURN_INDEX] for span in spans[:-1]} == {1}
    assert speaking.attributes[key.USAGE_INPUT] == 122


@NO_RECORDINGS
def test_the_recorded_interruption_is_understood() -> None:
    spans = replay(RECORDINGS / "sk-adr-webrtc.jsonl").spans

    (cut,) = [span for span in named(spans, "realtime_inference") if reason(span) == "interrupted"]
    (cutting,) = [span for span in named(spans, "user_speech") if key.CUT_RESPONSE in span.attributes]
    assert [target for target, kind, _ in links(cutting) if kind == "interrupts"] == [cut.span_id]


@NO_RECORDINGS
def test_a_recording_that_ends_in_the_middle_leaves_inferred_ends() -> None:
    spans = replay(RECORDINGS / "pydai-beta-tool-call.jsonl").spans

    assert {reason(span) for span in spans} == {"silence"}
    assert all(span.attributes[key.CLOSE_INFERRED] is True for span in spans)


@NO_RECORDINGS
def test_a_recorded_response_done_without_created_is_a_span() -> None:
    span = one(replay(RECORDINGS / "primess-twilio-filtered.jsonl").spans, "realtime_inference")

    assert span.attributes[key.START_INFERRED] is True
    assert span.attributes[key.USAGE_OUTPUT] == 193


# --- Files ----------------------------------------------------------------------------------------------------------


def test_times_count_from_the_opening_and_never_step_back(tmp_path: Path) -> None:
    created, *_, done = lines([step for step in weather_call() if "resp_1" in json.dumps(step.event)])
    entries = [json.loads(created), json.loads(done)]
    entries[0]["t"], entries[1]["t"] = 2.5, 1.0

    span = one(replay(written(tmp_path, map(json.dumps, entries))).spans, "realtime_inference")

    assert span.start == span.end == OPENED + 2_500_000_000


def test_events_without_times_are_a_millisecond_apart(tmp_path: Path) -> None:
    content = lines(weather_call())

    span = one(replay(written(tmp_path, content)).spans, "realtime_session")

    assert span.end - span.start == len(content) * 1_000_000


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (None, "session_closed"),
        ({"code": 1000}, "session_closed"),
        ({"code": 1006, "error_type": "ConnectionClosedError"}, "disconnected"),
        ({"reason": "disconnected"}, "disconnected"),
        ({"reason": "no such reason"}, "session_closed"),
    ],
)
def test_a_close_line_ends_the_session_for_its_reason(tmp_path: Path, event: Any, expected: str) -> None:
    close = json.dumps({"t": None, "dir": "close", "event": event})

    result = replay(written(tmp_path, [*lines(weather_call()), close]))

    span = one(result.spans, "realtime_session")
    assert reason(span) == expected
    assert key.CLOSE_INFERRED not in span.attributes
    assert span.error == ((event or {}).get("error_type") or ("disconnected" if expected == "disconnected" else ""))
    assert result.problems == []


def test_what_comes_after_the_close_is_a_problem_with_its_line(tmp_path: Path) -> None:
    close = json.dumps({"t": None, "dir": "close"})
    after = json.dumps({"t": None, "dir": "server", "event": {"type": "session.updated"}})

    assert replay(written(tmp_path, [close, "", after])).problems == ["line 3: after_close: session.updated"]


def test_appended_audio_is_counted_for_the_commit(tmp_path: Path) -> None:
    steps = [("client", "input_audio_buffer.append"), ("client", "input_audio_buffer.append"),
             ("server", "input_audio_buffer.committed")]  # fmt: skip
    entries = [
        {"t": 1.0 + number, "dir": direction, "event": {"type": kind, "audio": "AAAA", "item_id": "item_1"}}
        for number, (direction, kind) in enumerate(steps)
    ]

    span = one(replay(written(tmp_path, map(json.dumps, entries))).spans, "user_speech")

    assert (span.start, span.end) == (OPENED + 1_000_000_000, OPENED + 3_000_000_000)


def test_what_only_an_emitter_knows_has_lines_of_its_own(tmp_path: Path) -> None:
    call, *_ = lines(call_complete("resp_1", "call_1"))
    facts: list[dict[str, Any]] = [
        {"type": "emitter.stream_opened", "attributes": {"tenant": "north"}, "provider": "azure.ai.openai"},
        {"type": "emitter.tool_started", "call_id": "call_1", "name": "get_weather"},
        {"type": "emitter.tool_finished", "call_id": "call_1", "error_type": "TimeoutError"},
        {"type": "emitter.tool_started", "call_id": 7, "name": None},
        {"type": "emitter.agent_handed_off", "from": "reception", "to": "tides"},
    ]
    stated = [json.dumps({"t": None, "dir": "emitter", "event": event}) for event in facts]

    result = replay(written(tmp_path, [*stated[:1], call, *stated[1:]]))

    assert result.problems == []
    span = one(result.spans, "execute_tool get_weather")
    assert (span.attributes["tenant"], span.attributes[key.PROVIDER]) == ("north", "azure.ai.openai")
    assert (span.error, span.attributes[key.TOOL_DURATION]) == ("TimeoutError", 0.001)
    (handoff,) = kept(result.spans)
    assert (handoff.attributes[key.HANDED_FROM], handoff.attributes[key.HANDED_TO]) == ("reception", "tides")


def test_our_own_failure_is_a_problem_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_session: Session, record: Record, _rules: Rules) -> None:
        if record.type == "response.created":
            raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(Session, "_apply", failing)

    first, *others = replay(written(tmp_path, lines(weather_call()[2:5]))).problems

    assert first == "line 1: ZeroDivisionError: no such luck (on response.created)"
    assert others[-1].startswith("line 3: after_close")


def test_our_own_failure_at_the_end_of_the_file_is_a_problem_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(Session, "close", failing)

    assert replay(written(tmp_path, lines(weather_call()))).problems == [
        "ZeroDivisionError: no such luck (on ending a stream)"
    ]
    assert Stitcher().streams == {}


# --- The command ----------------------------------------------------------------------------------------------------


def test_the_command_shows_the_tree_and_answers_0(tmp_path: Path) -> None:
    process = ran(written(tmp_path, lines(weather_call())))

    assert (process.returncode, process.stderr) == (0, "")
    for name in ("realtime_session gpt-realtime", "user_speech", "realtime_inference", "execute_tool get_weather"):
        assert name in process.stdout


@pytest.mark.parametrize("value", ["text", 5, 0.5, True, [1]])
def test_an_application_may_name_its_attributes_like_ours(value: Any, tmp_path: Path) -> None:
    stated = {"type": "emitter.annotation", "attributes": dict.fromkeys(key.ATTRIBUTES, value)}
    opened = {"type": "emitter.stream_opened", "attributes": dict.fromkeys(key.ATTRIBUTES, value)}
    facts = [json.dumps({"t": 0, "dir": "emitter", "event": event}) for event in (opened, stated)]
    spans = replay(written(tmp_path, [*facts, *lines(weather_call())])).spans
    shown = everything_shown(Replay(spans))
    assert "realtime_session gpt-realtime" in shown
    assert [reason(span) for span in spans] == [
        reason(span) for span in replay(written(tmp_path, lines(weather_call()))).spans
    ]


def test_the_tree_shows_where_records_were_lost() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()
    spans = [span for record in records if record.seq not in (4, 5, 9) for span in stitcher.feed(record).spans]
    spans += [span for stream_key in list(stitcher.open) for span in stitcher.tick(stream_key).spans]

    shown = [
        " ".join(line.split()) for line in everything_shown(Replay(spans)).splitlines() if "· records lost" in line
    ]

    assert [line.partition("· ")[2] for line in shown] == [
        "records lost +0.040 s 0.220 s 2 records missing",
        "records lost +0.280 s 0.020 s 1 record missing",
    ]


@pytest.mark.parametrize("duration", [1e300, -5.0, "long", True])
def test_a_gap_that_somebody_else_has_written_is_shown_as_far_as_it_makes_sense(duration: Any) -> None:
    session_span = one(fed(numbered(weather_call())).spans, "realtime_session")
    attributes: Attributes = {key.GAP_DURATION: duration, key.RECORDS_MISSING: "many"}
    session_span.events.append(SpanEvent(session_span.start, GAP, attributes))

    assert "· records lost" in everything_shown(Replay([session_span]))
    assert view([encode_spans([session_span])])


def test_nothing_in_a_recording_commands_the_terminal(tmp_path: Path) -> None:
    process = ran(written(tmp_path, lines(session(model="[/bold]\x1b]0;title\x07\x9b31m\r"))), "--content")
    assert process.returncode == 0
    assert "realtime_session [/bold]\N{REPLACEMENT CHARACTER}]0;title" in process.stdout
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(process.stdout)


def test_a_bad_line_is_named_with_its_reason_and_the_rest_is_used(tmp_path: Path) -> None:
    good = lines(weather_call())
    bad = {
        "{not JSON": "not JSON",
        "[]": "not an object",
        '{"t": -1, "dir": "server", "event": {"type": "x"}}': "t is -1",
        '{"dir": "north", "event": {}}': "dir is 'north'",
        '{"dir": "server"}': "event is not an object",
        '{"dir": "server", "event": {}}': "event has no type",
        '{"t": true, "dir": "close"}': "t is True",
        '{"dir": "emitter", "event": {"type": "response.done"}}': "'response.done' is no fact of an emitter",
        "[" * 100_000: "not JSON",
    }
    file = written(tmp_path, [*good[:5], *bad, *good[5:]])

    process = ran(file, "--otlp-json", tmp_path / "spans.json")

    problems = process.stderr.splitlines()
    assert process.returncode == 1
    assert [problem.removeprefix(f"{file}: ").split(":")[0] for problem in problems] == [
        f"line {number}" for number in range(6, 6 + len(bad))
    ]
    assert all(why in problem for problem, why in zip(problems, bad.values(), strict=True))
    whole = encode_spans(replay(written(tmp_path, good)).spans)
    assert parsed((tmp_path / "spans.json").read_text("utf-8")) == whole


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    process = ran(tmp_path / "nowhere.jsonl")

    assert process.returncode == 1
    assert "nowhere.jsonl cannot be read" in process.stderr
    assert process.stdout == ""


def test_a_missing_argument_is_a_wrong_use() -> None:
    assert ran().returncode == 2


@EACH_RECORDING
def test_the_commands_otlp_json_is_the_trace_and_the_same_each_time(path: Path) -> None:
    first, second = ran(path, "--otlp-json", "-"), ran(path, "--otlp-json", "-")

    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    assert parsed(first.stdout) == encode_spans(replay(path).spans)


def test_ids_in_otlp_json_are_hexadecimal_and_enums_are_numbers(tmp_path: Path) -> None:
    document = json.loads(ran(written(tmp_path, lines(weather_call())), "--otlp-json", "-").stdout)

    (resource_spans,) = document["resourceSpans"]
    spans = resource_spans["scopeSpans"][0]["spans"]
    for span in spans:
        assert len(bytes.fromhex(span["traceId"])) == 16
        assert len(bytes.fromhex(span["spanId"])) == 8
        assert isinstance(span["kind"], int)
        assert all(len(bytes.fromhex(link["spanId"])) == 8 for link in span.get("links", []))


# --- Content --------------------------------------------------------------------------------------------------------


def test_with_content_on_what_was_said_stands_on_the_spans_and_else_nowhere(tmp_path: Path) -> None:
    content = [json.dumps({"t": None, "dir": step.direction, "event": in_content(step.event)}) for step in OURS]
    file = written(tmp_path, content)

    spans = replay(file, content=True).spans

    assert CANARY not in everything_shown(replay(file))
    assert CANARY in str(one(spans, "execute_tool").attributes[key.RESULT])
    assert CANARY in str(one(spans, "execute_tool").attributes[key.ARGUMENTS])


def everywhere(node: Any, *, but_type: bool = False, suffixed: bool = False) -> Any:
    """The same with the canary in the place of every string, or behind every string."""
    if isinstance(node, str):
        return f"{node} {CANARY}" if suffixed else CANARY
    if isinstance(node, list):
        return [everywhere(member, suffixed=suffixed) for member in node]
    if isinstance(node, dict):
        return {
            name: member if but_type and name == "type" else everywhere(member, suffixed=suffixed)
            for name, member in node.items()
        }
    return node


STRUCTURE = {"type", "role", "status", "reason", "id", "item_id", "previous_item_id", "response_id", "call_id", "model"}


def in_content(node: Any) -> Any:
    """The same with the canary in every string that is neither an id nor of a vocabulary: the trace stays whole."""
    if isinstance(node, list):
        return [in_content(member) for member in node]
    if isinstance(node, dict):
        return {
            name: member if name in STRUCTURE and isinstance(member, str) else in_content(member)
            for name, member in node.items()
        }
    return CANARY if isinstance(node, str) else node


def check_silence(path: Path, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
    entries = [json.dumps({"t": None, "dir": direction, "event": event}) for direction, event in events]
    result = replay(written(path, entries))
    assert result.spans
    assert "canary" not in everything_shown(result)
    assert "sings" not in everything_shown(result)


OURS = [step for step in weather_call() if step.direction is not Direction.EMITTER]
CONVERSATIONS = [
    pytest.param([(step.direction.value, step.event) for step in steps], id=name)
    for name, steps in [("ours", OURS), *((path.stem, recorded(path)) for path in FILES)]
]


@pytest.mark.parametrize("events", CONVERSATIONS)
def test_with_content_off_no_string_of_an_event_appears_anywhere(
    events: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    check_silence(tmp_path, [(direction, everywhere(event, but_type=True)) for direction, event in events])
    check_silence(tmp_path, [(direction, everywhere(event, suffixed=True)) for direction, event in events])
    check_silence(tmp_path, [(direction, in_content(event)) for direction, event in events])


ANY_EVENT = st.dictionaries(
    st.sampled_from(["type", "event_id", "name", "text", "session", "error", "items", CANARY]),
    st.recursive(
        st.just(CANARY) | st.integers() | st.booleans() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "code", "message", "metadata", "type", CANARY]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)


@given(event=ANY_EVENT, kind=st.sampled_from(["response.sang", "error", "session.created", CANARY, ""]))
def test_with_content_off_no_string_of_an_unknown_event_appears_anywhere(
    tmp_path_factory: pytest.TempPathFactory, event: dict[str, Any], kind: str
) -> None:
    check_silence(tmp_path_factory.mktemp("canary"), [("server", event | {"type": kind})])


@pytest.mark.parametrize("text", ["", "\n", '{"resourceLogs":[]}\n'], ids=["empty", "blank", "OTLP"])
def test_a_file_with_nothing_in_it_is_no_conversation(text: str, tmp_path: Path) -> None:
    result = replay(written(tmp_path, [text]))

    assert (result.spans, result.taken) == ([], [])
    assert result.problems == ["there is neither an event nor a record nor a span in it"]


def test_a_file_of_which_no_line_can_be_used_is_no_conversation(tmp_path: Path) -> None:
    result = replay(written(tmp_path, ["hello"]))

    assert (result.spans, len(result.problems)) == ([], 1)


# --- The tree -------------------------------------------------------------------------------------------------------

STREAMS = Path(__file__).parents[1] / "scenarios" / "streams"


def tree(name: str, *flags: str) -> str:
    return ran(STREAMS / f"{name}.jsonl", *flags).stdout


def test_the_tree_has_what_was_said_and_what_tools_were_given_if_it_is_asked_for() -> None:
    said = ("“What is the weather in Aldermoor?”", '{"town":"Aldermoor"}', "gave sunny, 20 degrees", "“It is sunny in")

    assert [words for words in said if words not in tree("one-tool", "--content")] == []
    assert [words for words in said if words in tree("one-tool")] == []


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        ("transcript-failed", "not transcribed: audio_unintelligible"),
        ("handoff", "greeter → billing"),
        ("guardrail", "no_medical_advice"),
        ("unknown-events", "5 unknown events"),
    ],
)
def test_the_tree_tells_what_went_wrong_or_changed(stream: str, told: str) -> None:
    assert told in tree(stream)


def test_the_tree_has_no_blanks_at_the_ends_of_its_lines() -> None:
    assert [line for line in tree("one-tool").splitlines() if line != line.rstrip()] == []
