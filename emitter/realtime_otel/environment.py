"""What the process has configured: the standard OpenTelemetry variables, and the application's own providers."""

from __future__ import annotations

import functools
import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from realtime_otel.guard import warn_once

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_NO_CONTENT, _EVENT_ONLY = "NO_CONTENT", "EVENT_ONLY"
_CONTENT_MODES = (_NO_CONTENT, "SPAN_ONLY", _EVENT_ONLY, "SPAN_AND_EVENT")
# Where records go, and how: emitters that read the same values here share one worker and one connection.
_DESTINATION = (
    "ENDPOINT", "INSECURE", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE", "HEADERS", "COMPRESSION", "TIMEOUT",
)  # fmt: skip


def sdk_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_fork_support_off() -> bool:
    """Whether the application has turned off what lets gRPC go on in a forked process."""
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").strip().lower() in {"0", "false", "f", "no", "n"}


def captures_content() -> bool:
    """Whether content may leave the process: `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`, off if unset."""
    return _content_mode() != _NO_CONTENT


def content_on_events_only() -> bool:
    """Whether content that leaves the process must not stand on spans."""
    return _content_mode() == _EVENT_ONLY


def _content_mode() -> str:
    mode = os.environ.get(CAPTURE_CONTENT, "").strip().upper() or _NO_CONTENT
    if mode in _CONTENT_MODES:
        return mode
    modes = ", ".join(_CONTENT_MODES)
    warn_once(CAPTURE_CONTENT, "realtime-otel: %s is none of %s; content stays here", CAPTURE_CONTENT, modes)
    return _NO_CONTENT


def destination() -> tuple[str | None, ...]:
    """The values of the exporter's variables: two equal ones are one destination."""
    return _values(*(f"OTEL_EXPORTER_OTLP_{signal}{name}" for signal in ("LOGS_", "") for name in _DESTINATION))


def protocol() -> str:
    """The protocol that the environment names for logs; "grpc" if it names none."""
    named = _values("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((value.strip() for value in named if value), "grpc")


def is_scheme_missing() -> bool:
    """Whether the endpoint does not say if TLS is spoken there, and no other variable does."""
    insecure = _values("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
    named = _values("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next((value for value in named if value), None)
    return endpoint is not None and "://" not in endpoint and not any(insecure)


def resource() -> Resource:
    """The resource of the application's TracerProvider, if it has set one; else the SDK's own, from the environment."""
    provided = getattr(trace.get_tracer_provider(), "resource", None)
    if isinstance(provided, Resource):
        return provided
    return _created_resource(
        _values("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS")
    )


def sampler() -> Sampler:
    """The sampler of the application's TracerProvider, if it has set one; else the one of `OTEL_TRACES_SAMPLER`."""
    provided = getattr(trace.get_tracer_provider(), "sampler", None)
    if isinstance(provided, Sampler):
        return provided
    return _created_sampler(_values("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"))


def forget() -> None:
    """Read everything anew: a forked process is another service instance."""
    _created_resource.cache_clear()


def _values(*names: str) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in names)


# Cached by the variables' values: detectors may be slow, and a provider stays registered with the process for good.
@functools.lru_cache(maxsize=8)
def _created_resource(_variables: tuple[str | None, ...]) -> Resource:
    return Resource.create()


@functools.lru_cache(maxsize=8)
def _created_sampler(_variables: tuple[str | None, ...]) -> Sampler:
    # The SDK reads the variables when a provider is made without a sampler; it has no public function for it.
    return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
