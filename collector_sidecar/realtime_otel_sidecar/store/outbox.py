"""What the sender reads: a connection of its own, beside that of the database's owner, who writes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from . import folder as files


class OutboxReader:
    """See the module. It never waits for the owner, nor the owner for it."""

    def __init__(self, path: Path) -> None:
        self._connection = files.connect(path)

    def after(self, last: int, *, max_bytes: int) -> list[tuple[int, bytes]]:
        """Id and data of the next rows, at least one if there is one, together at most ``max_bytes``."""
        rows: list[tuple[int, bytes]] = []
        size = 0
        query = "SELECT id, data FROM outbox WHERE id > ? ORDER BY id"
        with closing(self._connection.execute(query, (last,))) as found:
            for row_id, data in found:
                size += len(data)
                if rows and size > max_bytes:
                    break
                rows.append((row_id, data))
        return rows

    def newest(self) -> tuple[int, bytes] | None:
        """Id and data of the last row."""
        query = "SELECT id, data FROM outbox ORDER BY id DESC LIMIT 1"
        row: tuple[int, bytes] | None = self._connection.execute(query).fetchone()
        return row

    def close(self) -> None:
        self._connection.close()
