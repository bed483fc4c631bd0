"""From the outbox to the collector, in the outbox's order, until each row is acknowledged.

Which answers are retried, and after how long, is OTLP's rule (OTLP specification, OTLP/gRPC Response, Failures). One
request is under way at a time: so the order needs no care, and it is fast enough (measured, on one core together with a
backend in Python: 17,000 spans of 1.1 kB a second, where 30,000 records a second settle to a few thousand).
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ..credentials import Credentials
from ..store.folder import is_corrupt
from ..store.outbox import OutboxReader
from ..store.rows import DeadLetter
from ..telemetry.latencies import TRACES, Latencies
from .connection import Connection, hint
from .refusal import MISCONFIGURED, RETRYABLE, Answer, Row, letter, pieces, probes, single_spans

logger = logging.getLogger(__name__)

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
REQUEST_BYTES = 3 * 1024 * 1024
"""A collector takes 4 MiB by default (its ``max_recv_msg_size_mib``)."""
SMALLEST_LIMIT = 1024 * 1024
"""That setting's least value: what is refused below it is not refused for its size."""
TIMEOUT_SECONDS = 30.0
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
LONGEST_SAID = 500
"""Characters of what the collector says that are stored."""
LONGEST_DELAY = 300.0
"""A RetryInfo is followed up to here."""


