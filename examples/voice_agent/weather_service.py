"""A weather service in a process of its own: `python -m examples.voice_agent.weather_service --port 8081`.

`GET /weather?city=Oslo` answers JSON. Each request is a span, a child of the caller's by its `traceparent` header.
"""

import argparse
import json
import logging
import signal
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opentelemetry import trace
from opentelemetry.propagate import extract

from examples.voice_agent.telemetry import tracing

_LATENCY_SECONDS = 0.02
_WEATHER = {
    "athens": ("clear sky", 31),
    "lisbon": ("sunny", 24),
    "oslo": ("light snow", -3),
}

logger = logging.getLogger("weather_service")


class WeatherHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._answer(HTTPStatus.OK, {"status": "ok"})
            return
        attributes = {"http.request.method": "GET", "url.path": url.path, "url.scheme": "http"}
        with trace.get_tracer(__name__).start_as_current_span(
            f"GET {url.path}",
            context=extract({name.lower(): value for name, value in self.headers.items()}),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
        ) as span:
            status, answer = _respond(url.path, parse_qs(url.query))
            span.set_attribute("http.response.status_code", int(status))
        self._answer(status, answer)

    def _answer(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del size
        logger.info("%s: %s", self.requestline, code)


def _respond(path: str, query: dict[str, list[str]]) -> tuple[HTTPStatus, dict[str, Any]]:
    city = query.get("city", [""])[0]
    if path != "/weather" or not city:
        return HTTPStatus.NOT_FOUND, {"error": "ask for /weather?city=…"}
    time.sleep(_LATENCY_SECONDS)
    condition, celsius = _WEATHER.get(city.casefold(), ("overcast", 15))
    logger.info("the weather in %s is %s", city, condition)
    return HTTPStatus.OK, {"city": city, "condition": condition, "celsius": celsius}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.voice_agent.weather_service")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    with tracing("weather-service"), ThreadingHTTPServer((arguments.host, arguments.port), WeatherHandler) as server:
        host, port = server.server_address[:2]
        print(f"listening at http://{host!s}:{port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            logger.info("stopped")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
