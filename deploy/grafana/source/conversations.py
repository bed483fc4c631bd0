"""Conversations: how quickly they answer, how they end, and a list of the newest."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard, table
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model

from . import panels
from .panels import CHOSEN, OF_MODEL, Query, lines, number, per_minute, quantile, share, total

ANSWER: Final = "openai_realtime_turn_vad_stop_to_first_audio_seconds"
FELT: Final = "openai_realtime_turn_voice_end_to_first_audio_seconds"
PLAYED: Final = "openai_realtime_turn_vad_stop_to_playback_seconds"
PUSHED: Final = "openai_realtime_turn_commit_to_first_audio_seconds"
FIRST_TOKEN: Final = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret
GENERATION: Final = "gen_ai_client_operation_duration_seconds"
ENDED: Final = "openai_realtime_sessions_ended_total"
SPEECHES: Final = "openai_realtime_user_speech_duration_seconds"
AUDIO: Final = "openai_realtime_response_audio_duration_seconds"
TRANSCRIPTIONS: Final = "openai_realtime_transcriptions_total"
FAILED: Final = f'{OF_MODEL}, error_type!=""'
SLOW: Final = 2.0
"""Seconds of silence after which people ask whether anybody is there."""


class JaegerQuery(variants.Dataquery):
    """A query of Grafana's Jaeger data source, of which the SDK has no type."""

    def __init__(self, **fields: Any) -> None:
        self._fields = {"refId": "A", "datasource": {"type": "jaeger", "uid": "jaeger"}, **fields}

    def to_json(self) -> dict[str, Any]:
        return self._fields


class Jaeger(cog.Builder[variants.Dataquery]):
    """Builds one."""

    def __init__(self, **fields: Any) -> None:
        self._query = JaegerQuery(**fields)

    def build(self) -> variants.Dataquery:
        return self._query


def conversations() -> dashboard.Dashboard:
    """The home page."""
    made = panels.board(
        "conversations",
        "Conversations",
        "What callers hear: how quickly they are answered, how conversations end, and the newest of them.",
        panels.SERVICE,
        panels.ENVIRONMENT,
        panels.MODEL,
    )
    made.link(dashboard.DashboardLink("Explore").url(panels.search("${agent}")).icon("external link"))
    jaeger = dashboard.DashboardLink("Jaeger").url("http://localhost:16686").icon("external link")
    made.link(jaeger.target_blank(target_blank=True))
    for panel in (*_now(), *_latency(), _newest()):
        made.with_panel(panel)
    made.with_row(panels.row("How conversations go"))
    for panel in _course():
        made.with_panel(panel)
    made.with_row(panels.row("What goes wrong"))
    for panel in _trouble():
        made.with_panel(panel)
    return made


def _now() -> list[Any]:
    good_below = [("green", None), ("orange", 1.0), ("red", SLOW)]
    errors = [("green", None), ("orange", 0.01), ("red", 0.05)]
    failed = total(ENDED, FAILED)
    cut = total("openai_realtime_interruptions_total")
    return [
        number("Open now", "Sessions that have not ended.", f"sum(openai_realtime_sessions_open{{{CHOSEN}}})", "short"),
        number(
            "Started",
            "Sessions that began in this time.",
            total("openai_realtime_sessions_started_total"),
            "short",
            decimals=0,
        ),
        number(
            "Typical wait",
            "Half of the answers begin sooner after the end of speech was detected.",
            quantile(0.5, ANSWER, window="$__range"),
            "s",
            steps=good_below,
            decimals=2,
        ),
        number(
            "Long wait",
            "One answer in twenty begins later.",
            quantile(0.95, ANSWER, window="$__range"),
            "s",
            steps=good_below,
            decimals=2,
        ),
        number(
            "Ended with an error",
            "Share of the sessions that ended in this time.",
            share(failed, total(ENDED, OF_MODEL)),
            "percentunit",
            steps=errors,
            decimals=1,
        ),
        number(
            "Interrupted",
            "Share of the user's speeches that cut an answer.",
            share(cut, total(f"{SPEECHES}_count")),
            "percentunit",
            decimals=1,
        ),
    ]


