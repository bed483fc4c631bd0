"""Settings: each is a flag, an environment variable, documented, validated, and read."""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import realtime_otel_sidecar
from realtime_otel_sidecar.commands.flags import add_flags
from realtime_otel_sidecar.config import (
    COUNTS,
    LARGEST_MESSAGE_MIB,
    PARTS,
    Settings,
    SettingsError,
    environment_name,
    settings_from,
    shown_default,
)

SOURCES = Path(realtime_otel_sidecar.__file__).parent
DOCS = Path(__file__).resolve().parents[3] / "docs"
OPERATIONS = DOCS / "operations.md"
NAMES = [each.name for each in fields(Settings)]
OTHER_VALUES: dict[str, Any] = {
    "listen": "0.0.0.0:5317",
    "data_dir": "/var/lib/elsewhere",
    "endpoint": "https://collector:4319",
    "settle": 1.5,
    "transcript_wait": 20.0,
    "gap_wait": 30.0,
    "resume_wait": 45.0,
    "max_silence": 60.0,
    "tombstone_age": 3600.0,
    "journal_age": 60.0,
    "outbox_age": 86400.0,
    "outbox_mib": 64,
    "disk_reserve_mib": 0,
    "dead_letter_age": 3600.0,
    "dead_letters_mib": 16,
    "history_age": 7200.0,
    "history_mib": 8,
    "export": "closed",
    "held_mib": 8,
    "keep_ratio": 0.25,
    "keep_errors": False,
    "keep_interruptions": False,
    "keep_slow_turns": 2.5,
    "sharded": True,
    "tool_logs": True,
    "telemetry_interval": 30.0,
    "metrics_interval": 1.0,
    "prices_file": "prices.yaml",
    "tenant_attributes": "tenant, region",
    "content": False,
    "max_message_mib": 16,
    "max_open_spans": 16,
    "max_spans": 500,
    "max_items": 200,
    "max_held_records": 300,
    "max_emitters": 4,
    "max_span_events": 32,
    "max_span_links": 9,
    "max_span_attributes": 10,
    "max_attribute_length": 1000,
    "max_span_kib": 512,
    "max_body_kib": 64,
    "max_body_depth": 30,
    "max_resource_kib": 8,
    "max_records_per_request": 10_000,
    "max_waiting_mib": 128,
    "max_streams": 20_000,
    "max_streams_per_service": 1_000,
    "max_state_mib": 512,
    "max_state_mib_per_service": 32,
    "max_stream_mib": 16,
    "max_tombstones": 1_000,
    "log_format": "json",
    "drain_timeout": 0.0,
    "listen_certificate_file": "listen.pem",
    "listen_key_file": "listen.key",
    "listen_client_ca_file": "clients.pem",
    "listen_token_file": "tokens",
    "endpoint_ca_file": "ca.pem",
    "endpoint_certificate_file": "own.pem",
    "endpoint_key_file": "own.key",
    "endpoint_token_file": "token",
    "endpoint_token_in_clear": True,
    "endpoint_authority": "collector.example",
}
"""A value for each setting that is not its default."""
LISTEN_PAIR = {"listen_certificate_file": "listen.pem", "listen_key_file": "listen.key"}
ENDPOINT_PAIR = {"endpoint_certificate_file": "own.pem", "endpoint_key_file": "own.key"}
HTTPS = {"endpoint": "https://collector:4319"}
NEEDED: dict[str, dict[str, str]] = {
    "listen_certificate_file": LISTEN_PAIR,
    "listen_key_file": LISTEN_PAIR,
    "listen_client_ca_file": LISTEN_PAIR,
    "endpoint_ca_file": HTTPS,
    "endpoint_certificate_file": HTTPS | ENDPOINT_PAIR,
    "endpoint_key_file": HTTPS | ENDPOINT_PAIR,
    "keep_ratio": {"export": "closed"},
    "keep_slow_turns": {"export": "closed"},
    "endpoint_token_in_clear": {"endpoint_token_file": "token"},
}
"""What else has to be set for a setting to mean anything."""


