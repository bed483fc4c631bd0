"""What stays of spans and sessions that have left: ids, what they were, and hashes of what they are looked for by."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar import history
from realtime_otel_sidecar.history import (
    Ended,
    Mark,
    ended_of,
    holders,
    list_spans,
    listed_of,
    name_of,
    sessions_ended,
    unlist,
)
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.spans import Resource, Span
from tests import conversations as talk
from tests.conversations import Logged, Step, closed, opened, session
from tests.sidecar import conversation, record
from tests.unit.sidecar.rig import Rig, core_spans, eventually, outbox, stitched


def ended(*requests: bytes) -> list[Ended]:
    """What is remembered of the sessions of these requests."""
    rows = sessions_ended(core_spans(list(requests), ended=True), 1)
    return [ended_of(row) for row in rows]


def span(trace_id: bytes, span_id: bytes, operation: str) -> Span:
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=b"",
        name=operation,
        start=1,
        end=2,
        attributes={key.OPERATION: operation},
        resource=Resource(),
    )


@given(
    st.lists(
        st.builds(
            span,
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=8, max_size=8),
            st.sampled_from(
                [key.SESSION, key.SPEECH, key.RESPONSE, key.PLAYBACK, key.TRANSCRIPT, "of another release"]
            ),
        )
    )
)
def test_the_ids_of_spans_come_back_by_their_trace_in_their_order(spans: list[Span]) -> None:
    found = unlist(list_spans(spans))
    assert list(found) == list(dict.fromkeys(each.trace_id for each in spans))
    for trace_id, listed in found.items():
        assert [span_id for _, span_id in listed] == [each.span_id for each in spans if each.trace_id == trace_id]
    assert unlist(b"") == {}
    wanted = {each.span_id for each in spans[::2]}
    holding = {each.trace_id for each in spans if each.span_id in wanted}
    assert sorted(listed_of(list_spans(spans), wanted)) == sorted(
        each.span_id for each in spans if each.span_id in wanted
    )
    assert set(holders(list_spans(spans), wanted)) == holding


def test_of_each_span_it_is_known_what_it_was_and_of_a_tool_whether_it_logged() -> None:
    steps: list[Step | Logged] = [*opened(), *session()]
    steps += talk.tool_call("resp_1", "call_quiet", item="item_1")
    steps += talk.tool_call("resp_2", "call_loud", item="item_2")
    steps += [Logged("asking", "call_loud"), *talk.speech("item_3"), *closed()]
    spans = core_spans([record(steps, "one").request()])
    ((_, listed),) = unlist(list_spans(spans)).items()
    assert {span_id: mark for mark, span_id in listed} == {
        contract.span_id(Kind.SESSION, "one"): Mark.SESSION,
        contract.span_id(Kind.RESPONSE, "one", "resp_1"): Mark.RESPONSE,
        contract.span_id(Kind.RESPONSE, "one", "resp_2"): Mark.RESPONSE,
        contract.span_id(Kind.TOOL, "one", "call_quiet"): Mark.TOOL,
        contract.span_id(Kind.TOOL, "one", "call_loud"): Mark.LOGGED_TOOL,
        contract.span_id(Kind.USER_SPEECH, "one", "item_3"): Mark.USER_SPEECH,
    }


def test_a_session_is_found_by_its_ids_and_by_what_the_application_calls_it() -> None:
    attributes = {"customer": "C-77", "lines": ["red", "blue"], "number": 4711, "weight": 1.5, "vip": True}
    steps = [*opened(attributes=attributes), *session(session_id="sess_1"), *session(session_id="sess_2"), *closed()]
    (found,) = ended(record(steps, "the-stream").request())
    for text in ("the-stream", "sess_1", "sess_2", "C-77", "red", "blue", "4711"):
        assert found.has_name(name_of(text)), text
    for text in ("", "sess_3", "1.5", "True", "gpt-realtime", "openai", "customer"):
        assert not found.has_name(name_of(text)), text
    assert (found.key, found.service, found.reason, found.sampled) == (
        "the-stream",
        "agent-the-stream",
        "session_closed",
        True,
    )
    assert (found.records, found.missing) == (len(steps), 0)


def test_a_session_under_a_chosen_id_has_the_key_that_its_records_have() -> None:
    chosen = conversation("CA-1", turns=1, chosen=True)
    (first,) = ended(chosen.request())
    assert first.key == chosen.stream.key != "CA-1"
    assert first.has_name(name_of("CA-1"))


def test_no_text_that_may_name_a_person_is_written_down(tmp_path: Path) -> None:
    steps = [*opened(attributes={"customer": "Ada Lovelace"}), *session(session_id="sess_secret"), *closed()]
    with Rig(tmp_path / "data", resume_wait=0.01) as rig:
        request = record(steps, "+4712345678", chosen=True, service="hotline").request()
        rig.take(request.replace(b"of-+4712345678", b"drawn-as-usual"))  # the emitter's id
        eventually(lambda: bool(rig.rows("SELECT id FROM outbox")))
        rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
    with Rig(tmp_path / "data") as rig:
        assert rig.rows("SELECT count(*) FROM history") == [(2,)], "the session, and its span"
    contents = (tmp_path / "data" / "realtime-otel.db").read_bytes()
    for text in (b"Lovelace", b"sess_secret", b"+4712345678"):
        assert text not in contents


def test_a_defect_in_remembering_costs_no_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_span: Span) -> NoReturn:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(history, "_ended", fail)
    whole = conversation("whole", turns=1).request()
    with Rig(tmp_path / "data") as rig:
        rig.take(whole)
        assert {key: {data} for key, data in outbox(rig.folder)} == stitched([whole])
        assert rig.rows("SELECT * FROM history") == []


def test_a_session_that_is_not_sampled_is_remembered_and_puts_nothing_out(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(conversation("unheard", turns=1, sampled=False).request())
        ((kind, data),) = rig.rows("SELECT kind, data FROM history")
        assert kind == "session"
        assert msgspec.msgpack.decode(data, type=Ended).sampled is False
        assert rig.rows("SELECT * FROM outbox") == []


def test_a_session_that_is_not_sampled_is_remembered_also_if_only_a_start_has_found_its_end(tmp_path: Path) -> None:
    unheard = conversation("unheard", turns=1, sampled=False)
    with Rig(tmp_path / "data", gap_wait=3600) as rig:
        rig.take(unheard.request(0, 3), unheard.request(4))
        crashed = rig.crash(tmp_path / "crashed")
        assert rig.rows("SELECT * FROM history") == []
    with Rig(crashed, gap_wait=0.001) as rig:  # which does not wait for the record that is missing
        ((kind, data),) = rig.rows("SELECT kind, data FROM history")
        found = msgspec.msgpack.decode(data, type=Ended)
        assert (kind, found.key, found.sampled, found.missing) == ("session", "unheard", False, 1)
        assert rig.rows("SELECT * FROM outbox") == []
