"""OpenTelemetry traces of OpenAI Realtime conversations: the emitter.

    session = await runner.run()
    realtime_otel.observe(session)
    async with session:
        ...

states every event of the session as a log record, from which the stitcher next to the Collector makes a trace.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime_otel.agents import RealtimeListener
    from realtime_otel.emitter import RealtimeEmitter
    from realtime_otel.logs import ToolLogHandler, ToolLogProcessor
    from realtime_otel.observing import observe

    __version__: str

__all__ = ["RealtimeEmitter", "RealtimeListener", "ToolLogHandler", "ToolLogProcessor", "__version__", "observe"]

# Imported when they are first asked for: an application that only sets up its logging imports no more than that.
_HOMES = {
    "RealtimeEmitter": "emitter",
    "RealtimeListener": "agents",
    "ToolLogHandler": "logs",
    "ToolLogProcessor": "logs",
    "observe": "observing",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from realtime_otel.emitter import version_of

        return version_of("realtime-otel")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
