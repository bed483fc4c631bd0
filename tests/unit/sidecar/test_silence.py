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


def make() -> tuple[Silence, Clock]:
    clock = Clock()
    return Silence(clock), clock


def test_a_stream_falls_silent_after_its_newest_record_and_not_before() -> None:
    silence, clock = make()
    silence.hear("talks", 100)
    silence.hear("silent", 100)
    listen_for(silence, clock, 60)
    silence.hear("talks", 100)
    listen_for(silence, clock, 39)
    assert silence.fallen() == []
    listen_for(silence, clock, 1)
    assert silence.fallen() == ["silent"]
    listen_for(silence, clock, 60)
    assert silence.fallen() == ["silent", "talks"]


def test_each_stream_has_a_wait_of_its_own() -> None:
    silence, clock = make()
    for key, wait in (("open", 100), ("suspended", 60), ("closing", 10), ("closing too", 10)):
        silence.hear(key, wait)
    listen_for(silence, clock, 10)
    assert silence.fallen() == ["closing", "closing too"]
    listen_for(silence, clock, 50)
    assert silence.fallen() == ["closing", "closing too", "suspended"]
    listen_for(silence, clock, 40)
    assert silence.fallen() == ["closing", "closing too", "suspended", "open"]


def test_the_newest_record_says_how_long_the_wait_is() -> None:
    silence, clock = make()
    silence.hear("stream", 100)
    listen_for(silence, clock, 50)
    silence.hear("stream", 10)
    listen_for(silence, clock, 9)
    assert silence.fallen() == []
    listen_for(silence, clock, 1)
    assert silence.fallen() == ["stream"]
    silence.hear("stream", 100)
    listen_for(silence, clock, 99)
    assert silence.fallen() == []


def test_a_stream_that_was_ended_is_not_ended_again() -> None:
    silence, clock = make()
    silence.hear("ended", 10)
    silence.forget("ended")
    silence.forget("ended")
    listen_for(silence, clock, 200)
    assert silence.fallen() == []


def test_a_stream_that_has_fallen_silent_is_named_until_it_is_forgotten() -> None:
    silence, clock = make()
    silence.hear("silent", 10)
    listen_for(silence, clock, 20)
    assert silence.fallen() == silence.fallen() == ["silent"]
    silence.forget("silent")
    assert silence.fallen() == []


def test_a_process_that_was_stopped_or_stalled_has_heard_no_silence() -> None:
    silence, clock = make()
    silence.hear("stream", 10)
    clock.now += 24 * 3600
    silence.listen()
    assert silence.fallen() == []
    listen_for(silence, clock, 9)
    assert silence.fallen() == ["stream"]


def test_a_start_goes_on_with_the_silence_that_was_there_before_it() -> None:
    silence, clock = make()
    for key, heard in (("newer", 950.0), ("older", 900.0)):
        silence.now = heard
        silence.hear(key, 100)
    clock.now += 5000
    silence.start(980.0)
    silence.listen()
    assert silence.now == 980.0, "it stood still while nobody listened"
    assert (silence.heard("older"), silence.heard("newer"), silence.heard("unknown")) == (900.0, 950.0, 0.0)
    listen_for(silence, clock, 19)
    assert silence.fallen() == []
    listen_for(silence, clock, 1)
    assert silence.fallen() == ["older"]
    listen_for(silence, clock, 50)
    assert silence.fallen() == ["older", "newer"]


def test_a_clock_that_is_started_never_goes_back() -> None:
    silence, _ = make()
    silence.now = 100.0
    silence.hear("stream", 10)
    silence.start(0.0)
    assert silence.now == 100.0
