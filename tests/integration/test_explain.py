"""``realtime-otel explain`` beside the sidecar's own process, and after it was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import grpc

from tests import conversations as talk
from tests.sidecar import Backend, Client, SidecarProcess, conversation, one_by_one, record, refused


def told(sidecar: SidecarProcess, text: str) -> tuple[int, str]:
    """What the command says in a process of its own, as one line, and its exit status."""
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", "explain", text, "--data-dir", str(sidecar.data_dir)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return run.returncode, " ".join((run.stdout + run.stderr).split())


def until(sidecar: SidecarProcess, text: str, expected: str) -> tuple[int, str]:
    """The same, once it says what is expected."""
    deadline = time.monotonic() + 60
    while expected not in (answer := told(sidecar, text))[1]:
        assert time.monotonic() < deadline, answer
    return answer


def test_a_call_is_followed_from_its_first_record_to_the_collector_over_an_outage_and_a_kill(tmp_path: Path) -> None:
    call = record(talk.weather_call(), "call")
    with Backend() as backend, SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        assert told(sidecar, "call")[0] == 1
        backend.answer = refused(grpc.StatusCode.PERMISSION_DENIED)
        with Client(sidecar.port) as client:
            client.send(call.request(0, 30))
        status, said = until(sidecar, "sess_1", "The collector takes no spans since")
        assert status == 1
        assert "PERMISSION_DENIED: as the test says (see endpoint_token_file and endpoint_certificate_file)" in said
        assert "the session is open: its stream_closed has not come" in said
        sidecar.kill()
        assert told(sidecar, "sess_1")[1].partition("after")[0] == said.partition("after")[0], (
            "a kill changes no answer"
        )
        backend.answer = lambda _context: b""
        sidecar.start()
        with Client(sidecar.port) as client:
            client.send(call.request(30))
        status, said = until(sidecar, "call_1", "8 spans acknowledged by the collector")
        assert status == 0
        assert "call_1 is the execute_tool" in said
        assert sidecar.stop() == 0
        assert told(sidecar, "call_1") == (0, said.replace("execute_tool get_weather", "execute_tool"))


def test_questions_keep_no_request_waiting_and_nothing_of_the_log_in_place(tmp_path: Path) -> None:
    requests = one_by_one(conversation("long", turns=20), size=20)
    with Backend() as backend, SidecarProcess(tmp_path, backend.endpoint) as sidecar, Client(sidecar.port) as client:
        for number, request in enumerate(requests):
            client.send(request)
            if number % 6 == 0:
                assert told(sidecar, "long")[0] == 0
        until(sidecar, "long", "acknowledged by the collector")
        assert sidecar.stop() == 0
        assert [path.name for path in sidecar.data_dir.glob("realtime-otel.db-*")] == []
