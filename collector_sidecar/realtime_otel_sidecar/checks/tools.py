"""Whether the tools of stored conversations have logged anything: if none ever did, the handler may be missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..history import SESSION, Mark, ended_of, unlist
from ..store.reading import Reader
from .steps import State, Step

HANDLER = "logging.getLogger().addHandler(realtime_otel.ToolLogHandler())"


def tool_logs(folder: Path) -> Iterator[Step]:
    """A note for each service whose tools have run and logged nothing.

    Raises:
        StoreError: the data directory cannot be read.
    """
    quiet, loud = Counter[str](), Counter[str]()
    with Reader(folder) as reader:
        sessions = map(ended_of, reader.history(SESSION))
        services = {ended.trace_id: ended.service for ended in sessions}
        for row in reader.history("delivered"):
            for trace_id, spans in unlist(row.data).items():
                service = services.get(trace_id, "")
                quiet[service] += sum(mark is Mark.TOOL for mark, _ in spans)
                loud[service] += sum(mark is Mark.LOGGED_TOOL for mark, _ in spans)
    for service, count in quiet.items():
        if count and not loud[service]:
            said = f"{count} calls of tools were put out, and none of them has a log line"
            told = f"If its tools log anything, the handler is missing in the agent: {HANDLER}"
            yield Step(f"tool logs of {service or 'a service that is not known'}", State.NOTE, said, told)
