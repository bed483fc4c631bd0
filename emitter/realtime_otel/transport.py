"""The worker: a thread that encodes what was noted and sends it, for all streams of a process and destination.

It works in small bursts and sleeps between them. A thread that computes gives the interpreter up only every few
milliseconds; one that sleeps leaves it to the event loop at once.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry import context as otel_context

from realtime_otel import environment
from realtime_otel.contract import Fact
from realtime_otel.entries import Entry, FactEntry, Group, Marker, Queued, Source
from realtime_otel.guard import failed, guarded, logger, nothing, warn_at_times, warn_once
from realtime_otel.otlp import Answer, Client, LogsClient, Outcome
from realtime_otel.queue import MAX_QUEUE_BYTES, Backlog, Batch, Intake
from realtime_otel.records import framed_request

MAX_REQUEST_BYTES: Final = 1024 * 1024
HEARTBEAT_SECONDS: Final = 15
EXIT_SECONDS: Final = 2.0

_LINGER_SECONDS: Final = 0.5
_BURST: Final = 256
_BURST_SECONDS: Final = 0.0003
_BREATH_SECONDS: Final = 0.0005
_FRAMES_BYTES: Final = 64
_RETRY_SECONDS: Final = (0.1, 5.0)
_CLOSING_SECONDS: Final = 0.2
_SUPPRESS_KEY = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


@dataclass(frozen=True, slots=True)
class _Request:
    data: bytes
    entries: list[Queued]


def _no_client() -> Client | None:
    return None


class Worker:
    """Serves all streams of one destination, from one daemon thread that starts with the first of them."""

    def __init__(self, connect: Callable[[], Client] | None = None, *, max_bytes: int = MAX_QUEUE_BYTES) -> None:
        self.intake = Intake(max_bytes // 4)
        self._backlog = Backlog(max_bytes - max_bytes // 4)
        self._connect = connect or LogsClient
        self._client: Client | None = None
        self._open: dict[Source, Callable[[], None]] = {}
        self._request: _Request | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._ends_at: float | None = None
        # No event: its lock is not reentrant, and whoever wakes may be a signal handler or a finalizer that has
        # interrupted a thread which is waking, or the worker itself.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()

    # --- The conversation's side ---------------------------------------------------------------------------------

    def open(self, source: Source, close: Callable[[], None]) -> None:
        """Serve a stream from now on; `close` states its end, if nobody else has when the interpreter exits."""
        self._open[source] = close
        with self._starting:
            if not self._has_thread():
                self._start()
        self._wake.put(None)

    def close(self, source: Source, last: Entry) -> None:
        """Put a stream's last entry, and send without delay."""
        self.intake.close(last)
        self._open.pop(source, None)
        self._wake.put(None)

    def flush(self, timeout: float) -> bool:
        """Wait, at most so many seconds, until everything noted so far has been sent; whether it has."""
        if self._stopped or self._thread is None:
            return False
        marker = Marker()
        self.intake.mark(marker)
        self._wake.put(None)
        if not marker.passed.wait(timeout):
            marker.give_up()
            return False
        return True

    def hurry(self, deadline: float) -> None:
        """Close all streams, and send what is there without any delay, until the deadline (of `time.monotonic`)."""
        for close in list(self._open.values()):
            close()
        self._ends_at = deadline - _CLOSING_SECONDS
        self._wake.put(None)

    def stop(self, deadline: float) -> None:
        """Close all streams, send what is there, and end by the deadline (of `time.monotonic`), sent or not."""
        self.hurry(deadline)
        if not self.flush(max(0.0, deadline - _CLOSING_SECONDS - time.monotonic())):
            logger.warning("realtime-otel: the collector did not take all records before the process ended")
        self._stopped = True
        self._wake.put(None)
        if self._client is not None:
            # Ends a request that waits for an answer: a thread inside gRPC must not be there when the interpreter goes.
            self._client.shutdown()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """In a forked process: the streams are the parent's, and so is the thread."""
        self._stopped = True
        for source in self._open:
            source.closed = True

    def _has_thread(self) -> bool:
        # A thread that has not begun yet is one: a signal handler that opens a stream may interrupt its start.
        thread = self._thread
        return thread is not None and (thread.ident is None or thread.is_alive())

    def _start(self) -> None:
        # An empty context: what is current where the first stream opens must not be current here for good.
        run = contextvars.Context().run
        thread = threading.Thread(target=run, args=(self._run,), name="realtime-otel", daemon=True)
        self._thread = thread
        try:
            thread.start()
        finally:
            # It could not start, or something (an interrupt) was raised here while it does: then it ends by itself.
            if thread.ident is None:
                self._thread = None

    # --- The thread's side ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        # Instrumentation of gRPC must not make spans of the exporter's own calls.
        otel_context.attach(otel_context.set_value(_SUPPRESS_KEY, True))
        while not self._stopped and self._thread is threading.current_thread():
            self._wait()
            self._work()

    def _wait(self) -> None:
        try:
            self._wake.get(timeout=self._pause())
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            return

    def _pause(self) -> float | None:
        busy = self._open or self._request or len(self.intake) or len(self._backlog)
        if self._ends_at is not None:
            return _RETRY_SECONDS[0]
        return _LINGER_SECONDS if busy else None

    @guarded(nothing)
    def _work(self) -> None:
        self._encode()
        self._beat()
        again = time.monotonic() + _LINGER_SECONDS
        while not self._stopped and self._send():
            time.sleep(_BREATH_SECONDS)
            # Not after each request: a few events at a time cost nearly what many do. But while a slow collector takes
            # its time, what is noted must not fill the smaller queue.
            if time.monotonic() > again:
                self._encode()
                again = time.monotonic() + _LINGER_SECONDS

    def _beat(self) -> None:
        for source in list(self._open):
            if source.now() - source.time >= HEARTBEAT_SECONDS * 1_000_000_000:
                self.intake.put(FactEntry(source, Fact.HEARTBEAT, {}))

    def _encode(self) -> None:
        """Encode what was noted until now."""
        batch, until = Batch(), time.monotonic() + _BURST_SECONDS
        self.intake.unweighed = 0
        for left in range(len(self.intake), 0, -_BURST):
            self.intake.take(min(left, _BURST), batch)
            until = _breathe(until)
        for entry in batch.entries:
            if _is_encoded(entry):
                self._overflow(self._backlog.add(entry))
            else:
                self.intake.drop(entry)
            until = _breathe(until)

    def _overflow(self, dropped: list[Queued]) -> None:
        for gone in dropped:
            if isinstance(gone, Entry) and gone.ends:
                # What goes last has to go, so nothing is left of this stream, nor room for a statement about it.
                self.intake.forget(gone.source)
                warn_at_times("forgotten", "realtime-otel: too many streams wait for the collector; forgetting some")
            else:
                self.intake.drop(gone)
        if dropped:
            warn_at_times("overflow", "realtime-otel: the queue is full; dropping records, deltas first")

    def _send(self) -> bool:
        """Send one request, if there is one and its time has come; whether another may follow at once."""
        if self._request is None:
            self._request = self._next_request()
        # In the last seconds of a process nothing is waited for: the collector may be back since the last attempt.
        if self._request is None or (self._ends_at is None and time.monotonic() < self._retry_at):
            return False
        if not self._request.data:
            self._passed(self._request)
            return True
        # An error from here on, a bad certificate for one, is tried again, but not at once.
        self._retry_at = time.monotonic() + self._backoff()
        client = self._connected()
        if client is None:
            return False
        timeout = None if self._ends_at is None else max(0.05, self._ends_at - time.monotonic())
        answer = client.send(self._request.data, timeout=timeout)
        return self._settle(self._request, answer, client.where)

    @guarded(_no_client, "connecting as the OTEL_EXPORTER_OTLP_* variables say")
    def _connected(self) -> Client | None:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _settle(self, request: _Request, answer: Answer, where: str) -> bool:
        if answer.outcome is Outcome.LATER:
            self._retry_at = time.monotonic() + (answer.delay or self._backoff())
            self._failures += 1
            if self._failures == 1:
                text = "realtime-otel: the collector at %s takes no records (%s); keeping them"
                logger.warning(text, where, answer.code)
            return False
        if answer.outcome is Outcome.REFUSED:
            text = "realtime-otel: the collector at %s refuses records (%s); dropping them"
            warn_at_times("refused", text, where, answer.code)
            for entry in request.entries:
                self.intake.drop(entry)
        self._failures = 0
        self._retry_at = 0.0
        self._passed(request)
        return True

    def _passed(self, request: _Request) -> None:
        self._request = None
        for entry in request.entries:
            if isinstance(entry, Marker):
                entry.passed.set()

    def _next_request(self) -> _Request | None:
        """The oldest records, and before them what is known to be lost."""
        self._backlog.put_first(self.intake.take_drops())
        entries: list[Queued] = []
        groups: dict[Group, list[bytes]] = {}
        size = 0
        while (entry := self._backlog.first()) is not None:
            size += len(entry.data)
            if isinstance(entry, Entry):
                group = entry.group
                size += 0 if group in groups else sum(map(len, group)) * 2 + _FRAMES_BYTES
                if entries and size > MAX_REQUEST_BYTES:
                    break
                groups.setdefault(group, []).append(entry.data)
            entries.append(self._backlog.pop())
        parts = [framed_request(of.resource, of.scope, data, schema_url=of.schema_url) for of, data in groups.items()]
        return _Request(b"".join(parts), entries) if entries else None

    def _backoff(self) -> float:
        """Seconds until the next attempt: longer from failure to failure, but not in the last seconds of a process."""
        first, longest = _RETRY_SECONDS
        if self._ends_at is not None:
            return first
        return float(min(longest, first * 2 ** min(self._failures, 10)) * random.uniform(0.8, 1.2))