def settings(*arguments: str, environment: dict[str, str] | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings_from(parser.parse_args(arguments), environment or {})


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def test_without_flags_and_environment_the_defaults_hold() -> None:
    assert settings() == Settings()


@pytest.mark.parametrize(
    ("arguments", "environment", "seconds"),
    [
        ((), {"OTEL_METRIC_EXPORT_INTERVAL": "2500"}, 2.5),
        ((), {"OTEL_METRIC_EXPORT_INTERVAL": ""}, 15),
        ((), {"OTEL_METRIC_EXPORT_INTERVAL": "2500", "REALTIME_OTEL_TELEMETRY_INTERVAL": "7"}, 7),
        (("--telemetry-interval", "9"), {"OTEL_METRIC_EXPORT_INTERVAL": "2500"}, 9),
        ((), {"OTEL_SDK_DISABLED": "true", "OTEL_METRIC_EXPORT_INTERVAL": "2500"}, 0),
        ((), {"OTEL_SDK_DISABLED": " True "}, 0),
        ((), {"OTEL_SDK_DISABLED": "1"}, 15),
    ],
)
def test_opentelemetrys_own_variables_hold_where_ours_are_not_given(
    arguments: tuple[str, ...], environment: dict[str, str], seconds: float
) -> None:
    assert settings(*arguments, environment=environment).telemetry_interval == seconds


@pytest.mark.parametrize("value", ["often", "-1", "nan"])
def test_an_interval_of_opentelemetrys_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"OTEL_METRIC_EXPORT_INTERVAL|telemetry_interval"):
        settings(environment={"OTEL_METRIC_EXPORT_INTERVAL": value})


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_a_flag_and_an_environment_variable_and_the_flag_wins(name: str) -> None:
    value = OTHER_VALUES[name]
    arguments = [flag(name), str(value)]
    if isinstance(value, bool):
        arguments = [flag(name) if value else flag("no_" + name)]
    variable = f"REALTIME_OTEL_{name.upper()}"
    others = {f"REALTIME_OTEL_{other.upper()}": needed for other, needed in NEEDED.get(name, {}).items()}
    assert getattr(settings(*arguments, environment=others | {variable: ""}), name) == value
    assert getattr(settings(environment=others | {variable: str(value)}), name) == value
    default = str(getattr(Settings(), name))
    assert getattr(settings(*arguments, environment=others | {variable: default}), name) == value
    assert value != getattr(Settings(), name)


def test_a_switch_can_be_turned_off_by_its_flag() -> None:
    assert settings("--no-tool-logs", environment={"REALTIME_OTEL_TOOL_LOGS": "true"}).tool_logs is False


def test_an_empty_environment_variable_is_none() -> None:
    assert settings(environment={"REALTIME_OTEL_SETTLE": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settle", "soon"),
        ("settle", "0"),
        ("settle", "nan"),
        ("settle", "inf"),
        ("settle", "-1"),
        ("transcript_wait", "1"),
        ("transcript_wait", "1e300"),
        ("gap_wait", "0"),
        ("resume_wait", "0"),
        ("resume_wait", "a minute"),
        ("export", "sometimes"),
        ("held_mib", "0"),
        ("keep_ratio", "1.1"),
        ("keep_ratio", "0.5"),
        ("keep_ratio", "nan"),
        ("keep_slow_turns", "-1"),
        ("keep_slow_turns", "2"),
        ("max_silence", "0"),
        ("tombstone_age", "-0.1"),
        ("journal_age", "0"),
        ("outbox_age", "-1"),
        ("outbox_age", "inf"),
        ("outbox_mib", "0"),
        ("disk_reserve_mib", "-1"),
        ("disk_reserve_mib", "1e3"),
        ("dead_letter_age", "nan"),
        ("dead_letters_mib", "0"),
        ("dead_letters_mib", "2000000"),
        ("drain_timeout", "-1"),
        ("drain_timeout", "nan"),
        ("max_message_mib", "0"),
        ("max_message_mib", "1.5"),
        ("max_message_mib", str(LARGEST_MESSAGE_MIB + 1)),
        ("max_records_per_request", "0"),
        ("max_records_per_request", "10000001"),
        ("max_waiting_mib", "0"),
        ("max_waiting_mib", "65537"),
        ("max_streams", "0"),
        ("max_streams", "1000001"),
        ("max_streams_per_service", "-1"),
        ("max_streams_per_service", "many"),
        ("max_state_mib", "0"),
        ("max_state_mib", "65537"),
        ("max_state_mib_per_service", "0"),
        ("max_stream_mib", "0"),
        ("max_stream_mib", "513"),
        ("max_tombstones", "0"),
        ("max_tombstones", "10000001"),
        ("tool_logs", "perhaps"),
        ("content", "some"),
        ("data_dir", " "),
        ("listen", "4317"),
        ("listen", ":4317"),
        ("listen", "localhost:http"),
        ("listen", "localhost:70000"),
        ("endpoint", "collector"),
        ("endpoint", "http://collector"),
        ("endpoint", "grpc://collector:4319"),
        ("endpoint", "http://collector:4319/v1/traces"),
        ("endpoint", "http://user@collector:4319"),
        ("endpoint", "http://collector:port"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_and_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"(?i){name}") as refusal:
        settings(environment={f"REALTIME_OTEL_{name.upper()}": value})
    assert len(str(refusal.value)) < 150


@pytest.mark.parametrize(
    ("name", "value"),
    [("listen", "[::1]:0"), ("endpoint", "collector:4319"), ("endpoint", "http://[::1]:4319/"), ("drain_timeout", "0")],
)
def test_a_value_at_the_edge_is_taken(name: str, value: str) -> None:
    assert str(getattr(settings(environment={f"REALTIME_OTEL_{name.upper()}": value}), name)).startswith(value)


SMALL_PARTS: dict[str, Any] = {"max_open_spans": 8, "max_spans": 10**6, "max_streams": 10**6}


@pytest.mark.parametrize("name", COUNTS)
def test_a_limit_is_neither_none_nor_endless(name: str) -> None:
    least, most = COUNTS[name]
    for value in (least - 1, most + 1, -1):
        with pytest.raises(SettingsError, match=f"{name} is {value}; it must be {least} to {most}"):
            Settings(**{name: value})  # type: ignore[arg-type]
    for value in (least, most):
        Settings(**SMALL_PARTS | {"max_streams_per_service": 1} | {name: value})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"listen_certificate_file": "a"}, "listen_certificate_file is given without listen_key_file"),
        ({"listen_key_file": "a"}, "listen_key_file is given without listen_certificate_file"),
        ({"listen_client_ca_file": "a"}, "listen_client_ca_file is given without listen_certificate_file"),
        (HTTPS | {"endpoint_certificate_file": "a"}, "endpoint_certificate_file is given without endpoint_key_file"),
        (HTTPS | {"endpoint_key_file": "a"}, "endpoint_key_file is given without endpoint_certificate_file"),
        ({"endpoint_token_in_clear": True}, "endpoint_token_in_clear is given without endpoint_token_file"),
        ({"endpoint_ca_file": "a"}, "endpoint_ca_file is given, but endpoint is 'http://127.0.0.1:4319'"),
        (ENDPOINT_PAIR, "endpoint_certificate_file is given, but endpoint is 'http://127.0.0.1:4319'"),
        ({"endpoint_token_file": "a", "endpoint": "collector:4319"}, "the network could read the token; use https://"),
        ({"endpoint_token_file": "a", "endpoint": "http://127.example:1"}, "allow it with endpoint_token_in_clear"),
    ],
)
def test_a_setting_that_would_protect_less_than_it_seems_to_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings(**values)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("part", "whole"),
    PARTS,
)
def test_a_part_that_may_be_more_than_the_whole_is_refused(part: str, whole: str) -> None:
    most = {"max_state_mib": 1024, "max_streams": 10_000, "max_state_mib_per_service": 300, "max_waiting_mib": 300}
    Settings(**most | {part: 200, whole: 200})  # type: ignore[arg-type]
    with pytest.raises(SettingsError) as refusal:
        Settings(**most | {part: 201, whole: 200})  # type: ignore[arg-type]
    assert str(refusal.value) == f"{part} (201) is more than {whole} (200)"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"endpoint": "http://localhost:4319"},
        {"endpoint": "http://[::1]:4319"},
        {"endpoint": "127.0.0.2:4319"},
        {"endpoint": "http://collector:4319", "endpoint_token_in_clear": True},
        {"endpoint": "HTTPS://collector:4319"},
    ],
)
def test_a_token_may_go_where_the_network_cannot_read_it_or_where_that_is_allowed(values: dict[str, Any]) -> None:
    Settings(**values, endpoint_token_file="token")


