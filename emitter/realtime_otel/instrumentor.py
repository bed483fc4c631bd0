"""Instrumentation without a change to the application: `opentelemetry-instrument python agent.py`.

Needs opentelemetry-instrumentation, which whoever calls it has; nothing else in this package does. Here, and only here,
methods are replaced on classes: those by which a session of openai-agents and a connection of the `openai` package are
entered, once their modules are imported. They do what `observe` does, unless the application has called that itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from wrapt import register_post_import_hook

from realtime_otel.guard import guarded, nothing
from realtime_otel.hooks import OBSERVED, Around, Method, Settings
from realtime_otel.tally import checked

if TYPE_CHECKING:
    from realtime_otel.connections import Watch

AGENTS: Final = "openai-agents>=0.22"
OPENAI: Final = "openai>=1.107"

_AGENTS_MODULES: Final = ("agents.realtime.session",)
_OPENAI_MODULES: Final = (
    "openai.resources.realtime.realtime",
    "openai.resources.realtime.translations.translations",
    "openai.resources.beta.realtime.realtime",
)
_MANAGER: Final = "ConnectionManager"


class RealtimeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Observes every Realtime session of openai-agents and every Realtime connection of the `openai` package.

    `RealtimeInstrumentor().instrument(deltas="first", attributes={…})` takes the settings of `observe` for all of them;
    what the application tells `observe` itself goes before. As there, a word for `deltas` that is none is a ValueError.
    """

    _restore: list[Callable[[], None]]
    _generation = 0

    def instrumentation_dependencies(self) -> Collection[str]:
        """Those of the packages that are there in a version that is supported; if none is, all."""
        supported = [each for each in (AGENTS, OPENAI) if _is_supported(each)]
        return supported or (AGENTS, OPENAI)

    def _instrument(self, **kwargs: Any) -> None:
        checked(kwargs.get("deltas", "all"))
        self._observe_all(Settings(**{key: kwargs[key] for key in Settings.__annotations__ if key in kwargs}))  # type: ignore[typeddict-item]

    @guarded(nothing)
    def _observe_all(self, settings: Settings) -> None:
        self._restore = []
        self._generation += 1
        if _is_supported(AGENTS):
            self._when_imported(_AGENTS_MODULES, lambda module: self._patch_sessions(module, settings))
        if _is_supported(OPENAI):
            self._when_imported(_OPENAI_MODULES, lambda module: self._patch_managers(module, settings))

    @guarded(nothing)
    def _uninstrument(self, **_kwargs: Any) -> None:
        self._generation += 1
        for restore in reversed(self._restore):
            restore()
        self._restore = []

    def _when_imported(self, modules: Collection[str], patch: Callable[[ModuleType], None]) -> None:
        generation = self._generation

        @guarded(nothing)
        def imported(module: ModuleType) -> None:
            # A hook cannot be taken back, so one that was set before the last `uninstrument` must do nothing.
            if generation == self._generation:
                patch(module)

        for module in modules:
            register_post_import_hook(imported, module)

    def _patch_sessions(self, module: ModuleType, settings: Settings) -> None:
        @guarded(nothing)
        def before(session: Any) -> None:
            from realtime_otel.agents import is_observed, observe_session

            if not is_observed(session):
                observe_session(session, **settings)

        session = module.RealtimeSession
        self._replace(session, "__aenter__", Around(before=before)(session.__aenter__))

    def _patch_managers(self, module: ModuleType, settings: Settings) -> None:
        from realtime_otel.connections import manager_hooks

        def present(manager: Any) -> Watch | None:
            return _present(manager, settings)

        for name, kind in list(vars(module).items()):
            if name.endswith(_MANAGER) and getattr(kind, "__module__", "") == module.__name__:
                for method, hooked in manager_hooks(kind, present).items():
                    self._replace(kind, method, hooked)

    def _replace(self, kind: type, name: str, replacement: Method) -> None:
        original = vars(kind)[name]
        setattr(kind, name, replacement)

        def restore() -> None:
            # Somebody may have put another wrapper around this one, which would be lost.
            if vars(kind).get(name) is replacement:
                setattr(kind, name, original)

        self._restore.append(restore)


def _no_watch() -> Watch | None:
    return None


@guarded(_no_watch)
def _present(manager: Any, settings: Settings) -> Watch | None:
    """The watch of the connection that a manager makes or has, a new one for each; None if it is told already."""
    from realtime_otel.connections import OPENAI as FRAMEWORK
    from realtime_otel.connections import Watch, tells_its_watch, watch_of

    if tells_its_watch(manager):
        return None
    watch = watch_of(manager)
    if watch is None or watch.ended:
        watch = Watch(FRAMEWORK, settings)
        setattr(manager, OBSERVED, watch)
    return watch


def _is_supported(requirement: str) -> bool:
    return get_dependency_conflicts([requirement]) is None
