"""No span is missing while it is between the sidecar and the shelf."""

from __future__ import annotations

from realtime_otel_sidecar.dev.under_way import SECONDS, UnderWay
from tests.conversations import weather_call
from tests.unit.core.stitching import spans_of

SPANS = spans_of(weather_call())
TRACE = SPANS[0].trace_id


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_has_left_stays_until_it_must_have_arrived() -> None:
    clock = Clock()
    under_way = UnderWay(clock)
    assert under_way.add(SPANS[:2]) == {TRACE: SPANS[:2]}
    clock.now += SECONDS
    assert under_way.add(SPANS[2:3]) == {TRACE: SPANS[:3]}
    clock.now += 0.1
    assert under_way.add(SPANS[3:4]) == {TRACE: SPANS[2:4]}
    clock.now += SECONDS + 0.1
    assert under_way.add([]) == {}


def test_of_a_span_that_is_still_open_the_newest_look_counts() -> None:
    clock = Clock()
    under_way = UnderWay(clock)
    under_way.add([SPANS[0]])
    again = spans_of(weather_call())[0]
    ((found,),) = under_way.add([again]).values()
    assert found is again
