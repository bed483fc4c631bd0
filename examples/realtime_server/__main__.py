"""`python -m examples.realtime_server --scenario weather --port 0 --speed 4` prints its URL and runs until stopped."""

import argparse
import asyncio
import signal
from pathlib import Path

from examples.realtime_server.scenario import ScenarioError, load_scenario, scenario_names
from examples.realtime_server.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.realtime_server")
    parser.add_argument("--scenario", default="weather", help=f"one of {', '.join(scenario_names())}, or a TOML file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--speed", type=float, default=1.0, help="divides every wait")
    parser.add_argument("--seed", help="makes the ids the same in every run")
    parser.add_argument("--model", default="gpt-realtime", help="the model's name, where the client's URL names none")
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(arguments))
    except ScenarioError as error:
        parser.error(str(error))


async def _run(arguments: argparse.Namespace) -> None:
    name = arguments.scenario
    scenario = load_scenario(Path(name) if name.endswith(".toml") else name)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    settings = {"host": arguments.host, "port": arguments.port, "speed": arguments.speed}
    async with serve(scenario, **settings, seed=arguments.seed, model=arguments.model, record=False) as server:
        print(f"listening at {server.url}", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    main()