class Sender:
    """A thread that sends.

    ``acknowledge`` is called with the id of the newest row that is done with, what of it the collector refused, what
    the collector said of it besides, and how many spans it has dropped by that; ``report_damage`` when the database
    turns out to be damaged; ``note_problem`` when the collector begins to take no spans, with the reason, or to take
    them, with an empty text.
    """

    def __init__(
        self,
        path: Path,
        endpoint: str,
        acknowledge: Callable[[int, list[DeadLetter], str, int], None],
        report_damage: Callable[[sqlite3.Error], None],
        credentials: Credentials = Credentials(),  # noqa: B008 - it is frozen
        authority: str = "",
        note_problem: Callable[[str], None] = lambda _problem: None,
        latencies: Latencies | None = None,
    ) -> None:
        self._path = path
        self._acknowledge = acknowledge
        self._report_damage = report_damage
        self._note_problem = note_problem
        self._latencies = latencies or Latencies()
        self._connection = Connection(endpoint, METHOD, credentials, authority)
        self._endpoint = endpoint
        self._where: dict[str, Any] = {"endpoint": endpoint}
        self._last = 0
        self._limit = REQUEST_BYTES
        """Of a request, in bytes."""
        self._failing: tuple[grpc.StatusCode, str] | None = None
        """What the collector answered last, and where to look for that; None before its first answer."""
        self._wake = threading.Event()
        self._draining = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something in the outbox."""
        self._wake.set()

    def stop(self, drain_seconds: float) -> None:
        """Send what is left for at most this long, then end; what is not sent stays in the outbox."""
        self._draining.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(drain_seconds)
        self._ending.set()
        self._connection.close()  # ends a call that is under way
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with closing(OutboxReader(self._path)) as reader:
                    self._send_all(reader)
                return
            except Exception as error:  # the disk, or a defect of ours: without this thread the outbox would only grow
                about = {"event": "outbox_failed"}
                logger.exception("the outbox cannot be sent, trying again in %.0f s", LONGEST_WAIT, extra=about)
                if isinstance(error, sqlite3.Error) and is_corrupt(error):
                    self._report_damage(error)
                self._ending.wait(LONGEST_WAIT)

    def _send_all(self, reader: OutboxReader) -> None:
        """Send what there is and what comes, until `stop`: then until nothing is left, or until its time is up."""
        wait = FIRST_WAIT
        while not self._ending.is_set():
            self._wake.clear()
            is_draining = self._draining.is_set()  # before it looks: what comes between the two would be left
            rows = reader.after(self._last, max_bytes=self._limit)
            if not rows:
                if is_draining:
                    return
                self._wake.wait()
                continue
            answer = self._deliver(rows, reader)
            self._log(answer)
            if answer.taken:
                wait = FIRST_WAIT
            else:
                self._ending.wait(max(answer.delay, wait * random.uniform(0.5, 1.0)))
                wait = min(wait * 2, LONGEST_WAIT)

    def _deliver(self, rows: list[Row], reader: OutboxReader) -> Answer:
        """Send these rows. Of what is refused for good, find out what it is, and set that aside."""
        # Messages of one type, one after the other, are that message with all their members: no row is parsed.
        answer = self._send(b"".join(data for _, data in rows))
        if answer.taken:
            self._done(rows[-1][0], [], answer)
        elif answer.refused:
            # Not before the collector has taken something else: it may be refusing everything.
            if not (answer := self._probe(rows, reader.newest())).taken:
                return answer
            for row_id, data in rows:
                answer, refused = self._sort_out(data)
                if not answer.taken:
                    return answer
                self._done(row_id, refused, answer)
        return answer

    def _probe(self, rows: list[Row], newest: Row | None) -> Answer:
        """The rows were refused: whether the collector takes anything."""
        answer = Answer()
        for probe in probes(rows, newest):
            answer = self._send(probe)
            if not answer.refused:
                return answer
        return replace(answer, delay=LONGEST_WAIT)

    def _sort_out(self, row: bytes) -> tuple[Answer, list[DeadLetter]]:
        """Send a row, span by span if it must be, and say what of it is refused."""
        answer = self._send(row)
        if not answer.refused:
            return answer, []
        refused, said, rejected = [], "", 0
        for span in single_spans(row):
            answer = self._send(span)
            if answer.refused:
                refused.append(letter(span, answer.problem))
            elif not answer.taken:
                return answer, []
            said, rejected = answer.said or said, rejected + answer.rejected
        return Answer(taken=True, said=said, rejected=rejected), refused

    def _done(self, row_id: int, refused: list[DeadLetter], answer: Answer) -> None:
        if refused:
            problem = f"{len(refused)} spans for good, they are kept among the dead letters: {refused[0].reason}"
            about = {"event": "spans_refused", "count": len(refused), "reason": refused[0].reason}
            logger.error("%s has refused %s", self._endpoint, problem, extra=self._where | about)
        self._last = row_id
        self._acknowledge(row_id, refused, answer.said, answer.rejected)

    # --- One request ---------------------------------------------------------------------------------------------

    def _send(self, rows: bytes) -> Answer:
        """Send a request, in several if it is too large for one; an answer other than OK is the last one's."""
        said, rejected = "", 0
        for request in pieces(rows, self._limit):
            answer = self._send_one(request)
            if not answer.taken:
                return answer
            said, rejected = answer.said or said, rejected + answer.rejected
        return Answer(taken=True, said=said, rejected=rejected)

    def _send_one(self, request: bytes) -> Answer:
        try:
            with self._latencies.export.timed(TRACES):
                told = self._connection.call(request, TIMEOUT_SECONDS)
            answer = ExportTraceServiceResponse.FromString(told).partial_success
        except grpc.RpcError as error:
            return self._failed(cast("grpc.Call", error), len(request))  # grpcio raises an object that is both
        except ValueError:  # the channel was closed before the call, by `stop`
            return Answer()
        except DecodeError:  # an answer with OK, whatever else it says
            about = {"event": "answer_unreadable"}
            logger.warning(
                "%s answers with something that is no ExportTraceServiceResponse",
                self._endpoint,
                extra=self._where | about,
            )
            return Answer(taken=True)
        message = self._connection.hide(answer.error_message)
        if answer.rejected_spans:  # final, by OTLP's rule: never to be sent again
            count = answer.rejected_spans
            lost = self._where | {"event": "spans_rejected", "count": count, "reason": message}
            logger.error("LOST: %s rejected %d spans: %s", self._endpoint, count, message, extra=lost)
            said = f"{answer.rejected_spans} of the spans of one request were rejected: {message}"
            return Answer(taken=True, said=said[:LONGEST_SAID], rejected=answer.rejected_spans)
        if message:
            about = {"event": "spans_warned", "reason": message}
            logger.warning("%s took the spans, and warns: %s", self._endpoint, message, extra=self._where | about)
        return Answer(taken=True)

    def _failed(self, error: grpc.Call, size: int) -> Answer:
        """OTLP's rules, but for what is mostly a mistake of configuration: spans wait until it is mended."""
        delay, code = _retry_delay(error), error.code()
        problem = f"{code.name}: {self._connection.hide(error.details())}"
        failed = Answer(code=code, problem=problem, hint=hint(error))
        exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if code in RETRYABLE or (exhausted and delay is not None):
            return replace(failed, delay=delay or 0.0)
        if exhausted and size > SMALLEST_LIMIT and self._limit > SMALLEST_LIMIT:
            self._limit = max(self._limit // 2, SMALLEST_LIMIT)  # it seems to take no more: the next one is smaller
            return failed
        if code in MISCONFIGURED or (exhausted and size <= SMALLEST_LIMIT):
            return replace(failed, delay=LONGEST_WAIT)
        return replace(failed, refused=True)

    def _log(self, answer: Answer) -> None:
        """Say when the collector begins to take no spans, or to take them again."""
        failing, before = (answer.code, answer.hint), self._failing
        if failing == before or self._ending.is_set():
            return
        self._failing = failing
        problem = answer.problem + answer.hint
        self._note_problem(problem[:LONGEST_SAID])
        if not answer.taken:
            level = logging.WARNING if answer.code in RETRYABLE else logging.ERROR
            about = self._where | {"event": "spans_not_taken", "reason": problem}
            said = "%s does not take spans, they wait in the outbox: %s"
            logger.log(level, said, self._endpoint, problem, extra=about)
        elif before is not None:
            logger.info("%s takes spans again", self._endpoint, extra=self._where | {"event": "spans_taken_again"})


def _retry_delay(error: grpc.Call) -> float | None:
    """Seconds that the answer's RetryInfo asks for."""
    info = RetryInfo()
    try:
        status = rpc_status.from_call(error)
        if status is None or not any(detail.Unpack(info) for detail in status.details):
            return None
    except (ValueError, DecodeError):  # the details contradict the status, or are none
        return None
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return min(max(seconds, 0.0), LONGEST_DELAY)
