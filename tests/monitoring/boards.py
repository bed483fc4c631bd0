"""The committed dashboards, as Grafana would ask them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.stack.processes import ROOT

FOLDER: Final = ROOT / "deploy" / "grafana" / "provisioning" / "dashboards"
FILES: Final = sorted(FOLDER.glob("*.json"))
VALUES: Final = {
    "$service": ".*",
    "$environment": ".*",
    "$model": ".*",
    "$tool": ".*",
    "$sidecar": ".*",
    "$__rate_interval": "1m",
    "$__range": "5m",
}
"""What stands in for the variables: "All", and a window that a short test fills."""
ONLY_AFTER_A_FAILURE: Final = {"Alerts that fire", "What the Collector has dropped", "service_evicted_total"}
"""Panels, or metrics, that are empty as long as all is well; the test of these failures looks at them."""

NOT_IN_THE_DEMO: Final = {
    "_to_playback_": "only WebRTC and SIP say when audio is played; the demo's agents have a WebSocket",
    "sessions_moved_total": "a conversation moves between several sidecars; Compose has one",
    "service_evicted_total": "a sidecar without room for another conversation",
    "dead_letter_written_total": "an emitter that breaks the contract, or a hop that holds records back",
    "records_rejected_total": "a hop that holds records back until their conversation has ended",
    "otelcol_failed_items": "a backend that refuses spans for good",
}
"""Parts of queries that have no answer in the demo, and what they would need."""


class Asked(NamedTuple):
    """A query of a panel."""

    board: str
    panel: str
    expression: str
    """With values in the place of variables."""
    exemplars: bool

    @property
    def needs_failure(self) -> bool:
        return any(name == self.panel or name in self.expression for name in ONLY_AFTER_A_FAILURE)

    @property
    def in_the_demo(self) -> bool:
        """Whether the conversations of the demo alone give it an answer."""
        return not any(name in self.expression for name in NOT_IN_THE_DEMO)

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.expression}"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that show something, out of their rows."""
    for panel in board["panels"]:
        yield from panel.get("panels", [])
        if panel["type"] != "row":
            yield panel


def targets(board: dict[str, Any], source: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Panel and query of each query to a data source."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            if target["datasource"]["uid"] == source:
                yield panel, target


def asked() -> Iterator[Asked]:
    """Each query of each panel to Prometheus."""
    for path in FILES:
        board = load(path)
        for panel, target in targets(board, "prometheus"):
            yield Asked(path.stem, panel["title"], filled(target["expr"]), bool(target.get("exemplar")))


def variables(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and query of each variable whose values Prometheus knows."""
    for variable in board.get("templating", {}).get("list", []):
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def filled(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    return expression
