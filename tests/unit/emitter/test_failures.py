"""What fails inside the emitter never hurts whoever calls it."""

import logging
import threading

import pytest
from opentelemetry import trace

from realtime_otel import RealtimeEmitter, guard
from realtime_otel.queue import Intake
from tests.unit.emitter.collector import Collector

DELTA = {"type": "response.output_audio.delta", "delta": "QUJD", "item_id": "item_1", "content_index": 0}
APPEND = {"type": "input_audio_buffer.append", "audio": "QUJDRA=="}


def test_with_the_sdk_disabled_nothing_happens(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True ")
    before = set(threading.enumerate())

    emitter = RealtimeEmitter()
    use(emitter)

    assert emitter.closed
    assert set(threading.enumerate()) <= before
    assert collector.tried == []


def use(emitter: RealtimeEmitter) -> None:
    """Everything that an emitter can be asked."""
    emitter.server_event({"type": "input_audio_buffer.committed"})
    emitter.server_event({"type": "response.output_item.added", "item": {"id": "item_1"}})
    emitter.server_event(DELTA)
    emitter.client_event(APPEND)
    emitter.client_event({"type": "response.create"})
    with emitter.tool("call_1", name="get_weather"):
        assert trace.get_current_span() is not None
    emitter.annotate(a=1)
    emitter.agent_handed_off("a", "b")
    emitter.guardrail_tripped(["a"])
    emitter.audio_interrupted("item_1")
    emitter.connected_to("api.openai.com", 443)
    emitter.flush(0)
    emitter.close()


@pytest.mark.parametrize("name", ["put", "keep", "close", "mark"])
def test_a_failure_inside_reaches_no_caller_and_is_reported_without_its_message(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("quotes the conversation")

    emitter = RealtimeEmitter()
    monkeypatch.setattr(Intake, name, fail)

    for _ in range(3):
        use(emitter)
        use(RealtimeEmitter())

    assert caplog.messages
    assert len(caplog.messages) == len(set(caplog.messages))
    assert all("RuntimeError" in message for message in caplog.messages)
    assert "quotes" not in caplog.text


@pytest.mark.parametrize("where", ["realtime_otel.emitter.open_stream", "realtime_otel.environment.resource"])
def test_an_emitter_whose_stream_cannot_open_does_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(where, fail)

    emitter = RealtimeEmitter()
    use(emitter)

    assert emitter.closed
    assert collector.tried == []


def test_a_thread_that_cannot_start_leaves_an_emitter_that_does_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)

    emitter = RealtimeEmitter()
    use(emitter)

    assert emitter.closed


def test_a_log_handler_that_raises_does_not_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("the application's own handler")

    monkeypatch.setattr(logging.Logger, "warning", fail)

    guard.warn_once("this", "message")


def test_a_loss_that_goes_on_is_said_again_after_a_while_and_an_error_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter(range(0, 200, 10))
    monkeypatch.setattr(guard.time, "monotonic", lambda: float(next(seconds)))  # type: ignore[attr-defined]

    for _ in range(8):
        guard.warn_at_times("refused", "records are refused")
        guard.warn_once("error", "something failed")

    assert caplog.messages == ["records are refused", "something failed", "records are refused", "records are refused"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_is_not_held_back(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise stop

    with RealtimeEmitter() as emitter, monkeypatch.context() as patched:
        patched.setattr("realtime_otel.emitter.note_server_event", interrupt)
        with pytest.raises(stop):
            emitter.server_event({"type": "x"})
