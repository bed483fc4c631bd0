"""How soon each panel has something to show: `python -m tests.monitoring.arrival http://localhost:9090`.

Asks a running Prometheus each query of each panel until it has an answer, and says when each panel had its first and
its last, counted from the start of this program: so start it together with what is to be watched. Left out are the
queries that the demo has no answer for (`boards.NOT_IN_THE_DEMO`).
"""

from __future__ import annotations

import argparse
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request

from tests.monitoring import boards


def answered(url: str, expression: str) -> bool:
    """Whether Prometheus gives a number. While it does not answer at all, it does not."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as response:  # noqa: S310 - the user's
            found = json.load(response)["data"]["result"]
    except OSError:
        return False
    return any(math.isfinite(float(series["value"][1])) for series in found)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("url", help="of Prometheus")
    arguments.add_argument("--seconds", type=float, default=120.0, help="how long to ask")
    given = arguments.parse_args()
    began = time.monotonic()
    waiting = {query for query in boards.asked() if query.in_the_demo}
    times: dict[tuple[str, str], list[float]] = {(query.board, query.panel): [] for query in waiting}
    while waiting and time.monotonic() - began < given.seconds:
        for query in sorted(waiting):
            if answered(given.url, query.expression):
                waiting.discard(query)
                times[query.board, query.panel].append(time.monotonic() - began)
        time.sleep(0.5)
    print(f"{'first':>8}{'last':>8}")
    for (board, panel), seconds in sorted(times.items(), key=lambda item: item[1] or [math.inf]):
        if seconds:
            print(f"{seconds[0]:6.1f} s{seconds[-1]:6.1f} s  {board}: {panel}")
    for query in sorted(waiting):
        print(f"  no answer  {query}")
    return bool(waiting)


if __name__ == "__main__":
    raise SystemExit(main())
