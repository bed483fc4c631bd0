"""The end of a process, and its division in two: real interpreters, run as the user runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_otel import contract
from tests.integration.emitting import assert_gapless, attribute, body, kinds
from tests.stack.otlp import LogsServer

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import asyncio, logging, os, sys, threading, time
from realtime_otel import RealtimeEmitter
event = {"type": "input_audio_buffer.speech_started", "item_id": "item_1"}
"""
# Beyond the two seconds of the emitter: the interpreter's own end on a busy machine.
END_SECONDS = 4.0


@pytest.fixture
def collector() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


def run(script: str, endpoint: str, *, expects: tuple[int, ...] = (0,)) -> tuple[str, float]:
    """The script's error output, and the seconds from its last statement to its end."""
    ending = "\nprint(time.time(), flush=True)\n"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{endpoint}"
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "emitter"), str(ROOT)])
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(script).replace("END", ending)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    ended = time.time()
    assert done.returncode in expects, done.stderr
    return done.stderr, ended - float(done.stdout.split()[-1])


def test_a_process_that_ends_sends_everything_and_closes_its_streams(collector: LogsServer) -> None:
    errors, _ = run(
        """
        emitters = [RealtimeEmitter() for _ in range(3)]
        for _ in range(500):
            for emitter in emitters:
                emitter.server_event(event)
        END
        """,
        collector.endpoint,
    )

    assert errors == ""
    records = collector.records()
    for emitter_id in {attribute(record, contract.EMITTER_ID) for record in records}:
        mine = [record for record in records if attribute(record, contract.EMITTER_ID) == emitter_id]
        assert_gapless(mine)
        assert len(mine) == 502
        assert body(mine[-1]) == {"reason": "session_closed"}
    assert len(records) == 1506


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("raise KeyError('x')", 1), ("asyncio.run(asyncio.sleep(0))", 0)],
)
def test_nothing_is_lost_however_the_interpreter_exits(collector: LogsServer, end: str, code: int) -> None:
    run(
        f"""
        emitter = RealtimeEmitter()
        emitter.server_event(event)
        END
        {end}
        """,
        collector.endpoint,
        expects=(code,),
    )

    assert kinds(collector.records()) == ["emitter.stream_opened", event_type(), "emitter.stream_closed"]


def event_type() -> str:
    return "input_audio_buffer.speech_started"


def test_a_session_that_is_cut_off_by_an_interrupt_is_closed_at_exit(collector: LogsServer) -> None:
    run(
        """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
        emitter = RealtimeEmitter()

        async def converse():
            emitter.server_event(event)
            print(time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

        asyncio.run(converse())
        """,
        collector.endpoint,
        # Some versions end by the signal itself.
        expects=(1, -2),
    )

    assert kinds(collector.records())[-1] == "emitter.stream_closed"


def test_a_process_ends_in_two_seconds_when_the_collector_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        gone = f"127.0.0.1:{reserved.getsockname()[1]}"
    errors, seconds = run(
        """
        emitter = RealtimeEmitter()
        for _ in range(1000):
            emitter.server_event(event)
        time.sleep(0.5)
        END
        """,
        gone,
    )

    assert seconds < END_SECONDS
    assert "did not take all records" in errors


def test_a_process_ends_in_two_seconds_when_the_collector_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        errors, seconds = run(
            """
            emitter = RealtimeEmitter()
            emitter.server_event(event)
            time.sleep(1)
            END
            """,
            f"127.0.0.1:{silent.getsockname()[1]}",
        )

    assert seconds < END_SECONDS
    assert "did not take all records" in errors
    assert "Fatal" not in errors


def test_a_process_that_observes_nothing_ends_at_once(collector: LogsServer) -> None:
    _, seconds = run("import realtime_otel.transport\nEND", collector.endpoint)

    assert seconds < END_SECONDS / 2
    assert collector.records() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("sent_before", [True, False])
def test_parent_and_child_of_a_fork_each_send_their_own(collector: LogsServer, sent_before: bool) -> None:
    errors, _ = run(
        f"""
        mine = RealtimeEmitter(session_id="parent")
        mine.server_event(event)
        if {sent_before}:
            assert mine.flush(10)
        child = os.fork()
        if child == 0:
            mine.server_event(event)
            mine.annotate(whose="child")
            mine.close()
            assert mine.closed and not mine.flush(10)
            own = RealtimeEmitter(session_id="child")
            own.server_event(event)
            own.close()
            assert own.flush(10)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        mine.server_event(event)
        END
        """,
        collector.endpoint,
    )

    assert "Traceback" not in errors
    streams: dict[str, list[str]] = {}
    for record in collector.records():
        streams.setdefault(attribute(record, contract.STREAM_ID), []).extend(kinds([record]))
    assert streams == {
        "parent": ["emitter.stream_opened", event_type(), event_type(), "emitter.stream_closed"],
        "child": ["emitter.stream_opened", event_type(), "emitter.stream_closed"],
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_service_is_another_instance(collector: LogsServer) -> None:
    run(
        """
        RealtimeEmitter().close()
        child = os.fork()
        own = RealtimeEmitter()
        own.close()
        assert own.flush(10)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        END
        """,
        collector.endpoint,
    )

    instances = {
        each.value.string_value
        for request in collector.requests
        for logs in request.resource_logs
        for each in logs.resource.attributes
        if each.key == "service.instance.id"
    }
    if not instances:
        pytest.skip("this version of the SDK does not name instances")
    assert len(instances) == 2


def test_importing_the_package_imports_no_more_than_is_asked_for() -> None:
    script = """
    import realtime_otel
    assert "observe" in dir(realtime_otel)
    assert not {"opentelemetry", "grpc", "google", "agents", "openai"} & set(sys.modules)
    from realtime_otel import ToolLogHandler, ToolLogProcessor
    assert not {"grpc", "agents", "openai"} & set(sys.modules)
    from realtime_otel import RealtimeEmitter, RealtimeListener, observe
    assert not {"agents", "openai"} & set(sys.modules)
    print(0)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "emitter")}
    command = [sys.executable, "-c", "import sys\n" + textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