def _latency() -> list[Any]:
    here = panels.traces("Traces of the service", "${agent}")
    return [
        lines(
            "Wait for an answer",
            "From the detected end of speech to the first audio received, across tool rounds. "
            "A point leads to the trace of the turn.",
            panels.quantiles(ANSWER),
            "s",
            limit=SLOW,
            links=[here],
            span=12,
        ),
        panels.density(
            "All waits", "How many answers waited how long. A point leads to the trace of the turn.", ANSWER, span=12
        ),
    ]


def _newest() -> table.Panel:
    panel = table.Panel().title("Newest conversations").datasource(panels.JAEGER).span(24).height(10)
    panel.description("Of the service that is chosen as “Traces of”. A trace id opens the conversation.")
    panel.targets([Jaeger(queryType="search", service="${agent}", limit=50)])
    link = {
        "title": "Open the conversation",
        "url": "/d/conversation/conversation?var-trace=${__value.raw}&${__url_time_range}",
    }
    panel.override_by_name("Trace ID", [model.DynamicConfigValue("links", [link])])
    return panel.show_header(show_header=True).cell_height(shapes.TableCellHeight.SM)


def _course() -> list[Any]:
    return [
        lines(
            "Sessions",
            "Sessions that begin, and how they end, a minute.",
            [
                Query(per_minute("openai_realtime_sessions_started_total"), "started"),
                Query(
                    per_minute(ENDED, OF_MODEL, "openai_realtime_close_reason"),
                    "ended: {{openai_realtime_close_reason}}",
                    True,
                ),
            ],
            "cpm",
        ),
        lines(
            "Open sessions",
            "By service.",
            [Query(f"sum by (service_name) (openai_realtime_sessions_open{{{CHOSEN}}})", "{{service_name}}")],
            "short",
            stacked=True,
        ),
        lines(
            "Length of a session",
            "From its opening to its end.",
            panels.quantiles("openai_realtime_session_duration_seconds"),
            "s",
        ),
        lines(
            "Where an answer's time goes",
            "Of 95 % of the answers, in the order in which it passes: the service begins a "
            "response, sends the first audio; after a tool, speaks its output.",
            [
                Query(quantile(0.95, "openai_realtime_response_time_to_created_seconds"), "request to response"),
                Query(quantile(0.95, FIRST_TOKEN), "response to first audio", True),
                Query(
                    quantile(0.95, "openai_realtime_tool_output_to_first_audio_seconds"), "tool's output to first audio"
                ),
                Query(quantile(0.95, GENERATION), "whole response"),
            ],
            "s",
        ),
        lines(
            "Wait, as it is felt",
            "Of 95 % of the turns. From the end of the voice: what the detection itself takes is in it. "
            "To playback: where the service plays (WebRTC, SIP). From the commit: push to talk.",
            [
                Query(quantile(0.95, FELT), "end of voice to first audio", True),
                Query(quantile(0.95, PLAYED, CHOSEN), "end of speech to playback"),
                Query(
                    quantile(0.95, "openai_realtime_turn_voice_end_to_playback_seconds", CHOSEN),
                    "end of voice to playback",
                ),
                Query(quantile(0.95, PUSHED), "commit to first audio"),
                Query(quantile(0.95, "openai_realtime_turn_commit_to_playback_seconds", CHOSEN), "commit to playback"),
            ],
            "s",
        ),
        lines(
            "Turns of a session",
            "What one user input and all that answers it are.",
            panels.quantiles("openai_realtime_session_turns"),
            "short",
        ),
        lines(
            "Interruptions",
            "Speeches that cut an answer, a minute: while it was generated, or while it was played.",
            [
                Query(
                    per_minute("openai_realtime_interruptions_total", CHOSEN, "openai_realtime_interruption_phase"),
                    "{{openai_realtime_interruption_phase}}",
                    True,
                )
            ],
            "cpm",
            stacked=True,
        ),
        lines(
            "Length of what users say",
            "Of speech whose start and end were seen.",
            panels.quantiles(SPEECHES, CHOSEN),
            "s",
        ),
        lines("Length of what models say", "Of the audio that a response has generated.", panels.quantiles(AUDIO), "s"),
    ]


