"""What this process has counted since it began: what came, what left, and what was lost or set aside.

Exact, and of one process: a restart begins at 0. What must go on over a restart is in the metrics of the conversations.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from .checks import SERVICE as PROBES
from .conversations import Taken
from .otlp.decode import Broken
from .shares import Bound, Excess
from .stitch import attributes as key
from .stitch.limits import reached
from .stitch.record import Record
from .stitch.spans import Attributes
from .stitch.stitcher import Rejection
from .store.rows import Batch, DeadLetter, Delivered, Sweep

SETTING: Final = re.compile(r"\((max_\w+)\)$")
SERVICES: Final = 100
"""Services that are counted by their names, which are theirs to choose; the others together."""
OTHERS: Final = "(other services)"
LONGEST_NAME: Final = 80
"""Of a service, in the log and in counters."""


LIMITS: Final = (
    "max_open_spans",
    "max_spans",
    "max_items",
    "max_held_records",
    "max_emitters",
    "max_span_events",
    "max_span_links",
    "max_span_attributes",
    "max_attribute_length",
    "max_body_kib",
    "max_body_depth",
    "max_resource_kib",
    "held_mib",
)
"""Settings that are counted when they have taken something away; `max_span_kib` counts as what it takes away."""


class Letter(StrEnum):
    """What a dead letter is, where it is not a record that was rejected for a `Rejection`."""

    CONTRACT = "contract"
    """A record that breaks it."""
    REFUSED_BY_COLLECTOR = "refused_by_collector"
    UNENCODABLE_SPAN = "unencodable_span"
    UNREADABLE_JOURNAL = "unreadable_journal"
    UNREADABLE_STATE = "unreadable_state"


LETTERS: Final[dict[str, str]] = {
    "refused by the collector": Letter.REFUSED_BY_COLLECTOR,
    "a span cannot be encoded": Letter.UNENCODABLE_SPAN,
    "a journal row cannot be read": Letter.UNREADABLE_JOURNAL,
    "a state cannot be read": Letter.UNREADABLE_STATE,
}
"""How the reasons of dead letters begin that are none of a `Rejection`, and no sentence about the contract."""
REJECTIONS: Final = frozenset(Rejection)


class Departure(StrEnum):
    """What became of a span that was to be sent."""

    TAKEN = ""
    """The collector has acknowledged it."""
    REFUSED = "refused"
    """By the collector, for good; it is among the dead letters."""
    REJECTED = "rejected"
    """By the collector, out of a request that it took (OTLP's partial success): lost."""
    EXPIRED = "expired"
    """Dropped from the outbox for its age: lost."""


class Completeness(StrEnum):
    """What came of a session's records."""

    COMPLETE = "complete"
    DROPPED = "dropped"
    """Its emitter has said that it dropped some; the others came."""
    MISSING = "missing"
    """Some never came, and nobody has said why."""


@dataclass(slots=True)
class Counters:
    """See the module. The engine's thread writes; anybody reads."""

    records: int = 0
    """That keep to the contract, those that came before included."""
    records_duplicate: int = 0
    """That had come before."""
    records_missing: int = 0
    """Sequence numbers that were given up: lost."""
    records_dropped: int = 0
    """That emitters have dropped, and said so."""
    late_logs: int = 0
    """Lines of tools' logs that came too late for a span, or for which there was none."""
    records_broken: int = 0
    """That break the contract."""
    records_refused: Counter[Rejection] = field(default_factory=Counter)
    """That keep to it and never reached a span, by the reason."""
    heard: float = field(default_factory=time.monotonic)
    """When the last record of an agent came, or this process began; monotonic. Probes are no agents."""
    sessions_ended: Counter[Completeness] = field(default_factory=Counter)
    """But for probes."""
    spans_settled: int = 0
    """Sampled or not."""
    spans_exported: Counter[Departure] = field(default_factory=Counter)
    """That have left the outbox, by what became of them."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Written, spans included, by what they are: see `kind_of`."""
    dead_letters_dropped: int = 0
    """Let go for their age or their sum."""
    conversations_kept: Counter[str] = field(default_factory=Counter)
    """That were held to their ends, by the setting that kept them; ``held_mib``: there was no room to wait."""
    conversations_dropped: int = 0
    """That were held to their ends, and that none of the rules has kept."""
    limits_reached: Counter[str] = field(default_factory=Counter)
    """What was left out or ended because of a setting that bounds one record, span or session, by its name."""
    tombstones_dropped: int = 0
    """Streams of which it is forgotten that they have ended, for their age or their number."""
    checkpoints: int = 0
    """Streams that were checkpointed."""
    streams_evicted: Counter[Bound] = field(default_factory=Counter)
    """Ended because there was no room, by the setting that said so."""
    streams_evicted_of: Counter[str] = field(default_factory=Counter)
    """The same by service, for the first hundred services that this happened to."""

    def came(self, records: list[Record], broken: Iterable[Broken]) -> None:
        """A request with these records. Of a broken one, the reason ends with the setting that it is about."""
        ends = records[:1] + records[-1:]  # looking at each would cost more than it tells
        if not ends or any(record.resource.service != PROBES for record in ends):
            self.heard = time.monotonic()
        self.records += len(records)
        for each in broken:
            self.records_broken += 1
            if named := SETTING.search(each.reason):
                self.limits_reached[named[1]] += 1

    def became(self, taken: Taken, *, makes_room: bool) -> None:
        """What became of a journal row; ``makes_room``: it has ended streams for which there was none."""
        self.records_duplicate += taken.duplicates
        self.records_missing += taken.missing
        self.records_dropped += taken.dropped
        self.late_logs += taken.late_logs
        self.spans_settled += len(taken.settled)
        for _, reason in taken.rejected:
            self.records_refused[reason] += 1
            if reason is Rejection.TOO_MANY_EMITTERS:
                self.limits_reached["max_emitters"] += 1
        for span in taken.settled:
            if key.is_session(span.attributes) and span.resource.service != PROBES:
                self.sessions_ended[_completeness(span.attributes)] += 1
        for span in taken.spans:
            limits = reached(span)
            if makes_room:
                limits.pop("max_spans", None)
            self.limits_reached.update(limits)

    def wrote(self, batch: Batch, delivered: Iterable[Delivered]) -> None:
        """This is on disk; ``delivered``: the outbox rows that the collector was done with."""
        self.checkpoints += sum(not row.is_empty for row in batch.checkpoints)
        letters = Counter(map(kind_of, batch.dead_letters))
        self.dead_letters.update(letters)
        refused, rejected = letters[Letter.REFUSED_BY_COLLECTOR], sum(sent.rejected for sent in batch.sent)
        self.spans_exported[Departure.REFUSED] += refused
        self.spans_exported[Departure.REJECTED] += rejected
        self.spans_exported[Departure.TAKEN] += sum(row.spans for row in delivered) - refused - rejected

    def evicted(self, excess: Sequence[Excess]) -> None:
        """These streams were ended, because there was no room."""
        for each in excess:
            self.streams_evicted[each.bound] += 1
            self.streams_evicted_of[self.name_of(each.service)] += 1

    def name_of(self, service: str) -> str:
        """What a service is called that has lost streams."""
        name = service[:LONGEST_NAME]
        is_one_more = name not in self.streams_evicted_of and len(self.streams_evicted_of) >= SERVICES
        return OTHERS if is_one_more else name

    def swept(self, sweep: Sweep) -> None:
        """This slice of what was too old or too much is gone."""
        self.tombstones_dropped += len(sweep.tombstones)
        self.spans_exported[Departure.EXPIRED] += sweep.outbox_spans
        self.dead_letters_dropped += sweep.letters


def kind_of(letter: DeadLetter) -> str:
    """What a dead letter is: one of `Rejection` or `Letter`."""
    if letter.reason in REJECTIONS:
        return letter.reason
    return next((kind for begin, kind in LETTERS.items() if letter.reason.startswith(begin)), Letter.CONTRACT)


def _completeness(attributes: Attributes) -> Completeness:
    if attributes.get(key.RECORDS_MISSING):
        return Completeness.MISSING
    return Completeness.DROPPED if attributes.get(key.RECORDS_DROPPED) else Completeness.COMPLETE
