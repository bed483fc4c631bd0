"""One HTML file with all that it needs: it loads nothing, and may do nothing that was not written here.

Conversations are a stranger's words. They stand in the file as JSON in which nothing can end the element around it, and
the page puts them in as text. Scripts and styles run only if their hash is in the policy (Content Security Policy
Level 3), so that nothing else would run even if something slipped through.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "static"
SCRIPTS: Final = ("dom.js", "words.js", "list.js", "head.js", "timeline.js", "tree.js", "details.js", "app.js")
"""In the order in which they stand in the page, inside one function."""
ESCAPES: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}
"""What could end a script element, or a line of JavaScript."""


def document(conversations: Sequence[dict[str, Any]], *, live: bool = False, endpoint: str = "") -> str:
    """The page with these conversations in it (`view.view`).

    ``live``: it asks the server it came from for them; while there are none, it says that agents send to ``endpoint``.
    """
    data = escaped({"live": live, "endpoint": endpoint, "conversations": list(conversations)})
    title = "Conversations" if live or len(conversations) != 1 else f"Conversation {conversations[0]['trace']}"
    parts = {
        "policy": policy(live=live),
        "title": title,  # a hexadecimal id
        "style": _style(),
        "data": data,
        "script": _script(),
    }
    page = (FOLDER / "page.html").read_text("utf-8")
    pieces = page.split("%%")  # text, name of a part, text, …: what is put in is not looked at again
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def policy(*, live: bool) -> str:
    """The Content-Security-Policy: this page's own script and style; ``live``: and data of its own server."""
    allowed = [
        "default-src 'none'",
        f"script-src '{_hash(_script())}'",
        f"style-src '{_hash(_style())}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*allowed, "connect-src 'self'"] if live else allowed)


def escaped(data: Any) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(ESCAPES)


@cache
def _script() -> str:
    files = "\n".join((FOLDER / name).read_text("utf-8") for name in SCRIPTS)
    return f'\n"use strict";\n(() => {{\n{files}}})();\n'


@cache
def _style() -> str:
    return "\n" + (FOLDER / "page.css").read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
