"""The sidecar's settings: one frozen object, from flags and environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .logs import Format
from .stitch.bodies import DEEPEST
from .stitch.rules import Limits, RecordLimits, Rules, Waits

ENVIRONMENT_PREFIX = "REALTIME_OTEL_"
SDK_DISABLED, EXPORT_INTERVAL = "OTEL_SDK_DISABLED", "OTEL_METRIC_EXPORT_INTERVAL"
"""Variables of OpenTelemetry's SDK; the interval is in milliseconds."""
NANOSECONDS = 1_000_000_000
KIB = 1024
MIB = 1024 * KIB
LONGEST_SECONDS = 10 * 365 * 86400.0
"""Of any setting that is a time; also keeps the sums of times that the core makes within 64 bits."""
TIMES = (
    "settle",
    "transcript_wait",
    "gap_wait",
    "resume_wait",
    "max_silence",
    "tombstone_age",
    "journal_age",
    "outbox_age",
    "dead_letter_age",
    "history_age",
)
"""Settings in seconds, none of which can be nothing."""
LARGEST_MESSAGE_MIB = 512
"""A request is one value in the journal, and SQLite holds 1 GB in one."""
NEEDS = (
    ("listen_certificate_file", "listen_key_file"),
    ("listen_key_file", "listen_certificate_file"),
    ("listen_client_ca_file", "listen_certificate_file"),
    ("endpoint_certificate_file", "endpoint_key_file"),
    ("endpoint_key_file", "endpoint_certificate_file"),
    ("endpoint_token_in_clear", "endpoint_token_file"),
)
"""Settings that protect nothing without another one."""
LARGEST_COUNT = 1_000_000
COUNTS = {
    "max_open_spans": (8, LARGEST_COUNT),
    "max_spans": (100, LARGEST_COUNT),
    "max_items": (100, LARGEST_COUNT),
    "max_held_records": (100, LARGEST_COUNT),
    "max_emitters": (1, 10_000),
    "max_span_events": (16, 10_000),
    "max_span_links": (8, 10_000),
    "max_span_attributes": (1, 10_000),
    "max_attribute_length": (64, LARGEST_COUNT),
    "max_span_kib": (256, 3 * 1024),
    "max_body_kib": (32, LARGEST_MESSAGE_MIB * 1024),
    "max_body_depth": (8, DEEPEST),
    "max_resource_kib": (4, 64),
    "max_records_per_request": (1, 10 * LARGEST_COUNT),
    "max_streams": (1, LARGEST_COUNT),
    "max_streams_per_service": (1, LARGEST_COUNT),
    "max_tombstones": (1, 10 * LARGEST_COUNT),
}
"""Settings that are numbers of something, or bound one span or one record, with the least and the most that each can
be. Emitters send bodies of 32 KiB, a request to the collector has 3 MiB, and JSON is read by recursion."""
LARGEST_STORE_MIB = 1024 * 1024
LARGEST_STATE_MIB = 64 * 1024
SIZES = {
    "max_message_mib": (1, LARGEST_MESSAGE_MIB),
    "outbox_mib": (1, LARGEST_STORE_MIB),
    "disk_reserve_mib": (0, LARGEST_STORE_MIB),
    "dead_letters_mib": (1, LARGEST_STORE_MIB),
    "history_mib": (1, LARGEST_STORE_MIB),
    "held_mib": (1, LARGEST_STORE_MIB),
    "max_state_mib": (1, LARGEST_STATE_MIB),
    "max_state_mib_per_service": (1, LARGEST_STATE_MIB),
    "max_stream_mib": (1, LARGEST_MESSAGE_MIB),  # a state is one value in the database, too
    "max_waiting_mib": (1, LARGEST_STATE_MIB),
}
"""Settings in MiB, with the least and the most that each can be."""
PARTS = (
    ("max_open_spans", "max_spans"),
    ("max_streams_per_service", "max_streams"),
    ("max_stream_mib", "max_state_mib_per_service"),
    ("max_state_mib_per_service", "max_state_mib"),
    ("max_message_mib", "max_waiting_mib"),
)
"""Settings of which the first bounds a part of what the second bounds."""
FORMS = {bool: "true or false", int: "a whole number", float: "a number"}


class Export(StrEnum):
    """When the spans of a conversation go out."""

    SETTLED = "settled"
    CLOSED = "closed"
    """Once its session has ended, and only if it is to be kept."""


