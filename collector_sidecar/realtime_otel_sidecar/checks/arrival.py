"""Where the probe has come to: its trace in Jaeger, or its spans in the sidecar's data directory."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus

from ..config import Settings, endpoint_url, is_loopback
from ..explain.account import Account, Stage, account_of
from ..store.folder import StoreError
from ..store.reading import Directory, Reader
from .probe import SPANS, Probe
from .steps import CALL_SECONDS, State, Step

LOOK_SECONDS = 0.2
NO_FOLDER = "With --data-dir, or where the sidecar runs, this command says how far it came."
TO_SIDECAR = (
    "The collector has it, and the sidecar has not: look at the collector's pipeline to the sidecar (logs/sidecar): is "
    "there one, does its filter let records with openai.realtime.stream.id through, has its exporter the sidecar's "
    "address, what does the collector's log say of it? Of a sharded set, another sidecar may have it."
)
BY_RULE = (
    "With export=closed and a keep_ratio of 0, only conversations with an error, an interruption or a slow turn go "
    "out. As far as the sidecar, the chain is whole."
)
TO_BACKEND = (
    "The collector has acknowledged its spans, and Jaeger has them not: look at the exporter of the pipeline that "
    "begins with otlp/stitched, and at what the collector's log says of its queue."
)


def await_trace(probe: Probe, jaeger: str, settings: Settings, timeout: float) -> Step:
    """Look for the probe's spans in Jaeger, for so many seconds."""
    trace_id = probe.stream.trace_id.hex()
    name, began = f"trace {trace_id} in Jaeger", time.monotonic()
    while True:
        found = spans_in_jaeger(jaeger, trace_id)
        if isinstance(found, str):
            return Step(name, State.FAILED, found, "Is --jaeger the address of Jaeger's pages (port 16686)?")
        if found >= SPANS:
            return Step(name, State.OK, f"is there after {time.monotonic() - began:.1f} s: {_page(jaeger, trace_id)}")
        if _is_dropped(probe, settings):
            return Step(name, State.NOTE, Stage.DROPPED, BY_RULE)
        if time.monotonic() - began > timeout:
            break
        time.sleep(LOOK_SECONDS)
    said, told = _where(probe, settings)
    return Step(name, State.FAILED, f"{found} of {SPANS} spans came within {timeout:.0f} s; {said}", told)


def await_acknowledgement(probe: Probe, settings: Settings, timeout: float) -> Step:
    """Look for the probe in the data directory, until the collector has acknowledged its spans."""
    name, began = f"spans of {probe.stream.id}", time.monotonic()
    while True:
        try:
            account, _ = _account(probe, settings)
        except StoreError as error:
            return Step(name, State.FAILED, str(error), "See data_dir.")
        delivered = sum(fate.stage is Stage.DELIVERED for fate in account.spans.values())
        if delivered >= SPANS:
            took = time.monotonic() - began
            return Step(
                name, State.OK, f"the collector has acknowledged them after {took:.1f} s; what then, --jaeger says"
            )
        if any(fate.stage is Stage.DROPPED for fate in account.spans.values()):
            return Step(name, State.NOTE, Stage.DROPPED, BY_RULE)
        if time.monotonic() - began > timeout:
            break
        time.sleep(LOOK_SECONDS)
    said, told = _where(probe, settings)
    return Step(name, State.FAILED, f"not acknowledged within {timeout:.0f} s: {said}", told)


def spans_in_jaeger(jaeger: str, trace_id: str) -> int | str:
    """How many spans Jaeger has of a trace, or why it cannot be asked."""
    url = f"{jaeger.rstrip('/')}/api/traces/{trace_id}"
    if not url.startswith(("http://", "https://")):
        return f"{jaeger} is no address of pages"
    # What is meant for this machine goes through no proxy, whatever the environment says.
    proxies: dict[str, str] | None = {} if is_loopback(endpoint_url(jaeger).hostname or "") else None
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler(proxies)).open(
            url, timeout=CALL_SECONDS
        ) as answer:
            traces = json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        return 0 if error.code == HTTPStatus.NOT_FOUND else f"it answers {error.code} {error.reason}"
    except OSError as error:
        return f"it does not answer: {getattr(error, 'reason', error)}"
    except (ValueError, KeyError, TypeError):
        return "it answers with something that is no trace"
    return sum(len(trace["spans"]) for trace in traces)


def _page(jaeger: str, trace_id: str) -> str:
    return f"{jaeger.rstrip('/')}/trace/{trace_id}"


def _is_dropped(probe: Probe, settings: Settings) -> bool:
    """Whether the sidecar has dropped the probe, as it should."""
    try:
        return any(fate.stage is Stage.DROPPED for fate in _account(probe, settings)[0].spans.values())
    except StoreError:
        return False


def _where(probe: Probe, settings: Settings) -> tuple[str, str]:
    """How far the probe has come, as the data directory has it, and what to do."""
    try:
        account, directory = _account(probe, settings)
    except StoreError:
        return "how far it came is not known", NO_FOLDER
    stages = {fate.stage for fate in account.spans.values()}
    if Stage.OUTBOX in stages:
        why = directory.problem or "it has not been sent yet"
        return f"it waits in the sidecar's outbox: {why}", "See the collector's receiver otlp/stitched, and its log."
    if stages & {Stage.REFUSED, Stage.EXPIRED}:
        return "the collector has refused its spans", f"realtime-otel explain {probe.stream.id} says why."
    if Stage.DELIVERED in stages:
        return "the collector has acknowledged its spans", TO_BACKEND
    if account.open is not None:
        return "the sidecar has a part of it", f"realtime-otel explain {probe.stream.id} says what it waits for."
    return "the sidecar has nothing of it", TO_SIDECAR


def _account(probe: Probe, settings: Settings) -> tuple[Account, Directory]:
    with Reader(settings.path) as reader:
        return account_of(reader, probe.stream.key, probe.stream.id, settings), reader.directory()