def test_each_setting_is_read_somewhere_beside_its_own_validation() -> None:
    read: set[str] = set()
    for source in SOURCES.rglob("*.py"):
        tree = ast.parse(source.read_text())
        parts: list[ast.AST] = [tree]
        holders = ["settings", "self._settings"]
        if source == SOURCES / "config.py":
            (its_class,) = (node for node in tree.body if getattr(node, "name", "") == "Settings")
            assert isinstance(its_class, ast.ClassDef)
            parts = [
                node
                for node in its_class.body
                if getattr(node, "name", "") in ("path", "rules", "record_limits", "tenant_keys")
            ]
            holders = ["self"]
        attributes = (node for part in parts for node in ast.walk(part) if isinstance(node, ast.Attribute))
        read |= {node.attr for node in attributes if ast.unparse(node.value) in holders}
    assert set(NAMES) - read == set()


def test_each_setting_changes_what_the_core_is_told() -> None:
    rules, others = Settings().rules, Settings(**OTHER_VALUES).rules
    assert others.waits.settle == 1_500_000_000
    assert others.waits.transcript == 20_000_000_000
    assert others.gap_wait == 30_000_000_000
    assert others.resume_wait == 45_000_000_000
    assert (rules.tool_logs, others.tool_logs) == (False, True)
    assert (rules.content, others.content) == (True, False)


def test_the_page_about_security_names_where_secrets_are_and_no_setting_that_there_is_not() -> None:
    named = set(re.findall(r"`((?:listen|endpoint)_[a-z_]+)`", (DOCS / "security.md").read_text()))
    assert named <= set(NAMES)
    assert {name for name in NAMES if name.endswith(("key_file", "token_file"))} <= named


def test_the_documentation_lists_exactly_the_settings_that_there_are() -> None:
    rows = [line.split("|")[1:-1] for line in OPERATIONS.read_text().splitlines() if line.startswith("| `--")]
    documented = [tuple(cell.strip() for cell in row) for row in rows]
    existing = [
        (f"`{flag(each.name)}`", f"`{environment_name(each)}`", f"`{shown_default(each)}`", each.metadata["help"])
        for each in fields(Settings)
    ]
    assert documented == existing
