"""Requests that are not taken in: why, and how many of them there were."""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum
from typing import Final


class Why(StrEnum):
    """Why a request was refused."""

    OUTBOX_FULL = "outbox_full"
    DISK_FULL = "disk_full"
    """But for its reserve."""
    DISK_UNWRITABLE = "disk_unwritable"
    STOPPING = "stopping"
    NO_ROOM = "no_room"
    """As many bytes as may wait for a commit do (`max_waiting_mib`)."""
    TOO_MANY_LARGE = "too_many_large"
    """It has waited too long for its turn to be received, or did not come in that turn."""
    COMMIT_TIMEOUT = "commit_timeout"
    INTERNAL_ERROR = "internal_error"
    INVALID = "invalid"
    """Not an ExportLogsServiceRequest."""
    NO_MESSAGE = "no_message"
    """It was too large (`max_message_mib`), or its client has given up."""
    TOO_MANY_RECORDS = "too_many_records"
    UNAUTHENTICATED = "unauthenticated"


FOR_GOOD: Final = frozenset({Why.INVALID, Why.NO_MESSAGE, Why.TOO_MANY_RECORDS, Why.UNAUTHENTICATED})
"""After these a client does not send the request again."""


class Unavailable(Exception):
    """The request was not taken in; the client is to send it again after ``retry_after`` seconds."""

    def __init__(self, reason: str, retry_after: float = 1.0, why: Why = Why.INTERNAL_ERROR) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.why = why


class Refusals:
    """How many there were since this process began, by why. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Why] = Counter()

    def add(self, why: Why) -> None:
        with self._lock:
            self._counts[why] += 1

    def __getitem__(self, why: Why) -> int:
        return self._counts[why]
