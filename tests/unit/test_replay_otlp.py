"""`realtime-otel replay` of OTLP/JSON, and where its spans can go: a page, an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel_sidecar.otlp.encode import _hexadecimal_ids, encode_spans, joined, to_otlp_json
from realtime_otel_sidecar.replay import replay
from tests.conversations import Logged
from tests.page import calls
from tests.sidecar import Backend, Recording, contents, conversation, interleaved, partial, refused, unavailable
from tests.unit.test_replay import lines, ran, written


def as_line(request: bytes) -> str:
    """A request of records as the Collector's file exporter writes it."""
    document = MessageToDict(ExportLogsServiceRequest.FromString(request), use_integers_for_enums=True)
    _hexadecimal_ids(document)
    return json.dumps(document)


def written_lines(path: Path, *recordings: Recording) -> Path:
    return written(path, [as_line(request) for request in interleaved(recordings)])


def everything(file: Path, **flags: Any) -> dict[Any, Any]:
    return contents(request.SerializeToString() for request in replay(file, **flags).requests())


# --- What can be read -----------------------------------------------------------------------------------------------


def test_records_are_stitched_as_the_sidecar_does(tmp_path: Path) -> None:
    both = [calls.recorded(name="one"), calls.recorded(name="two")]
    file = written_lines(tmp_path, *both)
    assert everything(file, content=True) == contents(calls.spans(each).SerializeToString() for each in both)


def test_without_content_nothing_of_what_was_said_is_there(tmp_path: Path) -> None:
    file = written_lines(tmp_path, calls.recorded())
    assert calls.QUESTION in file.read_text("utf-8")
    shown = to_otlp_json(joined(replay(file).requests()))
    for text in (calls.QUESTION, calls.ANSWER, "Oslo", "asking the station"):
        assert text not in shown


def test_spans_are_shown_as_they_are(tmp_path: Path) -> None:
    spans = [calls.spans(calls.recorded(name=name)) for name in ("one", "two")]
    file = written(tmp_path, [json.dumps(json.loads(to_otlp_json(each))) for each in spans])
    assert everything(file) == contents(each.SerializeToString() for each in spans)


def test_what_replay_has_written_it_also_reads(tmp_path: Path) -> None:
    first = tmp_path / "spans.json"
    assert ran(written(tmp_path, lines(steps())), "--otlp-json", first).returncode == 0
    again = ran(first, "--otlp-json", "-")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == first.read_text("utf-8")


def steps() -> list[Any]:
    return [step for step in calls.conversation() if not isinstance(step, Logged)]


def test_records_of_others_and_metrics_are_passed_over_and_a_file_of_nothing_else_is_said(tmp_path: Path) -> None:
    others = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}}]}]}]}
    file = written(tmp_path, [json.dumps(others), "", json.dumps({"resourceMetrics": []})])
    result = replay(file)
    assert result.spans == []
    assert result.problems == ["there is neither an event nor a record nor a span in it"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not OTLP/JSON: Expecting"),
        ("[]", "not OTLP/JSON: not an object"),
        ("{}", "not OTLP/JSON: none of resourceLogs, resourceSpans is in it"),
        ('{"resourceSpans": 7}', "not OTLP/JSON: Failed to parse resourceSpans"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', "not OTLP/JSON: non-hexadecimal"),
    ],
)
def test_a_bad_line_is_named_with_its_reason_and_the_rest_is_used(tmp_path: Path, line: str, reason: str) -> None:
    requests = [as_line(request) for request in interleaved([calls.recorded()])]
    file = written(tmp_path, [*requests, line])
    done = ran(file)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}: line {len(requests) + 1}: {reason}")
    assert "realtime_session gpt-realtime" in done.stdout


def test_a_record_that_breaks_the_contract_is_named(tmp_path: Path) -> None:
    requests = [as_line(request) for request in interleaved([calls.recorded()])]
    requests[1] = requests[1].replace("openai.realtime.stream.id", "openai.realtime.stream.no")
    assert "line 2: " in ran(written(tmp_path, requests)).stderr


# --- Where it can go ------------------------------------------------------------------------------------------------


def test_a_page_of_a_recording_holds_what_was_said_only_if_it_is_asked_for(tmp_path: Path) -> None:
    file, page = written(tmp_path, lines(steps())), tmp_path / "page.html"
    done = ran(file, "--html", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"page: {page}"
    assert calls.QUESTION not in page.read_text("utf-8")
    shown = ran(file, "--content", "--html", "-").stdout
    assert shown.startswith("<!doctype html>")
    assert calls.QUESTION in shown


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = ran(written(tmp_path, lines(steps())), "--html", tmp_path / "none" / "page.html")
    assert done.returncode == 1
    assert done.stderr == f"realtime-otel: {tmp_path}/none/page.html cannot be written: No such file or directory\n"


def test_only_one_thing_fits_into_standard_output(tmp_path: Path) -> None:
    done = ran(written(tmp_path, lines(steps())), "--html", "-", "--otlp-json", "-")
    assert (done.returncode, done.stdout) == (1, "")


def test_spans_are_sent_to_an_endpoint(tmp_path: Path) -> None:
    file = written_lines(tmp_path, conversation("one"), conversation("two"))
    with Backend() as backend:
        backend.answers = [unavailable()]  # it is asked again
        done = ran(file, "--to", backend.endpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert contents(backend.accepted) == everything(file)


def test_many_spans_are_several_requests(tmp_path: Path) -> None:
    whole = ExportTraceServiceRequest()
    for number in range(60):
        spans = calls.spans(calls.recorded(name=f"stream-{number}"))
        spans.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="bulk").value.string_value = "x" * 100_000
        whole.MergeFrom(spans)
    file = tmp_path / "spans.json"
    file.write_text(to_otlp_json(whole), "utf-8")
    with Backend() as backend:
        assert ran(file, "--to", backend.endpoint).returncode == 0
        assert len(backend.accepted) > 1
        assert contents(backend.accepted) == contents([whole.SerializeToString()])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refused(grpc.StatusCode.PERMISSION_DENIED), "does not take the spans: PERMISSION_DENIED: as the test says"),
        (partial(2), "has rejected 2 spans: not these"),
    ],
)
def test_an_endpoint_that_does_not_take_them_is_a_failure(tmp_path: Path, answer: Any, said: str) -> None:
    file = written_lines(tmp_path, conversation("one"))
    with Backend() as backend:
        backend.answer = answer
        done = ran(file, "--to", backend.endpoint)
        assert done.returncode == 1
        assert said in done.stderr


@pytest.mark.parametrize(
    ("endpoint", "said"), [("nowhere", "it must be http://host:port"), ("http://127.0.0.1:1", "UNAVAILABLE")]
)
def test_an_endpoint_that_is_none_is_named(tmp_path: Path, endpoint: str, said: str) -> None:
    done = ran(written(tmp_path, lines(steps())), "--to", endpoint)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_library_says_the_same(tmp_path: Path) -> None:
    file = written(tmp_path, lines(steps()))
    result = replay(file)
    assert result.requests() == [encode_spans(result.spans)]
