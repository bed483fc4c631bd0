"""What is asked of a trace, each as a sentence and a check.

How spans are recognised is in the tables at the top: whoever is judged unfairly adds a name there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from .evidence import Evidence, Span

INPUT_TOKENS: Final = (
    "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "lk.realtime_model_metrics",
)  # fmt: skip
OUTPUT_TOKENS: Final = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
RESPONSE_ID: Final = ("gen_ai.response.id", "lk.response_id", "response.id")
INFERENCE: Final = ("realtime_inference", "chat", "generate_content", "text_completion")
TOOL_NAME: Final = (
    "gen_ai.tool.name", "tool.name", "tool.function_name", "function_name", "lk.function_tool.name",
    "traceloop.entity.name", "logfire.tool.name",
)  # fmt: skip
TOOL_KIND: Final = {
    "gen_ai.operation.name": "execute_tool",
    "openinference.span.kind": "TOOL",
    "traceloop.span.kind": "tool",
}
OWN_SPAN: Final = "fetch weather"
"""The span that the tool itself makes, with the city as an attribute."""
LOG_TEXT: Final = "looking up the weather in {}"
"""What the tool itself logs."""


class Claim(NamedTuple):
    """``holds`` says whether it does, or what is there instead."""

    sentence: str
    holds: Callable[[Evidence], bool | str]


# --- Which span is what ---------------------------------------------------------------------------------------------


def first(span: Span, keys: Iterable[str]) -> Any:
    return next((span.attributes[key] for key in keys if key in span.attributes), None)


def responses(evidence: Evidence) -> list[Span]:
    """Spans of the model's responses: they name one, or state its tokens, or say so.

    Not those around others, which may state the sum.
    """
    ids = set(evidence.begun)
    found = []
    for span in evidence.spans:
        names_one = first(span, RESPONSE_ID) in ids
        counts = any(key in span.attributes for key in (*INPUT_TOKENS, *OUTPUT_TOKENS))
        says_so = span.attributes.get("gen_ai.operation.name") in INFERENCE
        if (names_one or counts or says_so) and not is_tool(span):
            found.append(span)
    around = {each.span_id for span in found for each in evidence.ancestors(span) if each is not span}
    return [span for span in found if span.span_id not in around]


def is_tool(span: Span) -> bool:
    said = any(span.attributes.get(key) == value for key, value in TOOL_KIND.items())
    return said or (first(span, TOOL_NAME) == "get_weather" and span.name != OWN_SPAN)


def tools(evidence: Evidence) -> list[Span]:
    return [span for span in evidence.spans if is_tool(span)]


def own(evidence: Evidence) -> list[Span]:
    return [span for span in evidence.spans if span.name == OWN_SPAN]


def cities(evidence: Evidence) -> list[str]:
    return [json.loads(call["arguments"])["city"] for call in evidence.calls]


# --- The claims -----------------------------------------------------------------------------------------------------


def _one_trace(evidence: Evidence) -> bool | str:
    traces = {span.trace_id for span in evidence.spans}
    return len(traces) == 1 or f"{len(traces)} traces"


def _responses(evidence: Evidence) -> bool | str:
    found, made = responses(evidence), len(evidence.responses)
    return len(found) == made or f"{len(found)} of {made}"


def _tokens(evidence: Evidence) -> bool | str:
    found = responses(evidence)
    stated = [sum(int(first(span, keys) or 0) for span in found) for keys in (INPUT_TOKENS, OUTPUT_TOKENS)]
    used = [sum(response["usage"][f"{way}_tokens"] for response in evidence.responses) for way in ("input", "output")]
    return stated == used or f"{stated[0]} + {stated[1]} of {used[0]} + {used[1]}"


def _calls(evidence: Evidence) -> bool | str:
    found, made = tools(evidence), len(evidence.calls)
    return len(found) == made or f"{len(found)} of {made}"


def _own_spans(evidence: Evidence) -> bool | str:
    """Each below a call's span, and no two below the same."""
    around = [next((each for each in evidence.ancestors(span) if is_tool(each)), None) for span in own(evidence)]
    inside = {span.span_id for span in around if span is not None}
    made = len(evidence.calls)
    return (len(around) == len(inside) == made) or f"{len(inside)} of {made}"


def _logs(evidence: Evidence) -> bool | str:
    """Each carries the span of its call, or of something below it, or is an event of it."""
    spans = {(span.trace_id, span.span_id): span for span in evidence.spans}
    tied = 0
    for city in cities(evidence) or ["Far away"]:
        text = LOG_TEXT.format(city)
        by_ids = (spans.get((log.trace_id, log.span_id)) for log in evidence.logs if log.text == text)
        as_event = (span for span in tools(evidence) for _, values in span.events if text in map(str, values.values()))
        inside = [each for span in by_ids if span for each in evidence.ancestors(span) if is_tool(each)]
        tied += bool(inside or any(as_event))
    made = len(cities(evidence)) or 1
    return tied == made or f"{tied} of {made}"


def _error(evidence: Evidence) -> bool | str:
    found = tools(evidence)
    return any(span.failed or "error.type" in span.attributes for span in found) or f"{len(found)} calls, none failed"


def _unfinished(evidence: Evidence) -> bool | str:
    """It is there, and not as if it had been completed."""
    found = responses(evidence)
    if not found:
        return "no response"
    said = " ".join(str(value) for span in evidence.spans for value in span.attributes.values()).lower()
    marked = any(span.failed for span in evidence.spans) or any(
        word in said for word in ("disconnect", "incomplete", "interrupt", "cancel")
    )
    return marked or "as if completed"


def _something_left(evidence: Evidence) -> bool | str:
    found = responses(evidence)
    return bool(found) or f"{len(evidence.spans)} spans, no response"


ONE_TRACE: Final = Claim("The conversation is one trace", _one_trace)
RESPONSES: Final = Claim("Each response of the model is a span", _responses)
TOKENS: Final = Claim("Tokens add up to what the service has counted", _tokens)
CALLS: Final = Claim("Each call of a tool is a span", _calls)
OWN_SPANS: Final = Claim("What a tool traces itself is inside its own call", _own_spans)
LOGS: Final = Claim("What a tool logs is tied to its own call", _logs)
ERROR: Final = Claim("A call that fails says so", _error)
UNFINISHED: Final = Claim("An answer that was cut off is there, and marked", _unfinished)
SOMETHING_LEFT: Final = Claim("What had happened before is there", _something_left)
