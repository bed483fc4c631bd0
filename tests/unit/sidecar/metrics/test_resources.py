"""What of an agent's resource goes on its metrics."""

from __future__ import annotations

from typing import Final

from realtime_otel import wire
from realtime_otel_sidecar.otlp.resources import ResourceReader

KUBERNETES: Final[dict[str, wire.AttributeValue]] = {
    "k8s.pod.name": "agent-7f",
    "deployment.environment.name": "production",
    "tenant": "north",
    "region": 4,
    "service.instance.id": "6f1d6c1e",
    "service.name": "voice-agent",
}


def test_only_what_tells_services_and_tenants_apart_is_taken_in_a_fixed_order() -> None:
    service = (("service.name", "voice-agent"), ("deployment.environment.name", "production"))

    assert ResourceReader()(wire.resource(KUBERNETES)) == service
    assert ResourceReader(["tenant", "region"])(wire.resource(KUBERNETES)) == (
        *service,
        ("tenant", "north"),
        ("region", "4"),
    )
    backwards = wire.resource(dict(reversed(KUBERNETES.items())))
    assert ResourceReader()(backwards) == service


def test_what_is_no_text_is_left_out_and_what_is_no_resource_has_nothing() -> None:
    listed = wire.resource({"service.name": ["a", "b"], "service.namespace": "", "tenant": True})

    assert ResourceReader(["tenant"])(listed) == (("tenant", "true"),)
    assert ResourceReader()(b"\xff") == ()
    assert ResourceReader()(b"") == ()


def test_a_long_name_is_cut() -> None:
    ((_, name),) = ResourceReader()(wire.resource({"service.name": "x" * 1000}))

    assert name == "x" * 128
