"""The mix is what the table of figures says it is, and the table says what was found."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import table
from benchmarks.frame import Measured, Result, Row, compare, compared, once, percentile, run
from benchmarks.mix import REQUEST_RECORDS, STREAMS_OF_AGENT, Mix, conversation
from realtime_otel_sidecar.otlp.decode import decode_request
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.stitcher import Stitcher

ROOT = Path(__file__).resolve().parents[2]

# --- The mix --------------------------------------------------------------------------------------------------------


def records_of(requests: list[bytes]) -> list[Record]:
    found = [record for request in requests for record in decode_request(request)]
    assert all(isinstance(record, Record) for record in found), "none breaks the contract"
    return [record for record in found if isinstance(record, Record)]


@pytest.mark.parametrize(("turns", "tools"), [(10, 2), (1, 0), (20, 4)])
def test_a_conversation_has_its_turns_of_which_two_in_ten_call_a_tool(turns: int, tools: int) -> None:
    stitcher = Stitcher()
    spans = [span for record in records_of(list(Mix(turns).requests([0]))) for span in stitcher.feed(record).spans]
    names = Counter(span.name.partition(" ")[0] for span in spans)
    assert (
        names
        == Counter(
            {"realtime_session": 1, "user_speech": turns, "realtime_inference": turns + tools, "execute_tool": tools}
        )
        - Counter()
    )
    assert {span.attributes[key.CLOSE_REASON] for span in spans} == {"completed", "session_closed"}
    assert not any(span.attributes.get(key.CLOSE_INFERRED) for span in spans)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_deltas_have_the_share_that_is_asked_for(share: float) -> None:
    assert Mix(deltas=share).deltas == pytest.approx(share, abs=0.002)
    assert sum(said.is_delta for said in conversation(deltas=share)) > 0


def test_requests_hold_512_records_and_every_record_comes_once() -> None:
    mix = Mix(turns=1)
    requests = list(mix.requests(range(20)))
    sizes = [len(records_of([request])) for request in requests]
    assert set(sizes[:-1]) == {REQUEST_RECORDS}
    records = records_of(requests)
    assert len(records) == 20 * mix.records
    by_stream = Counter(record.stream_id for record in records)
    assert by_stream == {mix.stream(number).id: mix.records for number in range(20)}
    for number in range(20):
        of_it = [record.seq for record in records if record.stream_id == mix.stream(number).id]
        assert of_it == list(range(mix.records))


def test_streams_have_no_id_in_common_and_agents_no_resource() -> None:
    mix = Mix(turns=1)
    one, other = (records_of(list(mix.requests([number]))) for number in (0, STREAMS_OF_AGENT))

    def ids(records: list[Record]) -> set[str]:
        names = ("stream_id", "emitter_id", "session_id", "event_id", "item_id", "response_id", "call_id")
        return {getattr(record, name) for record in records for name in names} - {""}

    assert not ids(one) & ids(other)
    assert not {record.trace_id for record in one} & {record.trace_id for record in other}
    assert one[0].resource != other[0].resource
    assert all(re.fullmatch(r"item_[A-Za-z0-9]{21}", record.item_id) for record in one if record.item_id)


def test_a_conversation_can_be_cut_where_its_answer_is_open() -> None:
    mix, stitcher = Mix(turns=3), Stitcher()
    for record in records_of(list(mix.requests([0], 0, mix.answering(2)))):
        stitcher.feed(record)
    (stream,) = stitcher.streams.values()
    assert [response.end for response in stream.session.parts.responses.values()] == [0]
    assert stream.session.turn == 2


# --- The table ------------------------------------------------------------------------------------------------------


def row(name: str = "row", goal: float = 1.0, **more: Any) -> Row:
    given: dict[str, Any] = {"unit": "us", "measure": lambda: Measured(value=goal, figure=goal)}
    return Row(name=name, title=f"what {name} costs", goal=goal, **(given | more))


def test_a_goal_is_reached_from_below_or_above() -> None:
    found = Measured(value=2.0, figure=2.0)
    assert row(goal=2.0).holds(found)
    assert not row(goal=1.9).holds(found)
    assert row(goal=1.9, at_least=True).holds(found)
    assert not row(goal=2.1, at_least=True).holds(found)
    assert (row(goal=0.8, against="it").promise, row(goal=30_000, at_least=True).promise) == ("≤ 0.8 ×", "≥ 30,000 us")


def test_a_comparison_is_the_median_of_pairs_that_take_turns_to_begin() -> None:
    begun: list[str] = []
    ours, theirs = iter([1.0, 9.0, 3.0]), iter([2.0, 3.0, 3.0])

    def measure(name: str, values: Any) -> float:
        begun.append(name)
        return float(next(values))

    found = compare(lambda: measure("ours", ours), lambda: measure("theirs", theirs), pairs=3)
    assert begun == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (found.value, found.figure, found.counterpart) == (1.0, 3.0, 3.0)
    assert list(found.ratios) == [0.5, 3.0, 1.0]
    assert percentile([float(number) for number in range(100)], 95) == 95


def test_what_cannot_be_measured_is_said_and_holds_nothing_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [run(row("fails", measure=lambda: 1 // 0)), run(row("holds"))]
    assert [(result.error, result.holds) for result in results] == [
        ("ZeroDivisionError: integer division or modulo by zero", False),
        ("", True),
    ]
    assert table.verdict(results) == "1 of 2 goals hold"
    found = json.loads(table.as_json({"cores": 2}, results))
    assert [each["holds"] for each in found["rows"]] == [False, True]


def test_rows_that_share_a_measurement_share_its_failure() -> None:
    asked: list[int] = []

    @once
    def measure() -> int:
        asked.append(1)
        raise OSError("no room")

    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            measure()
    assert asked == [1]


def test_the_document_has_the_table_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{table.BEGIN}old{table.END}after\n")
    monkeypatch.setattr(table, "DOCUMENT", page)
    results = [
        Result(row("alone"), Measured(value=0.5, figure=0.5), "", 1.0),
        Result(row("beside", 1.0, against="it"), compared([(3.0, 2.0), (4.0, 2.0)]), "", 1.0),
    ]
    about = table.machine()
    table.write_document(about, results)
    table.write_document(about, results)
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n| figure |")
    assert text.endswith(f"{table.END}after\n")
    assert "| what beside costs | ≤ 1 × | 3.5 us | it | 2 us | 1.75 × (1.50 to 2.00) | no |" in text
    assert "**1 of 2 goals hold.**" in text
    page.write_text("no place")
    with pytest.raises(ValueError, match="no place for figures"):
        table.write_document(about, results)


def test_the_page_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    page = (ROOT / "docs/performance.md").read_text("utf-8")
    for line in capsys.readouterr().out.splitlines():
        name = line.partition(":")[0]
        assert f"`{name}`" in page or f"`{name.rpartition('-')[0]}-…`" in page, name


def test_unknown_rows_are_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["nonsense"]) == 2
    assert "sidecar-cpu: " in capsys.readouterr().out