def _trouble() -> list[Any]:
    bad = panels.traces("Traces with this error", "${agent}", 'error.type="${__field.labels.error_type}"')
    failed = f'{CHOSEN}, openai_realtime_transcription_status="failed"'
    remaining, limit = "openai_realtime_rate_limit_remaining", "openai_realtime_rate_limit_limit"
    by = "service_name, gen_ai_request_model, openai_realtime_rate_limit_name"
    return [
        lines(
            "Errors",
            "`error` events of sessions, a minute. Most are the application's own: an event that the service could not use.",
            [
                Query(
                    per_minute("openai_realtime_errors_total", OF_MODEL, "error_type, openai_realtime_error_code"),
                    "{{error_type}} {{openai_realtime_error_code}}",
                    True,
                )
            ],
            "cpm",
            links=[bad],
        ),
        lines(
            "Responses that failed",
            "Share of all responses, by error.",
            [
                Query(
                    f"{panels.rate(f'{GENERATION}_count', FAILED, 'error_type')} / on () group_left () "
                    f"{panels.rate(f'{GENERATION}_count', OF_MODEL)}",
                    "{{error_type}}",
                )
            ],
            "percentunit",
            links=[bad],
        ),
        lines(
            "Transcriptions that failed",
            "Share of all transcriptions of what users say.",
            [Query(share(panels.rate(TRANSCRIPTIONS, failed), panels.rate(TRANSCRIPTIONS)), "failed")],
            "percentunit",
        ),
        lines(
            "Headroom of rate limits",
            "What is left of each limit, as the service has stated it last. At 0, responses fail.",
            [
                Query(
                    f"min by ({by}) ({remaining}{{{OF_MODEL}}} / {limit}{{{OF_MODEL}}})",
                    "{{service_name}} {{gen_ai_request_model}} {{openai_realtime_rate_limit_name}}",
                )
            ],
            "percentunit",
            most=1,
            span=12,
        ),
        lines(
            "Ends that nobody has stated",
            "Spans of which the end was inferred, a minute, by why: what a crash, a hang-up or a "
            "lost connection leaves open.",
            [
                Query(
                    per_minute(
                        "openai_realtime_spans_total",
                        f'{CHOSEN}, openai_realtime_close_inferred="true"',
                        "gen_ai_operation_name, openai_realtime_close_reason",
                    ),
                    "{{gen_ai_operation_name}}: {{openai_realtime_close_reason}}",
                )
            ],
            "cpm",
            span=12,
        ),
    ]


def conversation() -> dashboard.Dashboard:
    """One conversation, to which the list leads."""
    made = dashboard.Dashboard("Conversation").uid("conversation").description("One conversation as a trace.")
    made.tags(["realtime-otel-trace"]).readonly().time("now-1h", "now").timezone("browser")
    trace = dashboard.TextBoxVariable("trace").label("Trace id").default_value("")
    made.with_variable(trace.description("The list of conversations fills this in"))
    home = dashboard.DashboardLink("All conversations").url("/d/conversations/conversations").icon("dashboard")
    made.link(home.keep_time(keep_time=True))
    jaeger = dashboard.DashboardLink("Jaeger").url("http://localhost:16686/trace/${trace}").icon("external link")
    made.link(jaeger.target_blank(target_blank=True))
    panel = dashboard.Panel().type("traces").title("Conversation").datasource(panels.JAEGER).span(24).height(26)
    made.with_panel(panel.targets([Jaeger(query="${trace}")]))
    return made
