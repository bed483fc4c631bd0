"""A sender at work, without an engine: what it is given, and what it says of it."""

from __future__ import annotations

from realtime_otel_sidecar.credentials import Credentials
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.otlp.sender import Sender
from realtime_otel_sidecar.stitch.spans import Resource, Span
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.rows import Batch, DeadLetter, OutboxRow
from tests.sidecar import spans_of


def row(number: int, padding: int = 0) -> bytes:
    """An outbox row with one span, whose id is the number."""
    span = Span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=b"",
        name="x" * padding,
        start=1,
        end=2,
        attributes={},
        resource=Resource(),
    )
    return encode_spans([span]).SerializeToString()


def waiting(*rows: bytes) -> Batch:
    """What puts these rows into the outbox."""
    return Batch(outbox=[OutboxRow(1, len(list(spans_of(data))), data) for data in rows])


def numbers(requests: list[bytes]) -> list[int]:
    return [int.from_bytes(span_id, "big") for request in requests for (_, span_id), _ in spans_of(request)]


class Running:
    """A sender at work on a database, and what it has acknowledged."""

    def __init__(
        self,
        database: Database,
        endpoint: str,
        credentials: Credentials = Credentials(),  # noqa: B008 - it is frozen
        authority: str = "",
    ) -> None:
        self.acknowledged: list[int] = []
        self.refused: list[DeadLetter] = []
        self.said: list[str] = []
        """What the collector has told of what it took."""
        self.rejected = 0
        """Spans that it has dropped by that."""
        self.problems: list[str] = []
        """Why it took nothing from then on; empty: it does."""
        self.damage: list[Exception] = []
        told = self._acknowledge, self.damage.append
        self.sender = Sender(database.path, endpoint, *told, credentials, authority, self.problems.append)
        self._database = database

    def _acknowledge(self, row_id: int, refused: list[DeadLetter], said: str, rejected: int) -> None:
        self.rejected += rejected
        self.refused += refused
        self.said += [said] if said else []
        self.acknowledged.append(row_id)

    def put(self, *rows: bytes) -> None:
        self._database.commit(waiting(*rows))
        self.sender.wake()
