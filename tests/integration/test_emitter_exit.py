"""The end of a process, and its division in two: real interpreters, run as the user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from realtime_otel import contract, transport
from tests.integration.emitting import assert_gapless, attribute, body, kinds
from tests.integration.test_emitter_sending import forwarding
from tests.stack.otlp import LogsServer
from tests.stack.processes import address

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import asyncio, logging, os, sys, threading, time
from realtime_otel import RealtimeEmitter
event = {"type": "input_audio_buffer.speech_started", "item_id": "item_1"}
"""
# Beyond the two seconds of the emitter: the interpreter's own end on a busy machine. Waiting for a call would take ten.
END_SECONDS = 8.0


@pytest.fixture
def collector() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


def environment(endpoint: str) -> dict[str, str]:
    """Where a process finds the emitter, and the emitter its destination."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    path = os.pathsep.join([str(ROOT / "emitter"), str(ROOT)])
    return plain | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}", "PYTHONPATH": path}


def run(script: str, endpoint: str, *, expects: tuple[int, ...] = (0,), **variables: str) -> tuple[str, float]:
    """The script's error output, and the seconds from its last statement (before END) to its end."""
    ending = "print(time.time(), flush=True)"
    marked = re.sub(r"\bEND\b", ending, textwrap.dedent(script))
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + marked]
    done = subprocess.run(
        command, env=environment(endpoint) | variables, capture_output=True, text=True, timeout=60, check=False
    )
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
            assert mine.flush(40)
        child = os.fork()
        if child == 0:
            mine.server_event(event)
            mine.annotate(whose="child")
            mine.close()
            assert mine.closed and not mine.flush(40)
            own = RealtimeEmitter(session_id="child")
            own.server_event(event)
            own.close()
            assert own.flush(40)
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
        assert own.flush(40)
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


@pytest.mark.parametrize(
    ("away", "end"),
    [
        ("absent", ""),
        ("slow", ""),
        ("resetting", ""),
        ("silent", ""),
        ("silent", "sys.exit(3)"),
        ("silent", "raise KeyError('x')"),
        ("silent", "threading.Thread(target=sys.exit).start()"),
        ("silent", "asyncio.run(interrupted())"),
    ],
)
def test_a_process_with_many_streams_ends_in_two_seconds_whatever_the_collector_does(away: str, end: str) -> None:
    with ANSWERS[away]() as endpoint:
        errors, seconds = run(
            f"""
            import signal
            signal.signal(signal.SIGINT, signal.default_int_handler)

            async def interrupted():
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(30)

            emitters = [RealtimeEmitter() for _ in range(300)]
            for emitter in emitters:
                for _ in range(20):
                    emitter.server_event(event)
            time.sleep(0.3)
            END
            {end}
            """,
            endpoint,
            expects=(0, 1, 3, -2),
        )

    assert seconds < END_SECONDS
    assert "Fatal" not in errors
    is_said = "did not take all records" in errors
    # A slow one takes all, unless the machine is slower still: then there is no time left for it.
    assert is_said or away == "slow"
    assert not is_said or away != "slow" or seconds > transport.EXIT_SECONDS


@contextmanager
def absent() -> Iterator[str]:
    yield address()


@contextmanager
def silent() -> Iterator[str]:
    """Accepts connections, or the system does for it, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def slow() -> Iterator[str]:
    """Answers late, but takes all."""

    def late() -> bool:
        time.sleep(0.05)
        return False

    with LogsServer() as server:
        server.refuse = late
        yield server.endpoint


@contextmanager
def resetting() -> Iterator[str]:
    """Ends each connection with a reset as soon as something comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.recv(1)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join(5)


ANSWERS: Final[Mapping[str, Callable[[], AbstractContextManager[str]]]] = {
    "absent": absent,
    "silent": silent,
    "slow": slow,
    "resetting": resetting,
}


def test_a_collector_that_comes_back_just_before_a_process_ends_gets_everything(collector: LogsServer) -> None:
    script = """
    emitters = [RealtimeEmitter() for _ in range(3)]
    for emitter in emitters:
        emitter.server_event(event)
    assert not emitter.flush(4)  # by now the next attempt is seconds away
    print("away", flush=True)
    sys.stdin.readline()
    """
    with absent() as endpoint:
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
            env=environment(endpoint),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "away\n"
            with forwarding(int(endpoint.rpartition(":")[2]), collector.endpoint):
                process.communicate("\n", timeout=30)

    assert sorted(kinds(collector.records())) == sorted(
        3 * ["emitter.stream_opened", event_type(), "emitter.stream_closed"]
    )


def test_a_destination_that_is_away_takes_no_time_from_another(collector: LogsServer) -> None:
    with silent() as away:
        run(
            """
            def emit(endpoint):
                os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://" + endpoint
                RealtimeEmitter().server_event(event)
            emit(os.environ["AWAY"])
            time.sleep(0.5)
            emit(os.environ["HERE"])
            END
            """,
            away,
            AWAY=away,
            HERE=collector.endpoint,
        )

    assert kinds(collector.records()) == ["emitter.stream_opened", event_type(), "emitter.stream_closed"]
