"""Scenarios: what the user says, what the model does, and when. Read from TOML files next to this module.

    [[user]]                # something the user says, by its place in the audio that the client appends
    start_ms = 600          # where the words begin; `input_audio_buffer.speech_started` comes when the client has
    stop_ms = 2600          # appended this much; `speech_stopped` when it has appended stop_ms and the silence after it
    says = "..."            # what the transcription finds

    [[model]]               # the model's next response, whatever asked for it
    says = "..."            # spoken (or written, if the client asked for text)
    calls = [{name = "get_weather", arguments = {city = "Oslo"}}]
    drop = {after_ms = 900, code = 1011, reason = "..."}    # the server ends the connection in mid-response
    fails = {code = "...", message = "..."}                 # the response fails, after what it says, if anything

    [[model.calls]]         # a call that the service itself makes, on an MCP server
    name = "find_book"
    mcp = {server = "library", output = "..."}              # see `McpRun`

    [[mcp]]                 # an MCP server; its tools are listed once the client has configured it
    label = "library"
    tools = ["find_book"]

    [timing]                # see `Timing`

    hang_up_ms = 9000       # for the caller: leave when this much audio was sent
    push_to_talk = true     # for the caller: no turn detection, end each turn oneself
    transcription = "..."   # for the caller: the model that transcribes, if not the agent's usual one
    session_model = "..."   # the session's model, whichever the client asks for
    expires_ms = 3000       # the service ends the session this long after it began
    tokens_spent = 1900000  # of the rate limit, by others, before the conversation

Offsets count the audio that was appended, not time: a client that sends no audio is never heard, and one that sends it
twice as fast is heard twice as early. A text turn consumes a `[[model]]` entry and no `[[user]]` entry. All other
milliseconds are wall time at speed 1.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "scenarios"
_SETTINGS = ("hang_up_ms", "push_to_talk", "transcription", "session_model", "expires_ms", "tokens_spent")


class ScenarioError(ValueError):
    """A scenario that cannot be found or does not make sense."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds at speed 1."""

    speech_to_response_ms: int = 200
    """From the end of the user's speech to `response.created`."""
    request_to_response_ms: int = 60
    """From the client's `response.create` to `response.created`."""
    first_output_ms: int = 300
    """From `response.created` to the first output item."""
    first_audio_ms: int = 120
    """From an output item to its first audio."""
    audio_chunk_ms: int = 200
    """The audio in one delta, and ..."""
    audio_every_ms: int = 120
    """... the time between two deltas: the model speaks faster than the words are heard."""
    word_ms: int = 330
    """The audio of one spoken word."""
    token_ms: int = 25
    """Between two pieces of a written text or of a call's arguments."""
    interrupt_ms: int = 80
    """From the user's interruption to the end of the response; its audio keeps coming meanwhile."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something that the user says. Offsets are milliseconds of appended audio."""

    start_ms: int
    stop_ms: int
    says: str
    transcript_after_ms: int = 350
    """From the commit of the audio to the first piece of its transcript; long enough, it comes after the answer."""
    transcript_ms: int = 250
    """From the first piece of the transcript to its completion."""
    transcript_error: str = ""
    """The code with which the transcription fails, in place of a transcript."""


