"""Changes that leave an input nearly whole, so that it gets past the first look and fails, if at all, deep inside.

Each mutator takes an input and a source of chance, and returns another; the same chance gives the same change. What
cannot be parsed is given back as it is: bytes alone are libFuzzer's to change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.stitch import bodies
from realtime_otel_sidecar.stitch.attributes import ATTRIBUTES
from realtime_otel_sidecar.stitch.events import TABLE

LONG: Final = 5_000
"""Long enough to pass every bound on a number's digits or a name's length, and short enough to be fast."""
HOSTILE_JSON: Final = (
    "null", "true", "false", "0", "-1", "0.5", "1e999", "-1e999", "1e308", "1e-400", "9" * LONG, "-" + "9" * 25,
    str(2**63 - 1), str(2**63), str(2**64), "NaN", "Infinity", "[]", "{}", '""', '"\\u0000"', '"\\ud800"', '"\\udc00x"',
    '"' + "a" * LONG + '"', '{"type":1,"type":"message"}', "[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200,
    "[" * LONG, '"é\U0001f600"', "[null,1,[],{}]", '{"":0}', "[[0,9],[5,3],[-1,20]]", '{"type":"function_call"}',
    '{"message":{}}', '"not a word"', '"completed"', '"cancelled"', '"function_call_output"', '"user"', '"none"',
    json.dumps(dict.fromkeys(ATTRIBUTES, "text")), json.dumps({name: [1] for name in ATTRIBUTES}),
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, -1, 2**31, 2**32, 2**48, 2**53, 2**62, 2**63 - 1, -(2**63))
TIMES: Final = (0, 1, 10**9, 2**63 - 1, 2**63, 2**64 - 1)
SECOND: Final = 10**9
FIELDS: Final = sorted(
    {member for body in vars(bodies).values() for member in getattr(body, "__struct_encode_fields__", ())}
)
"""Every field of a body that is read."""
KEYS: Final = sorted(
    value
    for name, value in vars(contract).items()
    if name.isupper() and isinstance(value, str) and "." in value and value != contract.EVENT_PREFIX
)
"""Every attribute of the contract."""
TYPES: Final = [*TABLE, "unheard.of", ""]


# --- JSON -----------------------------------------------------------------------------------------------------------


def mutated_json(text: str, chance: Random) -> str:
    """JSON text in which a few places hold something else, are gone, doubled or named otherwise."""
    try:
        root = [json.loads(text)]
    except (ValueError, RecursionError):
        root = [{}]
    hostile: list[str] = []
    for _ in range(chance.randint(1, 3)):
        holder, name = chance.choice(list(_places(root)))
        _change(holder, name, chance, hostile)
    try:
        written = json.dumps(root[0] if root else None)
    except (ValueError, RecursionError):
        return text
    for number, token in enumerate(hostile):
        written = written.replace(json.dumps(_mark(number)), token)
    return written


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Whatever holds something, and under which name or number; not deeper than any body is read."""
    levels = [value]
    for _ in range(12):
        levels, inside = [], levels
        for holder in inside:
            names = holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
            for name in names:
                yield holder, name
                levels.append(holder[name])