def setting(default: Any, text: str) -> Any:
    """A setting's default and what it does; its flag and its environment variable follow from its name."""
    return field(default=default, metadata={"help": text})


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is a flag (``--data-dir``) and an environment variable (``REALTIME_OTEL_DATA_DIR``); the flag wins.

    Secrets are in files, and only their paths are settings: process lists and environments can be read by others.

    Raises:
        SettingsError: a value is out of its range, or does not go with another.
    """

    listen: str = setting("127.0.0.1:4317", "address of the OTLP/gRPC log receiver")
    data_dir: str = setting("realtime-otel-data", "folder of journal, checkpoints and outbox")
    endpoint: str = setting("http://127.0.0.1:4319", "OTLP/gRPC endpoint that the spans are sent to; https for TLS")
    settle: float = setting(2.0, "seconds of record time from a span's end to its export")
    transcript_wait: float = setting(10.0, "seconds of record time that a user_speech waits for its transcript at most")
    gap_wait: float = setting(60.0, "seconds of record time that a missing sequence number is waited for")
    resume_wait: float = setting(
        60.0, "seconds after its last close in which a chosen stream id goes on with its session"
    )
    max_silence: float = setting(70 * 60.0, "seconds after which a stream without any record counts as ended")
    tombstone_age: float = setting(30 * 86400.0, "seconds for which a stream that has ended is remembered")
    journal_age: float = setting(600.0, "seconds after which a request leaves the journal, its streams checkpointed")
    outbox_age: float = setting(7 * 86400.0, "seconds after which a span that the Collector does not take is given up")
    outbox_mib: int = setting(1024, "spans that may wait for the Collector, in MiB; beyond it, requests are refused")
    disk_reserve_mib: int = setting(256, "room on the disk that is left free, in MiB; within it, requests are refused")
    dead_letter_age: float = setting(14 * 86400.0, "seconds for which dead letters are kept")
    dead_letters_mib: int = setting(256, "dead letters that are kept, in MiB; beyond it, the oldest go")
    history_age: float = setting(30 * 86400.0, "seconds for which it is remembered what became of a span or a session")
    history_mib: int = setting(64, "what is remembered of them, in MiB; beyond it, the oldest goes")
    export: str = setting(
        "settled", "when spans go out: settled, each as it settles; closed, when its session has ended"
    )
    held_mib: int = setting(
        256, "spans that wait for their sessions to end, in MiB; beyond it, the oldest wait no longer"
    )
    keep_ratio: float = setting(1.0, "share of the sessions that are kept whatever is in them; needs export=closed")
    keep_errors: bool = setting(True, "keep sessions with an error; with export=closed")
    keep_interruptions: bool = setting(True, "keep sessions in which the user cut an answer; with export=closed")
    keep_slow_turns: float = setting(
        0.0, "keep sessions in which the user waited so many seconds for audio, 0 for none; needs export=closed"
    )
    sharded: bool = setting(
        False,
        "one of several sidecars: a stream that has begun at another one is told from one whose beginning is lost",
    )
    tool_logs: bool = setting(False, "put the messages of a tool's logs on its span (they are content)")
    metrics_interval: float = setting(15.0, "seconds between two exports of the metrics; 0 for none")
    telemetry_interval: float = setting(15.0, "seconds between two reports of the sidecar on itself; 0 for none")
    prices_file: str = setting("", "YAML file with what tokens cost; without it, no cost is counted")
    tenant_attributes: str = setting("", "attributes of agents' resources to have on metrics too, with commas between")
    content: bool = setting(True, "put what people and models say on spans, where an agent sends it")
    max_message_mib: int = setting(64, "largest request that is taken, in MiB, after decompression")
    max_open_spans: int = setting(256, "spans of a stream that may be open; beyond it, the one due first leaves early")
    max_spans: int = setting(20_000, "spans of one session; beyond it, the session ends")
    max_items: int = setting(10_000, "items of a stream that are remembered; beyond it, the oldest is forgotten")
    max_held_records: int = setting(10_000, "records that wait behind a gap; beyond it, the gap is given up")
    max_emitters: int = setting(256, "emitters of one stream; records of a further one are kept as dead letters")
    max_span_events: int = setting(1024, "events of a span; the first ones stay")
    max_span_links: int = setting(128, "links of a span")
    max_span_attributes: int = setting(128, "attributes that an application may put on a span")
    max_attribute_length: int = setting(65_536, "characters of a text in an attribute; a longer one is cut")
    max_span_kib: int = setting(1024, "size of a span, in KiB; beyond it, events go, then texts are cut")
    max_body_kib: int = setting(1024, "size of an event's body, in KiB; a larger one breaks the contract")
    max_body_depth: int = setting(64, "depth of an event's body; a deeper one breaks the contract")
    max_resource_kib: int = setting(64, "size of an agent's resource, in KiB; a larger one breaks the contract")
    max_records_per_request: int = setting(100_000, "log records in one request; one with more is refused for good")
    max_waiting_mib: int = setting(64, "requests that wait for a commit, in MiB; beyond it, they are to be sent again")
    max_streams: int = setting(10_000, "open streams; beyond it, the service with most of them loses one")
    max_streams_per_service: int = setting(
        5_000, "open streams of one service; beyond it, the one heard longest ago goes"
    )
    max_state_mib: int = setting(96, "state of all open streams, in MiB; the service with most of it loses a stream")
    max_state_mib_per_service: int = setting(64, "state of one service's streams, in MiB; beyond it, the largest goes")
    max_stream_mib: int = setting(8, "state of one stream, in MiB; beyond it, the stream is ended")
    max_tombstones: int = setting(200_000, "streams that have ended and are remembered; beyond it, the oldest go")
    log_format: str = setting("text", "how the log is written: text, for people; json, an object on each line")
    drain_timeout: float = setting(5.0, "seconds in which a stopping sidecar tries to send what is left")
    listen_certificate_file: str = setting("", "PEM file with the receiver's certificate and its chain; turns TLS on")
    listen_key_file: str = setting("", "PEM file with the key of that certificate, without a password")
    listen_client_ca_file: str = setting("", "PEM file with authorities; clients then need a certificate of theirs")
    listen_token_file: str = setting("", "file with tokens, one a line; clients then need one of them")
    endpoint_ca_file: str = setting("", "PEM file with the authorities to trust at the endpoint, not the public ones")
    endpoint_certificate_file: str = setting("", "PEM file with the certificate to show at the endpoint, and its chain")
    endpoint_key_file: str = setting("", "PEM file with the key of that certificate, without a password")
    endpoint_token_file: str = setting("", "file whose first line holds the token to send to the endpoint")
    endpoint_token_in_clear: bool = setting(False, "send that token without TLS to another host, too")
    endpoint_authority: str = setting("", "name to expect in the endpoint's certificate, instead of its host name")

    def __post_init__(self) -> None:
        for name in TIMES:
            if not 0 < getattr(self, name) <= LONGEST_SECONDS:  # in this form, not-a-number is refused too
                reason = f"above 0, or state is never let go, and at most {LONGEST_SECONDS:.0f} (ten years)"
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be {reason}")
        for name, (least, most) in (SIZES | COUNTS).items():
            if not least <= getattr(self, name) <= most:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be {least} to {most}")
        if self.transcript_wait < self.settle:
            raise SettingsError(f"transcript_wait ({self.transcript_wait}) is shorter than settle ({self.settle})")
        if not 0 <= self.drain_timeout <= LONGEST_SECONDS:
            raise SettingsError(f"drain_timeout is {self.drain_timeout}; it must be 0 or more seconds")
        for part, whole in PARTS:
            if getattr(self, part) > getattr(self, whole):
                raise SettingsError(f"{part} ({getattr(self, part)}) is more than {whole} ({getattr(self, whole)})")
        for name in ("metrics_interval", "telemetry_interval"):
            if not 0 <= getattr(self, name) <= LONGEST_SECONDS:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be 0 or more seconds")
        if self.log_format not in list(Format):
            raise SettingsError(f"log_format is {self.log_format!r}; it must be {' or '.join(Format)}")
        _check_keeping(self)
        if not self.data_dir.strip():
            raise SettingsError("data_dir is empty; it must be a folder")
        if not _is_address(self.listen):
            raise SettingsError(f"listen is {self.listen!r}; it must be host:port")
        if not _is_endpoint(self.endpoint):
            raise SettingsError(f"endpoint is {self.endpoint!r}; it must be http://host:port, or https:// for TLS")
        _check_protection(self)

    @property
    def path(self) -> Path:
        return Path(self.data_dir)

    @property
    def tenant_keys(self) -> tuple[str, ...]:
        return tuple(key.strip() for key in self.tenant_attributes.split(",") if key.strip())

    @property
    def rules(self) -> Rules:
        """The part that the core follows, in nanoseconds."""
        return Rules(
            waits=Waits(settle=_nanoseconds(self.settle), transcript=_nanoseconds(self.transcript_wait)),
            gap_wait=_nanoseconds(self.gap_wait),
            resume_wait=_nanoseconds(self.resume_wait),
            sharded=self.sharded,
            tool_logs=self.tool_logs,
            content=self.content,
            limits=Limits(
                open_spans=self.max_open_spans,
                spans=self.max_spans,
                items=self.max_items,
                held_records=self.max_held_records,
                emitters=self.max_emitters,
                span_events=self.max_span_events,
                span_links=self.max_span_links,
                span_attributes=self.max_span_attributes,
                attribute_length=self.max_attribute_length,
                span_bytes=self.max_span_kib * KIB,
            ),
        )

    @property
    def record_limits(self) -> RecordLimits:
        """What a record may hold."""
        return RecordLimits(
            body_bytes=self.max_body_kib * KIB,
            body_depth=self.max_body_depth,
            resource_bytes=self.max_resource_kib * KIB,
            log_length=self.max_attribute_length,
        )


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and int(port) <= 65535


def endpoint_url(text: str) -> SplitResult:
    """An endpoint as a URL; one without a scheme is spoken to in clear."""
    return urlsplit(text if "://" in text else f"http://{text}")


def _is_endpoint(text: str) -> bool:
    try:
        url = endpoint_url(text)
        known = url.scheme in ("http", "https") and bool(url.hostname and url.port) and "@" not in url.netloc
        return known and url.path in ("", "/") and not url.query and not url.fragment
    except ValueError:  # a port that is none
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for sure; a name other than localhost may be anybody's."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return False


def _check_keeping(settings: Settings) -> None:
    """Refuse a word that is none, and rules that nothing would follow."""
    if settings.export not in list(Export):
        raise SettingsError(f"export is {settings.export!r}; it must be {' or '.join(Export)}")
    if not 0 <= settings.keep_ratio <= 1:
        raise SettingsError(f"keep_ratio is {settings.keep_ratio}; it must be 0 to 1")
    if not 0 <= settings.keep_slow_turns <= LONGEST_SECONDS:
        raise SettingsError(f"keep_slow_turns is {settings.keep_slow_turns}; it must be 0 or more seconds")
    for name, given in (("keep_ratio", settings.keep_ratio < 1), ("keep_slow_turns", settings.keep_slow_turns > 0)):
        if given and settings.export != Export.CLOSED:
            raise SettingsError(f"{name} is given, but export is {settings.export}; only export=closed keeps or drops")


def _check_protection(settings: Settings) -> None:
    """Refuse what would protect less than it seems to."""
    for name, other in NEEDS:
        if getattr(settings, name) and not getattr(settings, other):
            raise SettingsError(f"{name} is given without {other}")
    url = endpoint_url(settings.endpoint)
    if url.scheme == "https":
        return
    for name in ("endpoint_ca_file", "endpoint_certificate_file"):
        if getattr(settings, name):
            raise SettingsError(f"{name} is given, but endpoint is {settings.endpoint!r}; TLS needs https://")
    in_clear = settings.endpoint_token_in_clear or is_loopback(url.hostname or "")
    if settings.endpoint_token_file and not in_clear:
        raise SettingsError(
            f"endpoint_token_file is given, but endpoint is {settings.endpoint!r}: the network could read the token; "
            "use https://, or allow it with endpoint_token_in_clear"
        )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def named(name: str) -> Field[Any]:
    """The setting of this name."""
    return next(each for each in fields(Settings) if each.name == name)


def shown_default(each: Field[Any]) -> str:
    return "none" if each.default == "" else str(each.default)


def environment_name(each: Field[Any]) -> str:
    return ENVIRONMENT_PREFIX + each.name.upper()


def settings_from(flags: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Flags first, then the environment, then the defaults.

    Raises:
        SettingsError: a value has the wrong form, or is out of its range.
    """
    values: dict[str, Any] = {}
    for each in fields(Settings):
        given = getattr(flags, each.name, None)
        source = "--" + each.name.replace("_", "-")
        if given is None and (given := environment.get(environment_name(each)) or None) is not None:
            source = environment_name(each)
        if given is not None:
            values[each.name] = _convert(each, given, source)
    return Settings(**_standard(environment) | values)


