"""The log of the real process as JSON: each line is an object, whatever happens."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests import conversations as talk
from tests.sidecar import Backend, Client, SidecarProcess, conversation, record, unavailable
from tests.unit.sidecar.rig import eventually, stitched
from tests.unit.sidecar.test_decode import changed, request_of

JSON = ("--log-format", "json")


def lines(sidecar: SidecarProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sidecar.log.splitlines()]


def events(sidecar: SidecarProcess) -> list[str]:
    return [line["event"] for line in lines(sidecar)]


def test_what_happens_to_a_sidecar_is_told_line_by_line(tmp_path: Path) -> None:
    request = conversation("one").request()
    flags = ("--max-streams", "1", "--max-streams-per-service", "1", "--max-records-per-request", "100")
    with Backend() as backend, SidecarProcess(tmp_path, backend.endpoint, *JSON, *flags) as sidecar:
        with Client(sidecar.port) as client:
            backend.answers.append(unavailable())
            client.send(request)
            backend.wait_for(stitched([request]))
            client.send(changed(request_of(), lambda broken: broken.ClearField("trace_id")))
            for name in ("a", "b"):
                client.send(record(talk.opened(), name).request())
            with pytest.raises(grpc.RpcError):
                client.send(request * 3)
            eventually(lambda: "streams_evicted" in events(sidecar))
        assert sidecar.stop() == 0
        told = {line["event"]: line for line in lines(sidecar)}
    assert told["listening"] | {"port": sidecar.port, "endpoint": backend.endpoint} == told["listening"]
    assert told["spans_not_taken"] | {"severity": "WARN", "endpoint": backend.endpoint} == told["spans_not_taken"]
    assert told["spans_not_taken"]["reason"].startswith("UNAVAILABLE: ")
    assert told["spans_taken_again"]["severity"] == "INFO"
    assert told["records_broken"]["count"] == 1
    assert told["streams_evicted"] | {"count": 1, "service": "agent-a"} == told["streams_evicted"]
    assert told["streams_evicted"]["limits"] == {"max_streams": 1}
    assert told["requests_refused"] | {"reason": "too_many_records", "severity": "ERROR"} == told["requests_refused"]
    assert told["stopped"]["count"] == 0
    assert {line["logger"].partition(".")[0] for line in told.values()} == {"realtime_otel_sidecar"}


def test_why_a_sidecar_does_not_start_is_a_line_as_well(tmp_path: Path) -> None:
    with SidecarProcess(tmp_path, "http://127.0.0.1:9", *JSON):
        second = SidecarProcess(tmp_path, "http://127.0.0.1:9", *JSON)
        second.launch()
        assert second.wait() == 1
        (line,) = lines(second)
        assert (line["event"], line["severity"]) == ("not_started", "FATAL")
        assert "in use by another process" in line["message"]


def test_grpc_adds_no_lines_of_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sidecar = SidecarProcess(tmp_path, "http://127.0.0.1:9", *JSON, "--listen", f"127.0.0.1:{port}")
        sidecar.launch()
        assert sidecar.wait() == 1
        assert events(sidecar) == ["recovered", "not_started"]
