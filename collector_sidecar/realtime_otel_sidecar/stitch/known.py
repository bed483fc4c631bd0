"""What a conversation remembers beside its parts: items, client events, connections."""

from __future__ import annotations

from msgspec import Struct

from realtime_otel.contract import Kind

from .spans import CloseReason


class Known(Struct, omit_defaults=True, gc=False):
    """An item of the conversation, as far as later events need it."""

    turn: int
    is_speech: bool = False
    response: str = ""
    """The response that made it."""
    ordinal: int = 1
    audio_ms: int | None = None
    """Of the last item with audio of a response, milliseconds. None until all of it was made, if the response was
    cancelled, and where it is not known: the format is not, or records were lost."""
    output_of: bytes = b""
    """Span id of the tool whose output it is."""
    text: str = ""
    """Of a speech, its transcript. Content."""


class Create(Struct, frozen=True, omit_defaults=True):
    """A response.create of the client that no response.created has answered."""

    event_id: str
    time: int
    out_of_band: bool


class Asked(Struct, frozen=True, omit_defaults=True):
    """A client event that an error may name, and the part that it is about."""

    type: str
    kind: Kind | None = None
    id: str = ""


class Connection(Struct, omit_defaults=True):
    """One emitter of a stream with a chosen id."""

    last: int
    """Time of its newest record."""
    closed: bool = False


class Close(Struct, frozen=True, omit_defaults=True):
    """How a connection ended."""

    time: int
    reason: CloseReason
    error: str = ""
    code: int | None = None
