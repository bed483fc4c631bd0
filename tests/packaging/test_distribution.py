"""What is published: the wheel in an empty environment, the source distribution, the sidecar's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

import realtime_otel
from tests.sidecar import Backend, SidecarProcess

ROOT: Final = Path(__file__).resolve().parents[2]
UV: Final = str(Path(sys.executable).with_name("uv"))
MIB: Final = 1024 * 1024

EMITTER_NEEDS: Final = {
    "googleapis-common-protos", "grpcio", "opentelemetry-api", "opentelemetry-exporter-otlp-common",
    "opentelemetry-exporter-otlp-proto-common", "opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-proto",
    "opentelemetry-sdk", "opentelemetry-semantic-conventions", "protobuf", "typing-extensions",
}  # fmt: skip
"""OpenTelemetry's SDK and OTLP exporter, and what these need themselves."""

AGENT: Final = """
import realtime_otel

emitter = realtime_otel.RealtimeEmitter(server_address="api.openai.com", server_port=443)
emitter.server_event({"type": "session.created", "event_id": "event_1", "session": {"id": "sess_1", "model": "m"}})
emitter.close()
"""

FREE: Final = sorted(set(realtime_otel.__all__) - {"observe", "RealtimeListener", "__version__"})
"""Public names that need no framework."""

TYPED: Final = """
import realtime_otel

emitter = realtime_otel.RealtimeEmitter(server_port="443")
reveal_type(realtime_otel.observe)
reveal_type(emitter.close)
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the wheel and what it asks for, at the versions of the lock."""
    folder = tmp_path_factory.mktemp("empty")
    run(UV, "venv", "--quiet", "--python", sys.executable, str(folder))
    python = folder / "bin" / "python"
    lock = str(ROOT / "requirements.lock")
    run(UV, "pip", "install", "--quiet", "--python", str(python), "--constraint", lock, str(wheel))
    return python


def run(*command: str, status: int = 0, environment: dict[str, str] | None = None) -> str:
    """What a command prints, once it has ended with this status."""
    # Not the checkout's modules and not the test run's coverage: what is tried is what was installed.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "OTEL_"))}
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean | (environment or {}), cwd="/", timeout=200, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_holds_the_two_packages_typed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - info == {"realtime_otel", "realtime_otel_sidecar"}
    assert {"realtime_otel/py.typed", "realtime_otel_sidecar/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_is_the_repository(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout, so there is no list to compare with")
    assert set(tracked) - names == set()


def test_the_emitter_needs_opentelemetry_only(empty: Path) -> None:
    listed = json.loads(run(UV, "pip", "list", "--quiet", "--python", str(empty), "--format", "json"))

    assert {each["name"] for each in listed} - {"realtime-otel"} == EMITTER_NEEDS


def test_an_agent_with_the_wheel_alone_reaches_a_sidecar(empty: Path, tmp_path: Path) -> None:
    with Backend() as backend, SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sidecar.port}", "no_grpc_proxy": "127.0.0.1"}
        run(str(empty), "-c", AGENT, environment=environment)

        backend.wait_until(lambda: bool(backend.contents))


def test_the_command_says_what_to_install_where_the_extra_is_missing(empty: Path) -> None:
    said = run(str(empty.with_name("realtime-otel")), "replay", "x.jsonl", status=1)

    assert "pip install 'realtime-otel[sidecar]'" in said
    assert "Traceback" not in said


def test_a_type_checker_sees_the_types_of_the_installed_package(empty: Path, tmp_path: Path) -> None:
    script = tmp_path / "typed.py"
    script.write_text(TYPED)

    command = [sys.executable, "-m", "mypy", "--strict", f"--python-executable={empty}", "--cache-dir", str(tmp_path)]
    said = run(*command, "--config-file=", str(script), status=1)

    assert 'Argument "server_port"' in said
    assert said.count("Revealed type is") == 2
    assert 'Revealed type is "Any"' not in said
    assert "import-untyped" not in said


def test_every_public_name_can_be_imported_and_says_what_it_is(empty: Path) -> None:
    code = f"import realtime_otel; [print(name, bool(getattr(realtime_otel, name).__doc__)) for name in {FREE}]"

    assert run(str(empty), "-c", code).splitlines() == [f"{name} True" for name in FREE]


def test_the_environment_of_the_sidecars_image_is_small(wheel: Path, tmp_path: Path) -> None:
    """The base image (python:slim) has about 120 MB; with at most 50 more the sidecar's stays well under 200 MB."""
    run(UV, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / "bin" / "python")
    lock = str(ROOT / "requirements-sidecar.lock")
    install = [UV, "pip", "install", "--quiet", "--python", python, "--compile-bytecode", "--no-deps"]
    run(*install, "--require-hashes", "--requirement", lock)
    run(*install, str(wheel))

    size = sum(path.stat().st_size for path in (tmp_path / "venv").rglob("*") if path.is_file())
    assert size < 50 * MIB
