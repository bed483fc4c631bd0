"""What ``realtime-otel check`` says without the network: of stored tools, and of answers that gRPC gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_otel_sidecar.checks.steps import State, advice
from realtime_otel_sidecar.checks.tools import tool_logs
from realtime_otel_sidecar.cli import main
from realtime_otel_sidecar.store.folder import StoreError
from tests import conversations as talk
from tests.conversations import Logged, Step, closed, opened, session
from tests.sidecar import record
from tests.unit.sidecar.rig import Rig, eventually


def calling(name: str, service: str, *logged: Logged) -> bytes:
    """A conversation with one call, and what its tool logged."""
    steps: list[Step | Logged] = [*opened(), *session(), *talk.tool_call("resp_1", "call_1"), *logged, *closed()]
    return record(steps, name, service=service).request()


def test_a_service_whose_tools_have_logged_nothing_is_told_of_and_no_other(tmp_path: Path) -> None:
    line = Logged("asking the weather service", "call_1")
    with Rig(tmp_path / "data") as rig:
        rig.take(
            calling("one", "quiet"), calling("two", "quiet"), calling("three", "loud", line), calling("four", "loud")
        )
        rig.take(record([*opened(), *session(), *closed()], "five", service="without tools").request())
        rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
        eventually(lambda: not rig.rows("SELECT id FROM outbox"))
        (step,) = tool_logs(rig.folder)
    assert (step.name, step.state) == ("tool logs of quiet", State.NOTE)
    assert step.said == "2 calls of tools were put out, and none of them has a log line"
    assert "ToolLogHandler()" in step.advice


def test_a_data_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is .* the data directory of a sidecar"):
        list(tool_logs(tmp_path))


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("UNAUTHENTICATED", "no", "wants a token"),
        ("PERMISSION_DENIED", "no", "wants a token"),
        ("UNIMPLEMENTED", "unknown service", "Something else listens there"),
        ("UNAVAILABLE", "try again", "refuses for now"),
        ("UNAVAILABLE", "Trying to connect an http1.x server", "speaks HTTP/1"),
        ("UNAVAILABLE", "Ssl handshake failed", "Only one end speaks TLS"),
        ("INTERNAL", "a defect", "See its own log"),
    ],
)
def test_what_to_do_follows_from_the_answer_and_names_the_settings(code: str, details: str, expected: str) -> None:
    told = advice(code, details, "a service", "these settings")
    assert expected in told
    assert "these settings" in told


def test_settings_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--sidecar", "host:4317", "--sidecar-ca-file", "ca.pem"]) == 1
    assert "endpoint_ca_file is given, but endpoint is 'host:4317'" in capsys.readouterr().err
