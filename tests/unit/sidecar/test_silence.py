"""Silence: the wall clock counts only while the sidecar can hear."""

from __future__ import annotations

from realtime_otel_sidecar.silence import Silence


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def listen_for(silence: Silence, clock: Clock, seconds: int) -> None:
    """Look at the clock twice a second, as an engine that is alive does."""
    for _ in range(2 * seconds):
        clock.now += 0.5
        silence.listen()


def make(max_silence: float = 100.0, gap_wait: float = 10.0) -> tuple[Silence, Clock]:
    clock = Clock()
    return Silence(max_silence, gap_wait, clock), clock


def test_a_stream_falls_silent_after_its_newest_record_and_not_before() -> None:
    silence, clock = make()
    silence.hear("talks", is_close=False)
    silence.hear("silent", is_close=False)
    listen_for(silence, clock, 60)
    silence.hear("talks", is_close=False)
    listen_for(silence, clock, 39)
    assert silence.fallen() == []
    listen_for(silence, clock, 1)
    assert silence.fallen() == ["silent"]
    listen_for(silence, clock, 60)
    assert silence.fallen() == ["silent", "talks"]


def test_a_stream_that_was_ended_is_not_ended_again() -> None:
    silence, clock = make()
    silence.hear("ended", is_close=True)
    silence.forget("ended")
    listen_for(silence, clock, 200)
    assert silence.fallen() == []


def test_a_gap_before_the_close_is_waited_for_from_the_last_record_on() -> None:
    silence, clock = make()
    silence.hear("open", is_close=False)
    silence.hear("closing", is_close=True)
    listen_for(silence, clock, 9)
    silence.hear("closing", is_close=False)
    listen_for(silence, clock, 9)
    assert silence.fallen() == []
    listen_for(silence, clock, 1)
    assert silence.fallen() == ["closing"]


def test_a_stream_is_named_once_even_if_both_waits_are_over() -> None:
    silence, clock = make(max_silence=10.0)
    silence.hear("closing", is_close=True)
    listen_for(silence, clock, 20)
    assert silence.fallen() == ["closing"]


def test_a_process_that_was_stopped_or_stalled_has_heard_no_silence() -> None:
    silence, clock = make()
    silence.hear("stream", is_close=True)
    clock.now += 24 * 3600
    silence.listen()
    assert silence.fallen() == []
    listen_for(silence, clock, 9)
    assert silence.fallen() == ["stream"]


def test_a_start_begins_every_wait_anew() -> None:
    silence, clock = make()
    clock.now += 5000
    silence.start(["open", "closing"], ["closing"])
    silence.listen()
    assert silence.fallen() == []
    listen_for(silence, clock, 10)
    assert silence.fallen() == ["closing"]
    listen_for(silence, clock, 90)
    assert silence.fallen() == ["closing", "open"]