def _breathe(until: float) -> float:
    """Sleep for a moment if this burst has lasted until then (of `time.monotonic`); until when the next one may."""
    now = time.monotonic()
    if now < until:
        return until
    time.sleep(_BREATH_SECONDS)
    return time.monotonic() + _BURST_SECONDS


@guarded(failed)
def _is_encoded(entry: Queued) -> bool:
    return entry.encode()


# --- The process's workers ----------------------------------------------------------------------------------------

_workers: dict[tuple[str | None, ...], Worker] = {}
_is_usable = True


def is_usable() -> bool:
    """Whether this process can send. One that was forked cannot, if gRPC was in use and does not support forks."""
    return _is_usable


def worker() -> Worker:
    """The worker of the destination that the environment names now."""
    if not _workers:
        # Not before it is needed, so that it runs before what the application has registered until now.
        _at_exit(_stop_all)
    destination = environment.destination()
    # setdefault: two threads that open their first stream at once get one worker.
    return _workers.get(destination) or _workers.setdefault(destination, Worker())


def _at_exit(stop: Callable[[], None]) -> None:
    atexit.register(stop)
    # A process that multiprocessing has forked ends without what is registered with atexit. Such a process has imported
    # the module, which takes long.
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, stop, exitpriority=0)


@guarded(nothing)
def _stop_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    workers = list(_workers.values())
    # All at once first: a destination that is away must not use up the time of the others.
    for each in workers:
        each.hurry(deadline)
    for each in workers:
        each.stop(deadline)
    _workers.clear()


def _abandon_all() -> None:
    global _is_usable
    if _workers and environment.is_fork_support_off():
        # To use gRPC again would abort the process.
        _is_usable = False
        warn_once("fork", "realtime-otel: gRPC's support of forks is off; a forked process states nothing")
    for each in _workers.values():
        each.abandon()
    _workers.clear()
    environment.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
