"""Whether the chain is whole, from an agent to the backend: each hop by itself, then a conversation over all of them.

`probe` makes the conversation, `hops` are the connections, `arrival` looks for its trace, `tools` at what was stored.
Each gives a `Step` that says what was found and, if that is not well, what to do.
"""

from typing import Final

SERVICE: Final = "realtime-otel-check"
"""``service.name`` of probes: by it, dashboards and people leave them out."""
