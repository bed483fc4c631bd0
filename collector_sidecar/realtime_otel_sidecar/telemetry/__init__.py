"""The sidecar's own telemetry: what it counts of itself, by the OpenTelemetry SDK, to the same endpoint as the spans.

Not the conversations' metrics (`..metrics`), whose sums survive a restart: these numbers are of one process.
"""
