"""``python -m docs.generate``: writes the pages beside this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import attributes, cost, metrics, protocol, states

FOLDER: Final = Path(__file__).parents[1]

PAGES: Final[dict[str, Callable[[], str]]] = {
    "protocol.md": protocol.page,
    "states.md": states.page,
    "attributes.md": attributes.page,
    "metrics.md": metrics.page,
    "cost.md": cost.page,
}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