def _change(holder: Any, name: Any, chance: Random, hostile: list[str]) -> None:
    value = holder[name]
    match chance.randrange(8):
        case 0 if isinstance(holder, dict):
            del holder[name]
        case 1 if isinstance(holder, list) and len(holder) < 100:
            holder.insert(name, value)
        case 2 if isinstance(holder, dict):
            holder[chance.choice(FIELDS)] = holder.pop(name)
        case 3 if isinstance(value, dict):
            value[chance.choice(FIELDS)] = _put_off(chance.choice(HOSTILE_JSON), hostile)
        case 4 if isinstance(value, int | float) and not isinstance(value, bool):
            holder[name] = chance.choice([chance.choice(NUMBERS), value + chance.choice([-1, 1])])
        case 5 if isinstance(value, str):
            holder[name] = chance.choice([value[: len(value) // 2], value * 2, value + "\x00", value + "\ud800"])
        case 6:
            holder[name] = chance.choice([[value], {"type": value}, [value, value]])
        case _:
            holder[name] = _put_off(chance.choice(HOSTILE_JSON), hostile)


def _put_off(token: str, hostile: list[str]) -> str:
    """A place for text that no JSON library would write."""
    hostile.append(token)
    return _mark(len(hostile) - 1)


def _mark(number: int) -> str:
    return f"\x01{number}\x01"


# --- Requests -------------------------------------------------------------------------------------------------------


def mutate_request(data: bytes, chance: Random) -> bytes:
    """An ExportLogsServiceRequest with a few of its records changed, moved, doubled, lost, or of another stream."""
    request = ExportLogsServiceRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return data
    for _ in range(chance.randint(1, 4)):
        lists = [scope.log_records for resource in request.resource_logs for scope in resource.scope_logs]
        lists = [log_records for log_records in lists if log_records]
        if lists:
            log_records = chance.choice(lists)
            chance.choice(ARRANGEMENTS)(log_records, chance)
    return request.SerializeToString()


def _alter(log_records: Any, chance: Random) -> None:
    """Change one record, or now and then all of them in the same way."""
    change, seed = chance.choice(CHANGES), chance.random()
    chosen = [chance.choice(log_records)] if chance.random() < 0.9 else log_records
    pool = list(log_records)
    for log_record in chosen:
        change(log_record, pool, Random(seed))


def _double(log_records: Any, chance: Random) -> None:
    log_records.append(chance.choice(log_records))


def _lose(log_records: Any, chance: Random) -> None:
    del log_records[chance.randrange(len(log_records)) :][: chance.randint(1, 3)]


def _move(log_records: Any, chance: Random) -> None:
    taken = log_records.pop(chance.randrange(len(log_records)))
    log_records.insert(chance.randrange(len(log_records) + 1), taken)


def _repeat_with_other_contents(log_records: Any, chance: Random) -> None:
    """A record with the number of another."""
    copy = LogRecord()
    copy.CopyFrom(chance.choice(log_records))
    change_body(copy, list(log_records), chance)
    change_event(copy, list(log_records), chance)
    log_records.append(copy)


def _divide(log_records: Any, chance: Random) -> None:
    """The second half of the records is of another emitter, or of another stream."""
    name = chance.choice([contract.EMITTER_ID, contract.STREAM_ID])
    for log_record in log_records[len(log_records) // 2 :]:
        put(log_record, name, AnyValue(string_value="another"))


ARRANGEMENTS: Final[Sequence[Callable[[Any, Random], None]]] = (
    *(_alter,) * 6, _double, _lose, _move, _repeat_with_other_contents, _divide,
)  # fmt: skip


def put(log_record: LogRecord, name: str, value: AnyValue) -> None:
    """Give the record this attribute, in the place of the one that it has."""
    for pair in log_record.attributes:
        if pair.key == name:
            pair.value.CopyFrom(value)
            return
    log_record.attributes.append(KeyValue(key=name, value=value))


def change_time(log_record: LogRecord, _pool: Sequence[LogRecord], chance: Random) -> None:
    """To the edges of what OTLP holds, or a jump back or ahead."""
    jump = chance.choice([-1, 1]) * chance.choice([1, SECOND, 70 * SECOND, 10**17])
    moved = min(max(0, log_record.time_unix_nano + jump), 2**64 - 1)
    log_record.time_unix_nano = chance.choice([moved, moved, chance.choice(TIMES)])
    log_record.observed_time_unix_nano = chance.choice([0, log_record.observed_time_unix_nano, chance.choice(TIMES)])


def change_ids(log_record: LogRecord, pool: Sequence[LogRecord], chance: Random) -> None:
    sizes = [0, 1, 7, 8, 9, 15, 16, 17, 32]
    name = chance.choice(["trace_id", "span_id"])
    given = [bytes(chance.choice(sizes)), chance.randbytes(chance.choice(sizes)), getattr(chance.choice(pool), name)]
    setattr(log_record, name, chance.choice(given))


def change_flags(log_record: LogRecord, _pool: Sequence[LogRecord], chance: Random) -> None:
    log_record.flags = chance.choice([0, 1, 0x300, 2**32 - 1])


def change_event(log_record: LogRecord, pool: Sequence[LogRecord], chance: Random) -> None:
    """Another event's name, with its body or with the old one; or none, as a log line has."""
    given = chance.choice(pool)
    names = [contract.EVENT_PREFIX + chance.choice(TYPES), given.event_name, "", "a.stranger", "x" * LONG]
    log_record.event_name = chance.choice(names)
    if chance.random() < 0.5:
        log_record.body.CopyFrom(given.body)


def change_attribute(log_record: LogRecord, pool: Sequence[LogRecord], chance: Random) -> None:
    """An attribute of the contract gets another value, that of another record, or is gone."""
    name = chance.choice(KEYS)
    others = [pair.value for each in pool for pair in each.attributes if pair.key == name]
    match chance.randrange(4):
        case 0 if others:
            put(log_record, name, chance.choice(others))
        case 1:
            kept = [pair for pair in log_record.attributes if pair.key != name]
            del log_record.attributes[:]
            log_record.attributes.extend(kept)
        case 2:
            log_record.attributes.append(KeyValue(key=name, value=any_value(log_record, chance)))
        case _:
            put(log_record, name, any_value(log_record, chance))


def change_body(log_record: LogRecord, _pool: Sequence[LogRecord], chance: Random) -> None:
    if chance.random() < 0.1:
        log_record.body.CopyFrom(any_value(log_record, chance))
    else:
        log_record.body.string_value = _utf8(mutated_json(log_record.body.string_value, chance))


CHANGES: Final = (
    *(change_body,) * 6, *(change_attribute,) * 4, *(change_time,) * 2, change_event, change_ids, change_flags,
)  # fmt: skip


def any_value(log_record: LogRecord, chance: Random) -> AnyValue:
    """A value of each kind that OTLP has, and none."""
    texts = [
        "",
        "a",
        "another",
        "\x00",
        "0" * 16,
        log_record.span_id.hex(),
        log_record.trace_id.hex(),
        *Fact,
        "a" * LONG,
    ]
    number, time = chance.choice(NUMBERS), log_record.time_unix_nano % 2**63
    return chance.choice(
        [
            AnyValue(string_value=chance.choice(texts)),
            AnyValue(int_value=chance.choice([number, time, max(0, time - 70 * SECOND)])),
            AnyValue(bool_value=chance.random() < 0.5),
            AnyValue(double_value=chance.choice([0.5, -0.0, float("nan"), float("inf"), 1e300])),
            AnyValue(bytes_value=chance.randbytes(8)),
            AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=number)])),
            AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a", value=AnyValue(int_value=number))])),
            AnyValue(),
        ]
    )


