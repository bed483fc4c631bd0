"""What no event says: facts of the framework and the application, and what ties them to the conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from realtime_otel import RealtimeEmitter, contract
from realtime_otel.server import Server, of_url, stated
from tests.unit.emitter.collector import Collector
from tests.unit.emitter.streams import attributes_of

CREATED = {"type": "response.created", "response": {"id": "resp_1"}}
ADDED = {"type": "response.output_item.added", "response_id": "resp_1", "item": {"id": "item_1"}}


def fact(collector: Collector, emitter: RealtimeEmitter, name: str) -> tuple[Any, dict[str, Any]]:
    """The body of the one fact of this name, and the ids that are its own."""
    emitter.close()
    assert emitter.flush(10)
    record = collector.named(f"emitter.{name}")
    keys = (contract.ITEM_ID, contract.RESPONSE_ID, contract.CALL_ID, contract.TOOL_NAME)
    ids = {key: value for key, value in attributes_of(record).items() if key in keys}
    return json.loads(record.body.string_value), ids


@pytest.fixture
def emitter(collector: Collector) -> RealtimeEmitter:
    return RealtimeEmitter()


# --- The conversation -----------------------------------------------------------------------------------------------


def test_what_the_application_says_is_put_on_the_session(emitter: RealtimeEmitter, collector: Collector) -> None:
    emitter.annotate(outcome="sold", amount=5)

    assert fact(collector, emitter, "annotation") == ({"attributes": {"outcome": "sold", "amount": 5}}, {})


def test_after_a_handoff_the_next_agent_talks(emitter: RealtimeEmitter, collector: Collector) -> None:
    emitter.server_event(CREATED)
    emitter.agent_handed_off("Front desk", "Billing")
    emitter.server_event(ADDED)

    assert fact(collector, emitter, "agent_handed_off") == ({"from": "Front desk", "to": "Billing"}, {})
    assert attributes_of(collector.named("response.output_item.added"))[contract.AGENT_NAME] == "Billing"
    assert contract.AGENT_NAME not in attributes_of(collector.named("response.created"))


@pytest.mark.parametrize(
    ("events", "given", "response"),
    [
        ([], "", None),
        ([CREATED], "", "resp_1"),
        ([CREATED, {"type": "response.created", "response": {"id": "resp_2"}}], "", "resp_2"),
        ([CREATED, {"type": "response.created", "response": {"id": "resp_2"}}], "resp_1", "resp_1"),
        ([CREATED, {"type": "response.created", "response": None}], "", None),
        ([{"type": "response.created", "response": {"id": "Mrs Miller"}}], "", contract.identifier("Mrs Miller")),
    ],
)
def test_a_guardrail_names_the_response_that_it_stopped(
    emitter: RealtimeEmitter, collector: Collector, events: list[dict[str, Any]], given: str, response: str | None
) -> None:
    for event in events:
        emitter.server_event(event)
    emitter.guardrail_tripped(["no prices"], response_id=given)

    expected = {contract.RESPONSE_ID: response} if response else {}
    assert fact(collector, emitter, "guardrail_tripped") == ({"guardrails": ["no prices"]}, expected)


def test_an_interruption_names_the_item_and_its_response(emitter: RealtimeEmitter, collector: Collector) -> None:
    emitter.server_event(ADDED)
    emitter.server_event({"type": "response.created", "response": {"id": "resp_2"}})
    emitter.audio_interrupted("item_1", 1200)

    body, ids = fact(collector, emitter, "audio_interrupted")
    assert body == {"item_id": "item_1", "played_ms": 1200}
    assert ids == {contract.ITEM_ID: "item_1", contract.RESPONSE_ID: "resp_1"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_item.added"},
        {"type": "response.output_item.added", "response_id": "resp_1", "item": None},
        {"type": "response.output_item.added", "response_id": None, "item": {"id": "item 2"}},
    ],
)
def test_an_interrupted_item_of_which_nothing_is_known_is_named_alone(
    emitter: RealtimeEmitter, collector: Collector, event: dict[str, Any]
) -> None:
    emitter.server_event(event)
    emitter.audio_interrupted("item 2")

    hashed = contract.identifier("item 2")
    assert fact(collector, emitter, "audio_interrupted") == ({"item_id": hashed}, {contract.ITEM_ID: hashed})


def test_items_of_long_ago_are_forgotten(emitter: RealtimeEmitter, collector: Collector) -> None:
    for number in range(5000):
        emitter.server_event({**ADDED, "item": {"id": f"item_{number}"}})

    assert emitter._source.tallies.responses.of_item("item_0") == ""
    assert emitter._source.tallies.responses.of_item("item_4999") == "resp_1"


# --- The server -----------------------------------------------------------------------------------------------------

AZURE = "azure.ai.openai"


@pytest.mark.parametrize(
    ("url", "address", "port", "provider"),
    [
        ("wss://api.openai.com/v1/realtime?model=gpt-realtime", "api.openai.com", 443, "openai"),
        ("wss://EU.api.OpenAI.com", "eu.api.openai.com", 443, "openai"),
        ("wss://desk.openai.azure.com/openai/v1/realtime?api-key=s3cret", "desk.openai.azure.com", 443, AZURE),
        ("https://desk.cognitiveservices.azure.com/voice-live", "desk.cognitiveservices.azure.com", 443, AZURE),
        ("wss://desk.services.ai.azure.com.:444/", "desk.services.ai.azure.com.", 444, AZURE),
        ("wss://api.x.ai/v1/realtime", "api.x.ai", 443, "x_ai"),
        ("wss://fax.ai", "fax.ai", 443, None),
        ("wss://notopenai.com", "notopenai.com", 443, None),
        ("wss://openai.com.gateway.example", "openai.com.gateway.example", 443, None),
        ("ws://me:s3cret@gateway.example:8080/s3cret?key=s3cret#s3cret", "gateway.example", 8080, None),
        ("ws://[::1]/", "::1", 80, None),
        ("other://10.0.0.7", "10.0.0.7", None, None),
        ("wss:///v1/realtime", None, None, None),
        ("not a url", None, None, None),
        ("", None, None, None),
        (None, None, None, None),
    ],
)
def test_of_a_url_the_server_is_stated_and_nothing_else(
    url: str | None, address: str | None, port: int | None, provider: str | None
) -> None:
    members = {"provider": provider, "server_address": address, "server_port": port}

    assert stated("", of_url(url)) == {name: value for name, value in members.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"provider": "openai"}, {"provider": "openai"}),
        (
            {"provider": "aws.bedrock", "server_address": "api.openai.com", "server_port": 1},
            {"provider": "aws.bedrock", "server_address": "api.openai.com", "server_port": 1},
        ),
        ({"server_address": "wss://api.openai.com/?key=s3cret", "server_port": 443}, {}),
        ({"server_address": "me:s3cret@gateway.example"}, {}),
        ({"server_address": "gateway.example", "server_port": 65536}, {"server_address": "gateway.example"}),
        ({"server_address": "gateway.example", "server_port": True}, {"server_address": "gateway.example"}),
        ({"server_address": "gateway.example", "server_port": "443"}, {"server_address": "gateway.example"}),
        ({"provider": "the one with the keys"}, {}),
        ({"provider": 5, "server_address": ["api.openai.com"]}, {}),
        ({}, {}),
    ],
)
def test_what_is_known_of_the_server_opens_the_stream_or_is_said_later(
    collector: Collector, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    early, late = RealtimeEmitter(**given), RealtimeEmitter()
    late.connected_to(**{"server_address": "", **given})
    early.close()
    late.close()
    assert late.flush(10)

    opened = json.loads(collector.records[0].body.string_value)
    said = [record for record in collector.records if record.event_name.endswith("annotation")]
    assert {name: opened[name] for name in opened if name in {"provider", "server_address", "server_port"}} == expected
    assert [json.loads(record.body.string_value) for record in said] == ([expected] if expected else [])


@pytest.mark.parametrize("url", ["wss://gateway.example:port/", "wss://[::1/", "wss://gateway.example:99999"])
def test_a_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        of_url(url)


def test_a_server_of_which_nothing_is_known_has_no_provider() -> None:
    assert Server().provider == ""
