"""The rules that the project ships for Prometheus."""

from __future__ import annotations

from typing import Any, Final

import yaml

from tests.monitoring.chain import RULES

GROUPS: Final[list[dict[str, Any]]] = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
EXPRESSIONS: Final = [rule["expr"] for group in GROUPS for rule in group["rules"]]
RECORDED: Final = [rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule]
ALERTS: Final = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}

ONLY_WITH_KAFKA: Final = {"topic:kafka_messages_unread:sum"}
"""What has no series where Kafka is not in front of the sidecars; the test of its alert looks at it."""
ONLY_AFTER_A_FAILURE: Final = {"exporter:otelcol_failed_items:sum"}
"""What has no series as long as all is well; the test of its failure looks at it."""
