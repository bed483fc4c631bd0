"""The table of instruments."""

from __future__ import annotations

from inspect import getsource
from itertools import pairwise
from typing import Final

import pytest
from inline_snapshot import external_file
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from realtime_otel_sidecar.metrics.instruments import (
    INSTRUMENTS,
    LABELS,
    RECORDS_REJECTED,
    SESSIONS_OPEN,
    SESSIONS_STARTED,
    TOKEN_TYPE,
    Instrument,
    Kind,
)
from realtime_otel_sidecar.stitch import attributes as key

from .measuring import BY_NAME, PRICES, STREAMS, every_span, meter

EACH: Final = pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)


def test_a_number_and_a_name_are_of_one_instrument_each() -> None:
    assert len({instrument.number for instrument in INSTRUMENTS}) == len(INSTRUMENTS)
    assert len(BY_NAME) == len(INSTRUMENTS)


def test_what_is_stored_under_a_number_is_never_read_as_something_else() -> None:
    """A line may be added. A line that changes would make stored sums wrong: it takes another number."""
    lines = [
        " ".join([str(each.number), each.name, each.kind, *each.keys, *map(str, each.bounds)]) for each in INSTRUMENTS
    ]

    assert "\n".join(lines) + "\n" == external_file("numbers.txt")


@EACH
def test_labels_come_from_vocabularies_and_names_never_from_ids_or_content(instrument: Instrument) -> None:
    for name in instrument.labels:
        attribute = key.ATTRIBUTES[name]
        assert set(instrument.spans) & set(attribute.on), "no span that is measured has it"
        assert not name.endswith(".id")
        assert "Content" not in attribute.brief
        assert attribute.type in ("string", "int", "boolean")
    for name in instrument.own:
        assert name in LABELS or name in key.ATTRIBUTES
        assert not name.endswith(".id")
    assert len(set(instrument.keys)) == len(instrument.keys)


@EACH
def test_histograms_have_buckets_and_nothing_else_has(instrument: Instrument) -> None:
    assert bool(instrument.bounds) is (instrument.kind is Kind.HISTOGRAM)
    assert all(lower < upper for lower, upper in pairwise(instrument.bounds))


def test_what_the_conventions_name_has_their_names_and_units() -> None:
    for name, make in (
        (gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, gen_ai_metrics.create_gen_ai_client_operation_duration),
        (gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, gen_ai_metrics.create_gen_ai_client_token_usage),
        (gen_ai_metrics.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, gen_ai_metrics.create_gen_ai_server_time_to_first_token),
    ):
        assert f'unit="{BY_NAME[name].unit}"' in getsource(make)
    assert gen_ai_attributes.GEN_AI_TOKEN_TYPE == TOKEN_TYPE
    ours = {name for name in BY_NAME if name.startswith("gen_ai.")}
    assert ours <= {value for name, value in vars(gen_ai_metrics).items() if name.startswith("GEN_AI_")}


def test_each_instrument_that_measures_spans_is_reached_by_some_stream() -> None:
    assert len(STREAMS) > 70
    by = meter(PRICES)

    reached = {each.instrument for span in every_span() for each in by.measure(span).measurements}

    stated = {SESSIONS_STARTED.number, SESSIONS_OPEN.number, RECORDS_REJECTED.number}
    assert reached | stated == {instrument.number for instrument in INSTRUMENTS}
    assert not reached & stated
