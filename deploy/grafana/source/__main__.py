"""Write the dashboards as JSON for Grafana: `make dashboards`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from .conversations import conversation, conversations
from .sidecar import sidecar
from .tokens import tokens
from .tools import tools

FOLDER: Final = Path(__file__).resolve().parents[1] / "provisioning" / "dashboards"
DASHBOARDS: Final[dict[str, Callable[[], Dashboard]]] = {
    "conversations.json": conversations,
    "conversation.json": conversation,
    "tools.json": tools,
    "tokens-and-cost.json": tokens,
    "sidecar.json": sidecar,
}


def rendered(name: str) -> str:
    """The text of a file. Panels are numbered in their order, so that an address of one stays."""
    made = DASHBOARDS[name]().build()
    for number, panel in enumerate(made.panels or [], 1):
        panel.id_val = number
    return JSONEncoder(indent=2, ensure_ascii=False).encode(made) + "\n"


def main() -> None:
    for name in DASHBOARDS:
        (FOLDER / name).write_text(rendered(name), "utf-8")


if __name__ == "__main__":
    main()
