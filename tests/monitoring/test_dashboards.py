"""The committed dashboards are what their code makes, and lead where they say."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from deploy.grafana.source.__main__ import DASHBOARDS, FOLDER, rendered
from docs.generate.telemetry import prometheus_name
from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, Instrument, Kind
from realtime_otel_sidecar.telemetry import instruments as telemetry
from tests.monitoring import boards
from tests.stack.processes import ROOT

SOURCES: Final = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
EACH = pytest.mark.parametrize("path", boards.FILES, ids=lambda path: path.stem)
SHOWN: Final = " ".join(query.expression for query in boards.asked())
UNITS: Final = {"s": "_seconds", "1": "_ratio"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_file_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == rendered(name), "run: make dashboards"


def test_every_file_is_made_by_the_code() -> None:
    assert {path.name for path in boards.FILES} == set(DASHBOARDS)


@EACH
def test_data_sources_are_those_that_are_provisioned(path: Any) -> None:
    provisioned = {
        source["uid"] for file in SOURCES.glob("*.yaml") for source in yaml.safe_load(file.read_text())["datasources"]
    }
    asked = set(re.findall(r'"uid": "([a-z]+)"\n *\}', path.read_text("utf-8")))
    assert asked
    assert asked <= provisioned


@EACH
def test_panels_have_a_title_a_place_of_their_own_and_say_what_they_show(path: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in boards.panels(boards.load(path)):
        at = panel["gridPos"]
        place = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert panel["title"]
        assert panel.get("description") or path.stem == "conversation", panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not place & taken, panel["title"]
        taken |= place


@EACH
def test_links_lead_to_dashboards_and_searches_that_there_are(path: Any) -> None:
    uids = {boards.load(file)["uid"] for file in boards.FILES}
    for url in re.findall(r'"url": "([^"]+)"', path.read_text("utf-8")):
        parts = urlsplit(url)
        if parts.path.startswith("/d/"):
            assert parts.path.split("/")[2] in uids
        elif parts.path == "/explore":
            (pane,) = json.loads(parse_qs(parts.query)["panes"][0]).values()
            assert pane["queries"][0]["service"].startswith("${")
        else:
            assert url.startswith("http://localhost:16686")


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_every_instrument_is_on_some_panel(instrument: Instrument) -> None:
    """What a conversation is measured by."""
    name = instrument.name.replace(".", "_")
    unit = UNITS.get(instrument.unit, "")
    name += unit if not name.endswith(unit) else ""
    name += {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_", Kind.GAUGE: "{"}[instrument.kind]
    assert name in SHOWN, "add it to deploy/grafana/source"


@pytest.mark.parametrize("instrument", telemetry.INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_every_instrument_of_the_sidecar_is_on_some_panel(instrument: telemetry.Instrument) -> None:
    assert prometheus_name(instrument).rstrip("*") in SHOWN, "add it to deploy/grafana/source"
