"""``kill -9`` of the sidecar's process, at any point: nothing is lost, and no span changes."""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.sidecar import (
    Backend,
    Client,
    Contents,
    SidecarProcess,
    code_of,
    conversation,
    interleaved,
    one_by_one,
    slow,
    unavailable,
)

ONE = one_by_one(conversation("one", turns=2), size=5)
THREE = interleaved([conversation("a", turns=4), conversation("b", turns=5, chosen=True), conversation("c", turns=3)])
SEED = 20260101
SESSION = b"realtime_session gpt-realtime"
"""The name of the span that comes last."""


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contents]:
    """The spans of each set of requests, from a run in which nothing happens."""
    found = {}
    for name, requests in (("one", ONE), ("three", THREE)):
        with Backend() as backend, SidecarProcess(tmp_path_factory.mktemp(name), backend.endpoint) as sidecar:
            with Client(sidecar.port) as client:
                for request in requests:
                    client.send(request)
            assert sidecar.stop() == 0
            found[name] = backend.contents
    assert {len(variants) for spans in found.values() for variants in spans.values()} == {1}
    return found


def send(sidecar: SidecarProcess, requests: Sequence[bytes]) -> None:
    with Client(sidecar.port) as client:
        for request in requests:
            client.send(request)


def test_the_recording_is_long_enough_to_mean_something(undisturbed: dict[str, Contents]) -> None:
    assert len(ONE) >= 8
    assert len(THREE) >= 60
    assert len(undisturbed["one"]) >= 6
    assert len(undisturbed["three"]) >= 30


@pytest.mark.parametrize("position", range(1, len(ONE)))
def test_a_kill_between_any_two_requests_changes_nothing(
    position: int, tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        send(sidecar, ONE[:position])
        sidecar.kill()
        sidecar.start()
        send(sidecar, ONE[position:])
        assert sidecar.stop() == 0
    assert backend.contents == undisturbed["one"]


def test_kills_all_through_several_conversations_change_nothing(
    tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    chance = random.Random(SEED)
    positions = [0, *sorted(chance.sample(range(1, len(THREE)), 5)), len(THREE)]
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        for first, last in itertools.pairwise(positions):
            send(sidecar, THREE[first:last])
            sidecar.kill()
            sidecar.start()
        assert sidecar.stop() == 0
    assert backend.contents == undisturbed["three"]


def test_a_kill_with_requests_under_way_costs_only_what_had_no_answer(
    tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    """The kill falls before, in or after the commit; the client sends again what was not answered."""
    chance = random.Random(SEED)
    waiting = list(THREE)
    answered_by_the_killed = 0
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        for attempt in range(5):
            with Client(sidecar.port) as client:
                client.send(b"")  # the connection is there
                flight = [(request, client.send_later(request)) for request in waiting[:12]]
                if attempt == 1:
                    flight[3][1].result()  # this one is answered in any case
                elif attempt > 1:
                    time.sleep(chance.uniform(0, 0.02))
                sidecar.kill()
                lost = [request for request, answer in flight if answer.exception() is not None]
            answered_by_the_killed += len(flight) - len(lost)
            waiting = lost + waiting[12:]
            sidecar.start()
        send(sidecar, waiting)
        assert sidecar.stop() == 0
    assert 0 < answered_by_the_killed < 5 * 12, "some kills fell before the answer, and some after"
    assert backend.contents == undisturbed["three"]


def test_a_kill_while_spans_are_sent_sends_the_same_again(
    tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    backend.answer = slow(0.05)
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        for first in range(0, len(THREE), 30):
            send(sidecar, THREE[first : first + 30])
            backend.wait_until(lambda: bool(backend.accepted))
            sidecar.kill()
            sidecar.start()
        assert sidecar.stop() == 0
    assert backend.contents == undisturbed["three"], "what was sent twice was the same twice"


def test_spans_wait_through_kills_and_stops_for_a_backend_that_is_away(
    tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    backend.answer = unavailable()
    with SidecarProcess(tmp_path, backend.endpoint, "--drain-timeout", "0.2") as sidecar:
        send(sidecar, THREE[:30])
        sidecar.kill()
        sidecar.start()
        send(sidecar, THREE[30:])
        assert sidecar.stop() == 0
        assert "kept for the next start" in sidecar.log
        assert backend.contents == {}
        backend.answer = lambda _context: b""
        sidecar.start()
        backend.wait_for(undisturbed["three"])
        assert sidecar.stop() == 0
    assert backend.contents == undisturbed["three"]


# --- At a commit ----------------------------------------------------------------------------------------------------

DYING = Path(__file__).parent / "dying.py"


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_a_kill_at_a_commit_changes_nothing(
    where: str, number: int, tmp_path: Path, backend: Backend, undisturbed: dict[str, Contents]
) -> None:
    """Of the first ones the database is made; later ones hold requests, whose client has no answer and sends again."""
    dying = SidecarProcess(tmp_path, backend.endpoint, before=[sys.executable, str(DYING), where, str(number)])
    waiting = list(ONE)
    with suppress(AssertionError):  # it may die before it listens
        dying.start()
        with Client(dying.port) as client, suppress(grpc.RpcError):
            while waiting:
                client.send(waiting[0])
                del waiting[0]
    assert dying.wait() == -signal.SIGKILL
    assert len(waiting) > 0
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        send(sidecar, waiting)
        assert sidecar.stop() == 0
    assert backend.contents == undisturbed["one"]


def test_a_kill_after_a_stream_was_ended_by_silence_does_not_end_it_again(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint, "--max-silence", "0.5") as sidecar:
        send(sidecar, ONE[:4])
        backend.wait_until(lambda: any(SESSION in request for request in backend.accepted))
        before = backend.contents
        sidecar.kill()
        sidecar.start()
        send(sidecar, ONE[4:])
        assert sidecar.stop() == 0
    assert backend.contents == before


def test_while_it_is_down_clients_are_told_to_send_again(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar, Client(sidecar.port) as client:
        client.send(ONE[0])
        sidecar.kill()
        with pytest.raises(grpc.RpcError) as raised:
            client.send(ONE[1])
    assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE
