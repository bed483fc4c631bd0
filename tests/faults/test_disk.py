"""The disk: what is on it before an answer goes out, and what happens when it is full."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from realtime_otel_sidecar.store.rows import pack_request
from tests.sidecar import (
    DIRECT,
    Backend,
    Client,
    Contents,
    SidecarProcess,
    code_of,
    conversation,
    one_by_one,
    retry_delay,
)

REQUESTS = one_by_one(conversation("traced-stream", turns=4))
LARGE = [conversation(f"large-{number}", turns=40).request() for number in range(20)]
MIB = 1024 * 1024


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as opened:
        yield opened


# --- Synced before the answer ---------------------------------------------------------------------------------------


def _why_no_strace() -> str:
    if (strace := shutil.which("strace")) is None:
        return "strace is not installed"
    tried = subprocess.run([strace, "-D", "-f", "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 and "execve" in tried.stderr else f"strace may not trace here: {tried.stderr}"


WHY_NO_STRACE = _why_no_strace()
CHECKSUM = 8
"""Bytes at the end of a packed request, which no other has."""


@pytest.mark.skipif(bool(WHY_NO_STRACE), reason=WHY_NO_STRACE)
def test_a_request_is_written_and_synced_before_its_answer_goes_out(tmp_path: Path, backend: Backend) -> None:
    """A kill cannot show this, because the page cache outlives the process; a trace of its system calls can."""
    trace = tmp_path / "trace"
    calls = "trace=recvmsg,recvfrom,sendmsg,sendto,pwrite64,fsync,fdatasync"
    tracer = ["strace", "-D", "-f", "-yy", "-s", "8192", "-e", calls, "-o", str(trace)]
    with SidecarProcess(tmp_path, backend.endpoint, before=tracer) as sidecar, Client(sidecar.port) as client:
        for request in REQUESTS:
            client.send(request)
        sidecar.stop()
    lines = trace.read_text(errors="replace").splitlines()
    at = 0
    for request in REQUESTS:
        received = _next(lines, at, r"recv(msg|from)\b", *_event_ids(request))
        written = _next(lines, received, r"pwrite64\(\d+<[^>]*-wal>", pack_request(request)[-CHECKSUM:])
        synced = _next(lines, written, r"f(data)?sync(\(\d+<[^>]*-wal>| resumed>).*= 0$")
        answered = _next(lines, received, rf"send(msg|to)\(\d+<[^>]*:{sidecar.port}->", b"grpc-status", b"\1\5\0\0\0\1")
        assert synced < answered, f"the answer was sent at {answered}, the log synced at {synced} of {trace}"
        at = answered + 1


def _event_ids(request: bytes) -> list[bytes]:
    """The ids that stand in this request alone."""
    return [b'"%s"' % found for found in re.findall(rb'"event_id":"(event_\d+)"', request)]


def _next(lines: list[str], first: int, call: str, *any_of: bytes) -> int:
    """The place of the next line of the trace with this call, and with one of these bytes."""
    texts = [_shown(each) for each in any_of]
    for place, line in enumerate(lines[first:], first):
        if re.search(rf"^\d+ +(<\.\.\. )?{call}", line) and (not texts or any(text in line for text in texts)):
            return place
    raise AssertionError(f"behind line {first} there is no {call} with {any_of}")


def _shown(data: bytes) -> str:
    """Bytes as strace writes them, but for the last: how that is written depends on what follows."""
    known = {
        ord("\n"): r"\n",
        ord("\t"): r"\t",
        ord("\r"): r"\r",
        ord("\v"): r"\v",
        ord("\f"): r"\f",
        ord('"'): r"\"",
        92: r"\\",
    }
    shown = ""
    for byte, following in itertools.pairwise(data):
        octal = f"\\{byte:03o}" if chr(following).isdigit() else f"\\{byte:o}"
        shown += known.get(byte) or (chr(byte) if 32 <= byte < 127 else octal)
    return shown


# --- A disk that is full --------------------------------------------------------------------------------------------


@contextmanager
def full_disk(sidecar: SidecarProcess) -> Iterator[None]:
    """The process can make no file longer than its write-ahead log is now: what it writes fails as on a full disk."""
    log = sidecar.data_dir / "realtime-otel.db-wal"
    process = sidecar.child.pid
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (log.stat().st_size, before[1]))
    yield
    with suppress(ProcessLookupError):  # the test may have ended it
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def health(port: int) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=DIRECT) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        return int(check(HealthCheckRequest(), timeout=10).status)


def wait_for_health(port: int, status: int) -> None:
    deadline = time.monotonic() + 40
    while health(port) != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits can be set on Linux only")
@pytest.mark.parametrize("ends", ["the disk has room again", "it is killed", "it is stopped"])
def test_a_full_disk_refuses_requests_loses_none_and_recovers(ends: str, tmp_path: Path, backend: Backend) -> None:
    with Backend() as other, SidecarProcess(tmp_path / "undisturbed", other.endpoint) as undisturbed:
        with Client(undisturbed.port) as client:
            for request in REQUESTS:
                client.send(request)
        undisturbed.stop()
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        with Client(sidecar.port) as client:
            for request in REQUESTS[:5]:
                client.send(request)
            with full_disk(sidecar):
                for _ in range(2):
                    with pytest.raises(grpc.RpcError) as raised:
                        client.send(REQUESTS[5])
                    assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE
                    assert retry_delay(raised.value) == 1.0
                wait_for_health(sidecar.port, HealthCheckResponse.NOT_SERVING)
                if ends == "it is killed":
                    sidecar.kill()
                elif ends == "it is stopped":
                    assert sidecar.stop() == 0
        if ends != "the disk has room again":
            sidecar.start()
        wait_for_health(sidecar.port, HealthCheckResponse.SERVING)
        with Client(sidecar.port) as client:
            for request in REQUESTS[5:]:
                client.send(request)
        assert sidecar.stop() == 0
    assert backend.contents == other.contents


# --- Volumes of their own -------------------------------------------------------------------------------------------


def mount(*arguments: str) -> bool:
    """Whether this could be mounted; it takes root, and a kernel that knows it."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 16 MiB, in memory."""
    folder = tmp_path / "volume"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=16m", "none", str(folder)):
        pytest.skip("no volume can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(volume: Path, leave: int) -> Path:
    """A file that takes all room but so many bytes."""
    filler = volume / "filler"
    room = os.statvfs(volume)
    filler.write_bytes(bytes(max(room.f_bavail * room.f_frsize - leave, 0)))
    return filler


@pytest.fixture
def undisturbed(tmp_path: Path) -> Contents:
    with Backend() as backend, SidecarProcess(tmp_path / "undisturbed", backend.endpoint) as sidecar:
        send(sidecar, REQUESTS)
        assert sidecar.stop() == 0
        return backend.contents


def send(sidecar: SidecarProcess, requests: list[bytes]) -> None:
    with Client(sidecar.port) as client:
        for request in requests:
            client.send(request)


def refused(sidecar: SidecarProcess, request: bytes) -> tuple[float | None, str]:
    """The request is refused, to be sent again; after how long, and why."""
    with Client(sidecar.port) as client, pytest.raises(grpc.RpcError) as raised:
        client.send(request)
    assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE
    assert isinstance(raised.value, grpc.Call)
    return retry_delay(raised.value), raised.value.details() or ""


@pytest.mark.parametrize(
    ("reserve", "leave", "after", "reason"),
    [
        pytest.param("0", 0, 1.0, "the data directory cannot be written", id="to the last byte"),
        pytest.param("4", 3 * MIB, 5.0, "the disk is full: of its room, 4 MiB are kept free", id="into the reserve"),
    ],
)
def test_a_volume_that_is_full_refuses_requests_and_recovers_by_itself_when_there_is_room(
    reserve: str, leave: int, after: float, reason: str, volume: Path, backend: Backend, undisturbed: Contents
) -> None:
    with SidecarProcess(volume, backend.endpoint, "--disk-reserve-mib", reserve) as sidecar:
        send(sidecar, REQUESTS[:5])
        filler = fill(volume, leave)
        if not leave:
            with Client(sidecar.port) as client, suppress(grpc.RpcError):
                for request in [*REQUESTS[5:], *LARGE]:  # until the pages that the log has already are used up
                    client.send(request)
        wait_for_health(sidecar.port, HealthCheckResponse.NOT_SERVING)
        assert refused(sidecar, REQUESTS[5]) == (after, reason)
        filler.unlink()
        wait_for_health(sidecar.port, HealthCheckResponse.SERVING)
        send(sidecar, REQUESTS)
        assert sidecar.stop() == 0
    assert undisturbed.items() <= backend.contents.items()


def test_a_volume_that_becomes_read_only_refuses_requests_and_a_start_on_the_mended_one_goes_on(
    tmp_path: Path, backend: Backend, undisturbed: Contents
) -> None:
    with loop_volume(tmp_path) as (volume, image):
        sidecar = SidecarProcess(volume, backend.endpoint, "--disk-reserve-mib", "0")
        sidecar.start()
        send(sidecar, REQUESTS[:5])
        device = subprocess.run(["findmnt", "-no", "SOURCE", volume], capture_output=True, text=True, check=True)
        Path("/sys/fs/ext4", Path(device.stdout.strip()).name, "trigger_fs_error").write_text("a test")
        assert refused(sidecar, REQUESTS[5]) == (1.0, "the data directory cannot be written")
        wait_for_health(sidecar.port, HealthCheckResponse.NOT_SERVING)
        assert sidecar.stop() == 0
        subprocess.run(["umount", volume], check=True)
        assert mount("-o", "loop", str(image), str(volume))
        with sidecar:
            send(sidecar, REQUESTS[5:])
            assert sidecar.stop() == 0
    assert backend.contents == undisturbed


@contextmanager
def loop_volume(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A file system of 32 MiB that becomes read-only at its first error: where it is mounted, and its image."""
    volume, image = folder / "volume", folder / "image"
    volume.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    made = shutil.which("mkfs.ext4") and subprocess.run(["mkfs.ext4", "-q", image], check=False).returncode == 0
    if not made or not mount("-o", "loop,errors=remount-ro", str(image), str(volume)):
        pytest.skip("no file system can be made and mounted here")
    try:
        yield volume, image
    finally:
        subprocess.run(["umount", volume], check=True)
