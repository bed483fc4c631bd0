"""Write the rules of deploy/prometheus as a resource of prometheus-operator: `make dashboards`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

TARGET: Final = Path(__file__).with_name("rules.yaml")
RULES: Final = Path(__file__).resolve().parents[2] / "prometheus" / "rules"
HEAD: Final = (
    "# Made from deploy/prometheus/rules, which say what each rule is for: change those, then run `make dashboards`.\n"
)
WIDTH: Final = 130


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines stay such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def resource(path: Path) -> dict[str, Any]:
    """That of a file. Names of groups are unique in a resource, and two files have groups of the same name."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"realtime-otel-{path.stem}"},
        "spec": yaml.safe_load(path.read_text("utf-8")),
    }


def rendered() -> str:
    """The text of the file."""
    resources = [resource(path) for path in sorted(RULES.glob("*.yaml"))]
    text = yaml.dump_all(resources, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return f"{HEAD}{text}"


def main() -> None:
    TARGET.write_text(rendered(), "utf-8")


if __name__ == "__main__":
    main()