def _standard(environment: Mapping[str, str]) -> dict[str, Any]:
    """What OpenTelemetry's own variables say of the sidecar's telemetry; our settings know better.

    Raises:
        SettingsError: a value has the wrong form.
    """
    if environment.get(SDK_DISABLED, "").strip().lower() == "true":
        return {"telemetry_interval": 0.0}
    milliseconds = environment.get(EXPORT_INTERVAL, "").strip()
    try:
        return {"telemetry_interval": float(milliseconds) / 1000} if milliseconds else {}
    except ValueError:
        raise SettingsError(f"{EXPORT_INTERVAL} is {milliseconds!r}; it must be a number of milliseconds") from None


def _convert(each: Field[Any], given: Any, source: str) -> Any:
    wanted: type[Any] = type(each.default)
    if isinstance(given, wanted):
        return given
    try:
        return _boolean(given) if wanted is bool else wanted(given)
    except ValueError:
        raise SettingsError(f"{source} is {given!r}; it must be {FORMS[wanted]}") from None


def _boolean(text: str) -> bool:
    known: dict[str, bool] = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


__all__: Sequence[str] = [
    "MIB",
    "Export",
    "Settings",
    "SettingsError",
    "endpoint_url",
    "environment_name",
    "is_loopback",
    "named",
    "settings_from",
    "shown_default",
]
