"""The rules: promtool accepts them, each alert is tested for both, and has its heading in the runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.contract.test_docs import anchors
from tests.monitoring.chain import CONFIG, RULES
from tests.monitoring.rules import ALERTS
from tests.stack.build import ensure_promtool
from tests.stack.processes import ROOT

pytestmark = pytest.mark.stack

CASES: Final = Path(__file__).with_name("alerts_test.yaml")
RUNBOOK: Final = ROOT / "docs" / "runbook.md"
EACH_ALERT = pytest.mark.parametrize("alert", ALERTS)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ensure_promtool(), *arguments], capture_output=True, text=True, check=False)


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stderr


def test_promtool_accepts_the_configuration_with_the_rules_beside_it(tmp_path: Path) -> None:
    text = CONFIG.read_text()
    assert "/etc/prometheus/rules/*.yaml" in text
    path = tmp_path / "prometheus.yaml"
    path.write_text(text.replace("/etc/prometheus/rules", str(RULES[0].parent)))
    done = promtool("check", "config", path)
    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rule files found" in done.stdout


def test_each_alert_fires_where_it_should_and_nowhere_else() -> None:
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@EACH_ALERT
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    cases: list[dict[str, Any]] = yaml.safe_load(CASES.read_text())["tests"]
    mine = [case for case in cases if case["name"].startswith(f"{alert} ")]
    outcomes = [bool(test["exp_samples"]) for case in mine for test in case["promql_expr_test"]]
    assert {True, False} == set(outcomes)


@EACH_ALERT
def test_each_alert_says_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbook }}}}#{alert.lower()}"


def test_the_headings_of_the_runbook_are_the_alerts() -> None:
    text = RUNBOOK.read_text("utf-8")
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(ALERTS)
    assert {alert.lower() for alert in ALERTS} <= set(anchors(text))


@EACH_ALERT
def test_the_runbook_says_of_each_alert_the_severity_that_it_has(alert: str) -> None:
    text = RUNBOOK.read_text("utf-8")
    said = re.search(rf"^## {alert}\n\n\*(\w+)\.\*", text, re.MULTILINE)
    assert said
    assert said[1] == ALERTS[alert]["labels"]["severity"]
