"""A conversation is a stranger's words: none of them is ever anything but text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from playwright.sync_api import Browser

from realtime_otel_sidecar.page.document import document, escaped
from realtime_otel_sidecar.page.view import view
from realtime_otel_sidecar.stitch import attributes as key
from tests.page import calls
from tests.page.browser import NEEDS_CHROMIUM, opened, written

CANARY = (
    "</script><script>window.canary=1</script><img src=x onerror='window.canary=1'>"
    "<svg onload=window.canary=1>\"'`${window.canary=1}<!--\u2028\u2029%%script%%javascript:window.canary=1"
)
STRUCTURE = {key.OPERATION, key.CLOSE_REASON, key.LINK_KIND, key.CUT_PHASE}
"""Attributes whose words decide what is drawn where."""


def poisoned(request: ExportTraceServiceRequest, *, spare: bool) -> ExportTraceServiceRequest:
    """The same with the canary in each string: of JSON, in each string in it. ``spare``: but for the structure."""
    _poison(request, spare)
    return request


def _poison(message: Message, spare: bool) -> None:
    if isinstance(message, KeyValue) and spare and message.key in STRUCTURE:
        return
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                _poison(each, spare)
        elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            is_name = isinstance(message, KeyValue) or (field.name == "name" and spare)
            setattr(message, field.name, value if is_name and spare else _with_canary(value))


def _with_canary(text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        return text + CANARY
    return json.dumps(_everywhere(document)) if isinstance(document, dict | list) else text + CANARY


def _everywhere(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _everywhere(member) for name, member in node.items()}
    if isinstance(node, list):
        return [_everywhere(member) for member in node]
    structural = ("text", "user", "assistant", "tool_call", "tool_call_response")
    return node + CANARY if isinstance(node, str) and node not in structural else node


@NEEDS_CHROMIUM
@pytest.mark.parametrize("spare", [True, False], ids=["values", "everything"])
def test_a_canary_in_every_string_is_shown_and_never_runs(browser: Browser, tmp_path: Path, spare: bool) -> None:
    address = written(tmp_path, [poisoned(calls.spans(), spare=spare)])
    with opened(browser, address) as here:
        for number in range(here.page.locator('[role="treeitem"]').count()):
            here.page.locator('[role="treeitem"]').nth(number).click()
            assert "<script>window.canary=1</script>" in here.details()
        assert here.page.evaluate("window.canary") is None
        assert here.page.locator("img, svg").count() == 0
        assert here.page.locator("script").count() == 2
        assert here.said == [], "a policy that had to forbid something would say so"
        assert here.requested == [address]


@NEEDS_CHROMIUM
def test_the_canary_does_run_where_it_is_not_text(browser: Browser, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    file = tmp_path / "careless.html"
    file.write_text(f"<main><script>{CANARY}</main>", "utf-8")
    with opened(browser, file.as_uri()) as here:
        assert here.page.evaluate("window.canary") == 1


@NEEDS_CHROMIUM
def test_the_policy_forbids_what_slips_through(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, [calls.spans()])) as here:
        here.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.canary = 1";
                document.body.append(script);
                document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.canary=1'>");
            }"""
        )
        here.page.wait_for_timeout(100)
        assert here.page.evaluate("window.canary") is None
        assert any("Content Security Policy" in message for message in here.said)


# --- Without a browser ----------------------------------------------------------------------------------------------


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_data_stays_in_its_element_and_comes_back_as_it_was(data: Any) -> None:
    text = escaped(data)
    assert not any(each in text for each in "<>&\u2028\u2029")
    assert json.loads(text) == data


def test_a_part_that_looks_like_a_place_of_the_page_is_not_filled_in() -> None:
    trace = view([poisoned(calls.spans(), spare=True)])
    assert document(trace).count('"use strict"') == 1


VALUES = st.recursive(
    st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=st.text()),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats()),
        st.builds(AnyValue, bytes_value=st.binary()),
    ),
    lambda inner: (
        st.builds(lambda members: AnyValue(array_value=ArrayValue(values=members)), st.lists(inner, max_size=3))
        | st.builds(
            lambda members: AnyValue(kvlist_value=KeyValueList(values=members)),
            st.lists(st.builds(KeyValue, key=st.text(), value=inner), max_size=3),
        )
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(key.ATTRIBUTES)), VALUES), max_size=12), st.binary(max_size=8))
def test_whatever_attributes_hold_becomes_a_page(attributes: list[tuple[str, AnyValue]], parent: bytes) -> None:
    """Attributes of ours with values of any kind: an application can name its own as it likes."""
    request = calls.spans()
    for scope in request.resource_spans[0].scope_spans:
        for span in scope.spans:
            span.parent_span_id = parent
            span.attributes.extend(KeyValue(key=name, value=value) for name, value in attributes)
    text = document(view([request]))
    data = text.split('id="data">')[1].split("</script>")[0]
    assert len(json.loads(data)["conversations"][0]["spans"]) == 8
