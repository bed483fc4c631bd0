"""What a tool logs, as records of the stream: so that it can be read where the tool stands in the trace."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk._logs import LogRecordProcessor

from realtime_otel import contract
from realtime_otel.guard import guarded, nothing
from realtime_otel.records import ToolLog
from realtime_otel.tools import ToolScope, current_tool
from realtime_otel.wire import AttributeValue

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord

_OWN: Final = "realtime_otel"


class ToolLogHandler(logging.Handler):
    """Exports what is logged inside a tool, and nothing else: `logging.getLogger().addHandler(ToolLogHandler())`.

    Records go out as ordinary log records with the logger's name as their scope, the stream's and the call's id, and
    the ids of the span that was current. Messages are content: whoever adds the handler lets them leave the process.
    """

    @guarded(nothing)
    def emit(self, record: logging.LogRecord) -> None:
        """Take a record. Never raises, whatever the record's arguments do."""
        scope = current_tool()
        if scope is not None and record.name.partition(".")[0] != _OWN:
            scope.log(_tool_log(record, scope), record.name)


class ToolLogProcessor(LogRecordProcessor):
    """Stamps the stream's and the call's id on log records that an application exports with OpenTelemetry already.

    `logger_provider.add_log_record_processor(ToolLogProcessor())`, before the processor that exports.
    """

    @guarded(nothing)
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        scope = current_tool()
        attributes = log_record.log_record.attributes
        if scope is not None and attributes is not None:
            attributes[contract.STREAM_ID] = scope.stream.id  # type: ignore[index]
            attributes[contract.CALL_ID] = scope.call_id  # type: ignore[index]

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held."""
        return True


def _tool_log(record: logging.LogRecord, scope: ToolScope) -> ToolLog:
    span = trace.get_current_span().get_span_context()
    return ToolLog(
        message=record.getMessage(),
        severity_number=_severity(record.levelno),
        severity_text=record.levelname,
        call_id=scope.call_id,
        span=span if span.is_valid else None,
        attributes=_exception(record),
    )


def _severity(level: int) -> int:
    """OpenTelemetry's number of a level: DEBUG 5, INFO 9, WARNING 13, ERROR 17, CRITICAL 21, and between them."""
    if level < logging.DEBUG:
        return 1
    base, above = min(level // 10, 5), level % 10 if level < logging.CRITICAL else 0
    return base * 4 + 1 + min(above, 3)


def _exception(record: logging.LogRecord) -> dict[str, AttributeValue]:
    kind, error, stack = record.exc_info or (None, None, None)
    if kind is None:
        return {}
    return {
        "exception.type": kind.__qualname__,
        "exception.message": str(error),
        "exception.stacktrace": "".join(traceback.format_exception(kind, error, stack)),
    }
