"""The real OpenTelemetry Collector and the real Jaeger for tests: built from source once, then started as processes."""
