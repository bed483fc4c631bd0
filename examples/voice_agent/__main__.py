"""Holds conversations and ends.

python -m examples.voice_agent --demo                                    with servers of its own
python -m examples.voice_agent --url ws://… --weather-url http://… --scenario weather --speed 4
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
from agents.realtime import RealtimeSession
from websockets.exceptions import ConnectionClosed

import realtime_otel
from examples.realtime_server.scenario import spoken_scenario_names
from examples.voice_agent import demo
from examples.voice_agent.agent import converse
from examples.voice_agent.telemetry import tracing

SERVICE = "voice-agent"
"""Its name, unless the environment has another."""
Observe: TypeAlias = Callable[[RealtimeSession, str], object]
"""Gets the session before it is entered, and the scenario's name."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.voice_agent")
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument("--url", help="where the scripted Realtime server listens")
    servers.add_argument("--demo", action="store_true", help="start the servers too")
    parser.add_argument("--weather-url", default="http://127.0.0.1:8081", help="where the weather service listens")
    parser.add_argument(
        "--scenario", choices=spoken_scenario_names(), help="the demo's default is to play many at once"
    )
    parser.add_argument(
        "--troubles", action="store_true", help="the demo's conversations in which something goes wrong"
    )
    parser.add_argument("--speed", type=float, default=1.0, help="divides every wait, here and at the server")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    with tracing(SERVICE):
        held = _demo if arguments.demo else _troubles if arguments.troubles else _one
        return asyncio.run(held(arguments))


async def _one(arguments: argparse.Namespace) -> int:
    return await hold_one(
        arguments.url, arguments.weather_url, arguments.scenario or "weather", arguments.speed, _observe
    )


async def _troubles(arguments: argparse.Namespace) -> int:
    """Hold those that go wrong, all at once; nothing is wrong with that."""
    print(f"--- on purpose, something goes wrong in {', '.join(demo.TROUBLES)}", flush=True)
    held = (hold_one(arguments.url, arguments.weather_url, each, arguments.speed, _observe) for each in demo.TROUBLES)
    await asyncio.gather(*held)
    return 0


async def _demo(arguments: argparse.Namespace) -> int:
    """Hold one conversation, or all of the demo's at once: three services, of which two have trouble."""
    realtime = demo.started("examples.realtime_server", service_name="realtime-server")
    weather = demo.started("examples.voice_agent.weather_service", service_name="weather-service")
    async with realtime as url, weather as weather_url:
        where = [url, weather_url, arguments.speed]
        if arguments.scenario:
            return await hold_one(url, weather_url, arguments.scenario, arguments.speed, _observe)
        held = [hold_one(url, weather_url, scenario, arguments.speed, _observe) for scenario in demo.SCENARIOS]
        return max(await asyncio.gather(*held, _in_trouble(*where), _losing_records(*where)))


async def _in_trouble(url: str, weather_url: str, speed: float) -> int:
    return await _another(url, weather_url, speed, "--troubles", service_name=demo.IN_TROUBLE, environment={})


async def _losing_records(url: str, weather_url: str, speed: float) -> int:
    endpoint = demo.records_endpoint()
    if not endpoint.startswith("http://"):
        return 0  # the gateway speaks no TLS
    gateway = demo.started("examples.voice_agent.lossy_gateway", "--endpoint", endpoint, service_name="lossy-gateway")
    async with gateway as lossy:
        through = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": lossy}
        return await _another(url, weather_url, speed, service_name=demo.LOSING, environment=through)


async def _another(
    url: str, weather_url: str, speed: float, *options: str, service_name: str, environment: Mapping[str, str]
) -> int:
    """This module in a process of its own, as another service."""
    where = ["--url", url, "--weather-url", weather_url, "--speed", str(speed)]
    return await demo.ended(
        "examples.voice_agent", *where, *options, service_name=service_name, environment=environment
    )


async def hold_one(url: str, weather_url: str, scenario: str, speed: float, observe: Observe | None = None) -> int:
    """Hold one conversation and print it once it is over; 0 if nothing went wrong, else 1."""
    scripted_url = _with_query(url, scenario=scenario, speed=speed)
    noted = (lambda session: observe(session, scenario)) if observe is not None else None
    try:
        report = await converse(scripted_url, weather_url=weather_url, scenario=scenario, speed=speed, observe=noted)
    except ConnectionClosed as lost:
        print(f"{scenario}: the connection was lost: {lost}", file=sys.stderr)
        return 1
    except httpx.HTTPError as failed:
        print(f"{scenario}: a tool has failed: {str(failed).splitlines()[0]}", file=sys.stderr)
        return 1
    service = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    print("\n".join([f"--- {service}: {scenario}", *report.lines()]), flush=True)
    return 1 if report.errors else 0


def _observe(session: RealtimeSession, scenario: str) -> None:
    """Observe it, and put on every span which of the demo's conversations it is."""
    realtime_otel.observe(session, attributes={"demo.scenario": scenario})


def _with_query(url: str, **settings: object) -> str:
    """The URL, asking the scripted server for these settings; what the URL itself asks for stays."""
    parts = urlsplit(url)
    query = {name: str(value) for name, value in settings.items()} | dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode(query)))


if __name__ == "__main__":
    sys.exit(main())