@dataclass(frozen=True, slots=True)
class McpRun:
    """How a call goes that the service itself makes, on one of the client's MCP servers.

    Whether it needs an approval is in the client's configuration of the server. If it does, the response does not wait
    for it.
    """

    server: str
    output: str = ""
    error: str = ""
    """What the tool fails with, in place of an output."""
    takes_ms: int = 300
    outlives_response: bool = False
    """Without an approval: whether the response ends before the tool has begun."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the model makes: of a function, which is the client's to run, or, with `mcp`, of a remote tool."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    mcp: McpRun | None = None


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server that the service can reach, or one whose tools it fails to list."""

    label: str
    tools: tuple[str, ...] = ()
    list_ms: int = 150
    fails: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """The server ends the connection `after_ms` after `response.created`; code 1006 means without a close frame."""

    after_ms: int
    code: int = 1011
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a response fails with, in the service's words."""

    code: str
    message: str = ""
    type: str = "server_error"


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of the model: a message, function calls, or a message and calls, in this order."""

    says: str = ""
    calls: tuple[Call, ...] = ()
    drop: Drop | None = None
    fails: Failure | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A conversation: the user's part, the model's part, and the time it takes."""

    name: str
    title: str
    user: tuple[Utterance, ...] = ()
    model: tuple[Reply, ...] = ()
    default: Reply = Reply(says="Is there anything else I can do for you?")
    """What the model says once its part is over."""
    mcp: tuple[McpServer, ...] = ()
    timing: Timing = Timing()
    hang_up_ms: int | None = None
    push_to_talk: bool = False
    transcription: str = ""
    session_model: str = ""
    expires_ms: int | None = None
    tokens_spent: int = 0


def scenario_names() -> list[str]:
    """The names of the scenarios that come with the server."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def spoken_scenario_names() -> list[str]:
    """Those in which the user speaks; in the others, an application writes, or cuts the turns itself."""
    return [name for name in scenario_names() if load_scenario(name).user]


def load_scenario(name: str | Path) -> Scenario:
    """The scenario of this name, or in the file at this path."""
    path = name if isinstance(name, Path) else FOLDER / f"{name}.toml"
    # A name may come from a client's URL: only a listed one is ever opened.
    if isinstance(name, str) and name not in scenario_names():
        raise ScenarioError(f"no scenario {name!r}; there are: {', '.join(scenario_names())}")
    try:
        return parse_scenario(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise ScenarioError(f"{path.name}: {error}") from error


def parse_scenario(name: str, table: Mapping[str, Any]) -> Scenario:
    """A scenario from the contents of its file; raises TypeError or ValueError on what it does not know."""
    known = dict(table)
    scenario = Scenario(
        name=name,
        title=known.pop("title", name),
        user=tuple(Utterance(**utterance) for utterance in known.pop("user", [])),
        model=tuple(_reply(reply) for reply in known.pop("model", [])),
        mcp=tuple(_mcp_server(server) for server in known.pop("mcp", [])),
        timing=Timing(**known.pop("timing", {})),
        **{key: known.pop(key) for key in _SETTINGS if key in known},
    )
    if known:
        raise ScenarioError(f"unknown keys: {', '.join(sorted(known))}")
    _check(scenario)
    return scenario


def _reply(table: Mapping[str, Any]) -> Reply:
    known = dict(table)
    calls = tuple(_call(call) for call in known.pop("calls", []))
    drop, fails = known.pop("drop", None), known.pop("fails", None)
    return Reply(
        calls=calls,
        drop=Drop(**drop) if drop is not None else None,
        fails=Failure(**fails) if fails is not None else None,
        **known,
    )


def _call(table: Mapping[str, Any]) -> Call:
    known = dict(table)
    mcp = known.pop("mcp", None)
    return Call(mcp=McpRun(**mcp) if mcp is not None else None, **known)


def _mcp_server(table: Mapping[str, Any]) -> McpServer:
    known = dict(table)
    return McpServer(tools=tuple(known.pop("tools", [])), **known)


def _check(scenario: Scenario) -> None:
    heard_until = 0
    for utterance in scenario.user:
        if not heard_until <= utterance.start_ms < utterance.stop_ms:
            raise ScenarioError(f"{utterance.says!r} does not start after what was said before it")
        heard_until = utterance.stop_ms
    if not all(reply.says or reply.calls or reply.fails for reply in scenario.model):
        raise ScenarioError("a [[model]] entry needs `says`, `calls` or `fails`")
    known = {server.label for server in scenario.mcp}
    for call in (call for reply in scenario.model for call in reply.calls):
        if call.mcp is not None and call.mcp.server not in known:
            raise ScenarioError(f"{call.name!r} is called on {call.mcp.server!r}, for which there is no [[mcp]] entry")