def _utf8(text: str) -> str:
    """Without lone surrogates, which protobuf's strings cannot hold."""
    return text.encode("utf-8", "replace").decode()


# --- Lines ----------------------------------------------------------------------------------------------------------


def mutate_events(data: bytes, chance: Random) -> bytes:
    """Lines of a type and a body (`oracles.check_events`): bodies and types change, lines double, move and go."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    kind, _, body = lines[at].decode("utf-8", "replace").partition(" ")
    if chance.random() < 0.2:
        kind = chance.choice(TYPES)
    lines[at] = f"{kind} {mutated_json(body, chance)}".encode("utf-8", "replace")
    return b"\n".join(_arranged(lines, chance))


def mutate_recording(data: bytes, chance: Random) -> bytes:
    """Lines of JSON: as `mutate_events`, and cut anywhere."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at] = mutated_json(lines[at].decode("utf-8", "replace"), chance).encode("utf-8", "replace")
    if chance.random() < 0.1:
        lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
    return b"\n".join(_arranged(lines, chance))


def _arranged(lines: list[bytes], chance: Random) -> list[bytes]:
    match chance.randrange(6):
        case 0:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
        case 1 if len(lines) > 1:
            lines.pop(chance.randrange(len(lines)))
        case 2:
            lines.append(lines.pop(chance.randrange(len(lines))))
    return lines
