"""The caller's ends of the line: a microphone that says what the scenario says, and a speaker that keeps time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from agents.realtime import RealtimePlaybackState, RealtimePlaybackTracker

from examples import pcm
from examples.realtime_server.scenario import Scenario

_CHUNK_MS = 100
_VOICE_AMPLITUDE = 8000


class Microphone:
    """Streams what the scenario's user says, as bursts of tone in silence, in real time divided by `speed`."""

    def __init__(self, scenario: Scenario, speed: float) -> None:
        self._scenario = scenario
        self._speed = speed
        self._sent_ms = 0

    @property
    def has_said_all(self) -> bool:
        return all(self._sent_ms >= utterance.stop_ms for utterance in self._scenario.user)

    async def stream(
        self,
        send: Callable[[bytes], Awaitable[None]],
        is_over: Callable[[], bool],
        said: Callable[[], Awaitable[None]],
    ) -> None:
        """Send chunks of audio until the conversation is over, or the scenario's user hangs up.

        `said` is awaited after the last chunk of each utterance.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        hang_up_ms = self._scenario.hang_up_ms
        while not is_over() and (hang_up_ms is None or self._sent_ms < hang_up_ms):
            await send(self._chunk())
            before_ms, self._sent_ms = self._sent_ms, self._sent_ms + _CHUNK_MS
            if any(before_ms < utterance.stop_ms <= self._sent_ms for utterance in self._scenario.user):
                await said()
            # Counted from the start, so that being late once does not add up.
            await asyncio.sleep(started + self._sent_ms / 1000 / self._speed - loop.time())

    def _chunk(self) -> bytes:
        end_ms = self._sent_ms + _CHUNK_MS
        for utterance in self._scenario.user:
            if utterance.start_ms < end_ms and self._sent_ms < utterance.stop_ms:
                return pcm.tone(_CHUNK_MS, _VOICE_AMPLITUDE)
        return pcm.silence(_CHUNK_MS)


class Speaker(RealtimePlaybackTracker):
    """Plays into the void, at `speed` times the pace of the audio, and tells the model how much was heard."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed
        self._item: tuple[str, int] | None = None
        self._started = 0.0
        self._length_ms = 0.0

    @property
    def is_playing(self) -> bool:
        return self._item is not None and self._heard_ms() < self._length_ms

    def play(self, item_id: str, content_index: int, audio: bytes) -> None:
        if self._item != (item_id, content_index):
            self._item = item_id, content_index
            self._started = time.monotonic()
            self._length_ms = 0.0
        self._length_ms += len(audio) / pcm.BYTES_PER_MS

    def on_interrupted(self) -> None:
        """The user has spoken: what has not been heard will not be."""
        self._item = None
        super().on_interrupted()

    def get_state(self) -> RealtimePlaybackState:
        if self._item is None:
            return super().get_state()
        item_id, content_index = self._item
        elapsed_ms = min(self._heard_ms(), self._length_ms)
        return {
            "current_item_id": item_id,
            "current_item_content_index": content_index,
            "elapsed_ms": elapsed_ms,
        }

    def _heard_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000 * self._speed
