"""The price table: what it costs, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_otel_sidecar.metrics.prices import PricesError, parse_prices, read_prices
from realtime_otel_sidecar.stitch.spans import Attributes

from .measuring import PRICES, ROOT, meter, span, values

TABLE = """
models:
  - match: [gpt-realtime-mini*]
    currency: USD
    per_million_tokens:
      input: {text: 1, audio: 10}
      cached_input: {text: 0.1}
      output: {text: 3, audio: 20, reasoning: 4}
  - match: ["gpt-realtime*", "voice-??"]
    currency: EUR
    per_million_tokens: {input: {text: 2}}
"""
USAGE: Attributes = {
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.text.input_tokens": 600,
    "gen_ai.usage.audio.input_tokens": 400,
    "gen_ai.usage.cache_read.input_tokens": 200,
    "gen_ai.usage.text.cache_read.input_tokens": 200,
    "gen_ai.usage.output_tokens": 500,
    "gen_ai.usage.text.output_tokens": 100,
    "gen_ai.usage.audio.output_tokens": 400,
    "gen_ai.usage.reasoning.output_tokens": 50,
}


def costs(model: str, usage: Attributes = USAGE, table: str = TABLE) -> tuple[dict[str, float], dict[str, float]]:
    """By kind, with its currency, what a response costs; and by reason, the tokens that have no price."""
    by = meter(parse_prices(table))
    measured = by.measure(span("realtime_inference", usage | {"gen_ai.request.model": model}))
    priced = values(measured, "openai.realtime.cost")
    unpriced = values(measured, "openai.realtime.cost.unpriced")
    return (
        {" ".join(labels[-2:]): value for labels, value in priced},
        {labels[-1]: value for labels, value in unpriced},
    )


def test_each_kind_of_token_has_its_own_price() -> None:
    assert costs("gpt-realtime-mini") == (
        {
            "USD input.text": 400 * 1 / 1e6,
            "USD input.audio": 400 * 10 / 1e6,
            "USD cached_input.text": 200 * 0.1 / 1e6,
            "USD output.text": 50 * 3 / 1e6,
            "USD output.audio": 400 * 20 / 1e6,
            "USD output.reasoning": 50 * 4 / 1e6,
        },
        {},
    )


def test_the_first_entry_that_matches_is_the_models() -> None:
    assert next(iter(costs("gpt-realtime-mini-2025-10-06")[0])).startswith("USD")
    assert list(costs("gpt-realtime-2")[0]) == ["EUR input.text"]
    assert list(costs("voice-01")[0]) == ["EUR input.text"]


@pytest.mark.parametrize("model", ["gpt-4o-realtime", "GPT-REALTIME", "my-gpt-realtime", "voice-1", ""])
def test_the_price_of_another_model_is_never_guessed(model: str) -> None:
    assert costs(model) == ({}, {"unknown_model": 1500})


def test_a_price_that_is_missing_is_never_guessed() -> None:
    priced, unpriced = costs("gpt-realtime")

    assert priced == {"EUR input.text": 400 * 2 / 1e6}
    assert unpriced == {"no_price": 1100}


def test_tokens_of_which_it_is_not_said_what_they_are_have_no_price() -> None:
    assert costs("gpt-realtime-mini", {"gen_ai.usage.input_tokens": 10}) == ({}, {"not_stated": 10})


def test_the_model_that_answered_counts_before_the_one_that_was_asked_for() -> None:
    answered: Attributes = {"gen_ai.response.model": "gpt-realtime-mini"}

    assert "USD input.text" in costs("deployment-7", USAGE | answered)[0]


def test_a_response_without_usage_costs_nothing_and_lacks_nothing() -> None:
    assert costs("gpt-realtime", {}) == ({}, {})
    assert costs("unknown", {}) == ({}, {})


def test_without_a_table_there_is_no_cost_and_nothing_lacks_a_price() -> None:
    measured = meter().measure(span("realtime_inference", USAGE))

    assert values(measured, "openai.realtime.cost") == values(measured, "openai.realtime.cost.unpriced") == []


def test_the_example_is_a_table_with_a_price_for_each_kind() -> None:
    by = meter(PRICES)
    measured = by.measure(span("realtime_inference", USAGE | {"gen_ai.request.model": "gpt-realtime"}))

    assert values(measured, "openai.realtime.cost.unpriced") == []
    assert len(values(measured, "openai.realtime.cost")) == 6


ENTRY = "  - match: [a]\n    currency: USD\n    per_million_tokens: {input: {text: 1}}\n"
WRONG = {
    "text for a number": (
        TABLE.replace("text: 1,", "text: a dollar,"),
        6,
        "input.text: Expected `float | null`, got `str`",
    ),
    "below nothing": (TABLE.replace("text: 3", "text: -3"), 8, "output.text: Expected `float` >= 0.0"),
    "infinite": (TABLE.replace("text: 3", "text: .inf"), 8, "output.text: Expected `float` <= 1000000.0"),
    "not a number": (TABLE.replace("text: 3", "text: .nan"), 8, "output.text: Expected `float` >= 0.0"),
    "an unknown kind": (TABLE.replace("audio: 20", "sound: 20"), 8, "output: Object contains unknown field `sound`"),
    "an unknown field": (TABLE + "    since: 2025\n", 9, "models[1]: Object contains unknown field `since`"),
    "no currency": (TABLE.replace("    currency: EUR\n", ""), 9, "models[1]: Object missing required field `currency`"),
    "half a currency": (TABLE.replace("EUR", "Euro"), 10, "currency: Expected `str` matching regex"),
    "nothing to match": (TABLE.replace("[gpt-realtime-mini*]", "[]"), 3, "match: Expected `array` of length >= 1"),
    "an empty pattern": (TABLE.replace("[gpt-realtime-mini*]", "['']"), 3, "match[0]: Expected `str` of length >= 1"),
    "one pattern, no list": (TABLE.replace("[gpt-realtime-mini*]", "gpt"), 3, "match: Expected `array`, got `str`"),
    "a pattern twice": ("models:\n" + ENTRY + ENTRY, 5, "models[1].match[0]: `a` is matched before"),
    "a key twice": (
        TABLE.replace("currency: USD", "currency: USD\n    currency: EUR"),
        5,
        "`currency` stands here twice",
    ),
    "no models": ("models: []", 1, "models: Expected `array` of length >= 1"),
    "no table": ("", 1, "$: Expected `object`, got `null`"),
    "a list": ("- a", 1, "$: Expected `object`, got `array`"),
    "no YAML": ("models:\n  - match: [", 2, "no YAML: "),
    "a Python object": (
        "models: !!python/object/apply:os.system [ls]",
        1,
        "no YAML: could not determine a constructor",
    ),
    "a list for a key": ("? [a]\n: b", 1, "no YAML: found unhashable key"),
    "a date for a key": ("2025-01-01: 5", 1, "$: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_file_line_and_place(name: str, tmp_path: Path) -> None:
    text, line, problem = WRONG[name]
    path = tmp_path / "prices.yaml"
    path.write_text(text)

    with pytest.raises(PricesError) as error:
        read_prices(path)

    assert str(error.value).startswith(f"{path}:{line}: ")
    assert problem in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PricesError, match=r"none\.yaml cannot be read"):
        read_prices(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PricesError, match=r"binary\.yaml cannot be read"):
        read_prices(tmp_path / "binary.yaml")
    with pytest.raises(PricesError, match="no YAML"):
        parse_prices("[" * 2000)
    with pytest.raises(PricesError, match="no YAML"):
        parse_prices("models: \x00")


def test_the_documented_example_is_the_example() -> None:
    assert (ROOT / "examples/prices.yaml").read_text().strip() in (ROOT / "docs/metrics.md").read_text()
