"""A process that is divided, stopped or interrupted while it emits: real interpreters, as in `test_emitter_exit`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_otel import contract
from tests.integration.emitting import assert_gapless, attribute, kinds
from tests.integration.test_emitter_exit import END_SECONDS, PREAMBLE, environment, event_type, run
from tests.stack.otlp import LogsServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
WHOLE = ["emitter.stream_opened", event_type(), "emitter.stream_closed"]


@pytest.fixture
def collector() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


def streams(collector: LogsServer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in collector.records():
        found.setdefault(attribute(record, contract.STREAM_ID), []).extend(kinds([record]))
    return found


@pytest.mark.parametrize("own", [True, False])
def test_a_child_that_is_forked_while_a_request_is_under_way_ends_in_two_seconds(own: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        errors, seconds = run(
            f"""
            emitters = [RealtimeEmitter() for _ in range(20)]
            for emitter in emitters:
                emitter.server_event(event)
            time.sleep(0.5)
            child = os.fork()
            if child == 0:
                for emitter in emitters:
                    emitter.server_event(event)
                    emitter.close()
                if {own}:
                    RealtimeEmitter().server_event(event)
                sys.exit(0)
            END
            os.waitpid(child, 0)  # with which status is gRPC's to say: it does not always go on after such a fork
            os._exit(0)
            """,
            f"127.0.0.1:{silent.getsockname()[1]}",
        )

    assert seconds < END_SECONDS
    assert errors.count("did not take all records") <= own


def test_a_child_sends_nothing_of_its_parents_however_it_ends(collector: LogsServer) -> None:
    run(
        """
        mine = RealtimeEmitter(session_id="parent")
        mine.server_event(event)
        children = []
        for end in (lambda: sys.exit(0), lambda: os._exit(0), lambda: 1 / 0):
            children.append(os.fork())
            if children[-1] == 0:
                sys.stderr = open(os.devnull, "w")
                mine.server_event(event)
                end()
        for child in children:
            os.waitpid(child, 0)
        END
        """,
        collector.endpoint,
    )

    assert streams(collector) == {"parent": WHOLE}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("end", ["return", "sys.exit(0)", "raise KeyError"])
def test_a_child_of_multiprocessing_sends_what_it_has_left_open(
    collector: LogsServer, tmp_path: Path, method: str, end: str
) -> None:
    script = f"""
import multiprocessing, os, sys
from realtime_otel import RealtimeEmitter
event = {{"type": "{event_type()}", "item_id": "item_1"}}

def converse():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    own = RealtimeEmitter(session_id="child")
    own.server_event(event)
    {end}

if __name__ == "__main__":
    mine = RealtimeEmitter(session_id="parent")
    mine.server_event(event)
    assert mine.flush(40)  # gRPC does not always go on in a child that is forked in the middle of a call
    child = multiprocessing.get_context("{method}").Process(target=converse)
    child.start()
    child.join(30)
    assert child.exitcode is not None
"""
    (tmp_path / "calls.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "calls.py"],
        env=environment(collector.endpoint),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    # gRPC itself may say that another thread was in a call.
    assert not {"Traceback", "realtime-otel", "Warning"} & set(re.findall(r"[\w-]+", done.stderr))

    assert streams(collector) == {"parent": WHOLE, "child": WHOLE}


def test_a_child_does_nothing_where_grpc_does_not_support_forks(collector: LogsServer) -> None:
    errors, _ = run(
        """
        mine = RealtimeEmitter(session_id="parent")
        mine.server_event(event)
        child = os.fork()
        if child == 0:
            own = RealtimeEmitter(session_id="child")
            own.server_event(event)
            assert own.closed and not own.flush(40)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        END
        """,
        collector.endpoint,
        GRPC_ENABLE_FORK_SUPPORT="0",
    )

    assert streams(collector) == {"parent": WHOLE}
    assert errors.count("gRPC's support of forks is off") == 1


def test_threads_that_fork_while_others_emit_make_children_that_end(collector: LogsServer) -> None:
    run(
        """
        emitters = [RealtimeEmitter() for _ in range(4)]
        ending = threading.Event()

        def talk(emitter):
            while not ending.is_set():
                emitter.server_event(event)
                time.sleep(0.0005)  # without it, a busy machine fills the queue before the forks are done

        threads = [threading.Thread(target=talk, args=(emitter,)) for emitter in emitters]
        for thread in threads:
            thread.start()
        for _ in range(30):
            child = os.fork()
            if child == 0:
                for emitter in emitters:
                    emitter.server_event(event)
                    emitter.client_event({"type": "input_audio_buffer.append", "audio": ""})
                    emitter.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ending.set()
        for thread in threads:
            thread.join()
        END
        """,
        collector.endpoint,
    )

    records = collector.records()
    for emitter_id in {attribute(record, contract.EMITTER_ID) for record in records}:
        assert_gapless([record for record in records if attribute(record, contract.EMITTER_ID) == emitter_id])


def test_a_signal_handler_that_opens_and_closes_streams_stops_no_thread(collector: LogsServer) -> None:
    run(
        """
        import signal
        emitters, opened, is_handling = [], 0, False

        def handle(*_):
            global opened, is_handling
            if is_handling:  # on a busy machine it would interrupt itself without end
                return
            is_handling = True
            opened += 1
            with RealtimeEmitter() as emitter:
                emitter.server_event(event)
                if emitters:
                    emitters.pop().close()
            is_handling = False

        RealtimeEmitter().close()  # the first asks the SDK for the resource, which may not be asked for inside itself
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while opened < 300:
            emitters.append(RealtimeEmitter())
            emitters[-1].server_event(event)
            if len(emitters) > 5:
                emitters.pop().close()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert sum(thread.name == "realtime-otel" for thread in threading.enumerate()) == 1
        END
        """,
        collector.endpoint,
    )

    numbers: dict[str, list[int]] = {}
    for record in collector.records():
        numbers.setdefault(attribute(record, contract.EMITTER_ID), []).append(attribute(record, contract.SEQ))
        if record.event_name.endswith("stream_closed"):
            assert attribute(record, contract.SEQ) == max(numbers[attribute(record, contract.EMITTER_ID)])
    assert len(numbers) > 300
    assert all(len(set(each)) == len(each) for each in numbers.values())


def test_a_finalizer_that_closes_streams_stops_no_thread(collector: LogsServer) -> None:
    run(
        """
        import gc
        gc.set_threshold(3)
        for _ in range(1000):
            dropped = RealtimeEmitter()
            dropped.itself = dropped
            dropped.server_event(event)
        gc.set_threshold(700)
        del dropped
        gc.collect()
        END
        """,
        collector.endpoint,
    )

    assert all(sorted(each) == sorted(WHOLE) for each in streams(collector).values())
    assert len(streams(collector)) == 1000


def test_a_process_that_was_stopped_for_longer_than_any_timeout_loses_nothing(collector: LogsServer) -> None:
    script = """
    emitter = RealtimeEmitter()
    print("opened", flush=True)
    for _ in range(200):
        emitter.server_event(event)
        time.sleep(0.005)
    emitter.close()
    emitter.flush(30)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
        env=environment(collector.endpoint) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        for _ in range(3):
            time.sleep(0.2)
            process.send_signal(signal.SIGSTOP)
            time.sleep(1)
            process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0

    unique = {attribute(record, contract.SEQ): record for record in collector.records()}
    assert_gapless([unique[number] for number in sorted(unique)])
    assert len(unique) == 202
