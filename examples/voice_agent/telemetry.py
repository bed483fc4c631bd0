"""The application's own OpenTelemetry: spans over OTLP, set up by the standard OTEL_* variables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


@contextmanager
def tracing(service_name: str) -> Iterator[TracerProvider]:
    """Trace this process until the context ends; everything is sent by then.

    `OTEL_SERVICE_NAME` overrides the name, and `OTEL_TRACES_EXPORTER=none` keeps the spans from leaving the process.
    """
    provider = TracerProvider(resource=_resource(service_name))
    if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    # Requests made with httpx become spans, and carry the context to the service that answers them.
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    try:
        yield provider
    finally:
        HTTPXClientInstrumentor().uninstrument()
        provider.shutdown()


def _resource(service_name: str) -> Resource:
    # What the environment says wins, so it is merged last.
    defaults = Resource.create({SERVICE_NAME: service_name, SERVICE_NAMESPACE: "realtime-demo"})
    return defaults.merge(OTELResourceDetector().detect())
