"""Who is to end when it is too much: each rule, and what holds whatever comes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar.shares import Bound, Excess, Limits, Shares


def limits(
    *, streams: int = 100, streams_per_service: int = 100, state: int = 10**6, service: int = 10**6, stream: int = 10**6
) -> Limits:
    return Limits(
        streams=streams,
        streams_per_service=streams_per_service,
        state=state,
        state_per_service=service,
        stream=stream,
    )


def never(key: str) -> int:
    raise AssertionError(f"{key} is measured, and its size is known")


def shares_of(of: Limits, *streams: tuple[str, str, int], are_measured: bool = True) -> Shares:
    """Shares in which these streams were heard: key, service, bytes."""
    shares = Shares(of)
    for key, service, size in streams:
        shares.hear(key, service, size)
        if are_measured:
            shares.measure(key, size)
    return shares


def ended(shares: Shares, measure: Callable[[str], int | None] = never) -> list[Excess]:
    return list(shares.excess(measure))


# --- The rules ------------------------------------------------------------------------------------------------------


def test_within_the_bounds_nobody_goes() -> None:
    assert ended(shares_of(limits(streams=2, state=20), ("a", "x", 10), ("b", "y", 10))) == []


def test_a_service_with_too_many_streams_loses_the_one_heard_longest_ago() -> None:
    shares = shares_of(limits(streams_per_service=2), ("a", "x", 1), ("b", "x", 9), ("c", "x", 1), ("d", "y", 1))
    shares.hear("a", "x", 1)
    assert ended(shares) == [Excess("b", "x", Bound.MAX_STREAMS_PER_SERVICE)]
    assert ended(shares) == []


def test_of_all_too_many_streams_those_of_the_service_with_most_go() -> None:
    streams = [("a", "x", 1), ("b", "y", 1), ("c", "y", 1), ("d", "y", 1), ("e", "x", 1)]
    shares = shares_of(limits(streams=3), *streams)
    assert ended(shares) == [Excess("b", "y", Bound.MAX_STREAMS), Excess("a", "x", Bound.MAX_STREAMS)]


def test_of_services_with_one_stream_each_the_one_heard_longest_ago_loses_it() -> None:
    shares = shares_of(limits(streams=2), ("a", "x", 1), ("b", "y", 1), ("c", "z", 1))
    shares.hear("a", "x", 1)
    assert ended(shares) == [Excess("b", "y", Bound.MAX_STREAMS)]


def test_a_stream_that_is_too_large_goes_alone() -> None:
    shares = shares_of(limits(stream=10), ("a", "x", 10), ("b", "x", 11), ("c", "y", 10))
    assert ended(shares) == [Excess("b", "x", Bound.MAX_STREAM)]


def test_a_service_with_too_much_state_loses_its_largest_stream() -> None:
    shares = shares_of(limits(service=20), ("a", "x", 5), ("b", "x", 9), ("c", "x", 7), ("d", "y", 20))
    assert ended(shares) == [Excess("b", "x", Bound.MAX_STATE_PER_SERVICE)]


def test_of_all_too_much_state_the_largest_stream_of_the_service_with_most_goes() -> None:
    streams = [("a", "x", 30), ("b", "y", 20), ("c", "y", 15), ("d", "y", 12), ("e", "z", 1)]
    shares = shares_of(limits(state=50), *streams)
    assert ended(shares) == [Excess("b", "y", Bound.MAX_STATE), Excess("a", "x", Bound.MAX_STATE)]


def test_a_stream_that_turns_out_to_be_another_services_counts_there() -> None:
    shares = shares_of(limits(streams_per_service=1, service=10), ("a", "x", 8), ("b", "y", 8))
    shares.hear("a", "y", 0)
    assert ended(shares) == [Excess("b", "y", Bound.MAX_STREAMS_PER_SERVICE)]
    shares.hear("c", "x", 1)
    assert ended(shares) == []


# --- Estimates ------------------------------------------------------------------------------------------------------


def test_what_is_only_estimated_is_measured_before_anybody_goes() -> None:
    shares = shares_of(limits(service=20), ("a", "x", 50), ("b", "x", 9), ("c", "x", 8), are_measured=False)
    assert ended(shares, {"a": 2, "b": 9, "c": 8}.get) == []
    assert shares.size <= 20


def test_a_size_that_is_known_is_not_measured_again_before_the_stream_has_grown_notably() -> None:
    shares = shares_of(limits(stream=900), ("a", "x", 800))
    shares.hear("a", "x", 99)
    assert ended(shares) == []
    shares.hear("a", "x", 10)
    assert ended(shares, lambda _key: 850) == []
    shares.hear("a", "x", 100)
    assert ended(shares) == []
    shares.hear("a", "x", 100)
    assert ended(shares, lambda _key: 901) == [Excess("a", "x", Bound.MAX_STREAM)]


def test_a_stream_that_cannot_be_measured_counts_as_estimated() -> None:
    shares = shares_of(limits(stream=10), ("a", "x", 11), are_measured=False)
    assert ended(shares, lambda _key: None) == [Excess("a", "x", Bound.MAX_STREAM)]


# --- Whatever comes -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), KEYS, st.sampled_from("xyz"), st.integers(0, 40)),
        st.tuples(st.just("measure"), KEYS, st.just(""), st.integers(1, 40)),
        st.tuples(st.just("forget"), KEYS, st.just(""), st.just(0)),
        st.tuples(st.just("excess"), KEYS, st.just(""), st.just(0)),
    ),
    max_size=60,
)
TIGHT = limits(streams=5, streams_per_service=3, state=100, service=60, stream=40)


@given(STEPS)
def test_after_each_look_all_bounds_hold_and_only_who_has_most_has_lost(steps: list[tuple[str, str, str, int]]) -> None:
    shares, real, service_of = Shares(TIGHT), dict[str, int](), dict[str, str]()
    for what, key, service, size in [*steps, ("excess", "", "", 0)]:
        if what == "hear":
            real[key], service_of[key] = real.get(key, 0) + size, service
            shares.hear(key, service, size)
        elif what == "measure" and key in real:
            real[key] = size
            shares.measure(key, size)
        elif what == "forget":
            real.pop(key, None)
            shares.forget(key)
        elif what == "excess":
            for victim in shares.excess(real.get):
                assert victim.service == service_of[victim.key]
                had = Counter(service_of[key] for key in real)
                if victim.bound is Bound.MAX_STREAMS:
                    assert had[victim.service] == max(had.values())
                if victim.bound is Bound.MAX_STREAM:
                    assert real[victim.key] > TIGHT.stream
                del real[victim.key]
            _hold(shares, real, service_of)


def _hold(shares: Shares, real: dict[str, int], service_of: dict[str, str]) -> None:
    """All bounds hold, of sizes to within what is not notable."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for key, size in real.items():
        sizes[service_of[key]].append(size)
    assert len(shares) == len(real) <= TIGHT.streams
    assert max(map(len, sizes.values()), default=0) <= TIGHT.streams_per_service
    assert max(real.values(), default=0) <= TIGHT.stream * 9 / 8
    assert max(map(sum, sizes.values()), default=0) <= TIGHT.state_per_service * 9 / 8
    assert sum(real.values()) <= TIGHT.state * 9 / 8
    assert shares.size >= sum(real.values()) * 8 / 9
