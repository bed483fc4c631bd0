"""The user's side: appended audio becomes speech, items and transcripts, at the offsets that the scenario names."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from examples import g711
from examples.realtime_server import events
from examples.realtime_server.conversation import InputAudio, Item, RefusedError, text_tokens
from examples.realtime_server.events import Event
from examples.realtime_server.line import Line
from examples.realtime_server.plan import pieces
from examples.realtime_server.scenario import Utterance
from examples.realtime_server.session import PCMU

_LEAST_COMMIT_MS = 100
# Semantic detection names no times; these are the ones of `server_vad`.
_PREFIX_MS = 300
_SILENCE_MS = 200
_KEPT_MS = 5000
_MS_PER_TOKEN = 100
_NOBODY_SPOKE = "No user speech was detected for a while. Ask whether anybody is still there."


class Hearing:
    """Listens to one connection's audio.

    With turn detection, each utterance of the scenario is heard when the client has appended its part of the audio.
    Without, the next utterance is what the client commits.
    """

    def __init__(self, line: Line, *, on_started: Callable[[], None], on_turn: Callable[[bool], None]) -> None:
        self._line = line
        self._audio = InputAudio()
        self._coming = list(line.scenario.user)
        self._on_started = on_started
        self._on_turn = on_turn
        self._speaking: tuple[str, int] | None = None
        self._quiet_from_ms: int | None = None

    @property
    def speaking(self) -> bool:
        """Whether the user is speaking: speech has started and has neither stopped nor been committed or cleared."""
        return self._speaking is not None

    def answering(self) -> None:
        """A response of the conversation begins: nobody has to speak."""
        self._quiet_from_ms = None

    def answered(self, audio_ms: int) -> None:
        """It is done. Silence counts from the end of its playback, which is taken to begin now."""
        if not self.speaking:
            self._quiet_from_ms = self._audio.total_ms + audio_ms

    def append(self, event: Event) -> None:
        audio, heard = _decoded(event.get("audio")), self._line.session["audio"]["input"]
        self._audio.append(g711.to_pcm(audio) if heard["format"] == PCMU else audio)
        if heard["turn_detection"] is not None:
            self._detect(heard["turn_detection"])

    def commit(self) -> None:
        """The client ends the user's turn (push to talk). No response follows of itself."""
        if self._audio.held_ms < _LEAST_COMMIT_MS:
            message = f"The buffer holds {self._audio.held_ms} ms of audio; {_LEAST_COMMIT_MS} ms are needed."
            raise RefusedError("input_audio_buffer_commit_empty", message)
        item_id = self._speaking[0] if self._speaking is not None else self._line.ids.new("item")
        self._commit(item_id, self._audio.take(), answered=False)

    def clear(self) -> None:
        self._audio.take()
        if self._speaking is not None:
            self._coming.pop(0)
        self._speaking = None
        self._line.send(events.cleared())

    def _detect(self, detection: Event) -> None:
        # One append may hold the end of one utterance and the start of the next.
        while self._coming and self._advance(self._coming[0], detection):
            pass
        self._watch_silence(detection.get("idle_timeout_ms"))
        if self._speaking is None:
            # Silence of a whole conversation would fill the memory; enough stays for the padding before the next words.
            self._audio.keep_last(_KEPT_MS)

    def _advance(self, utterance: Utterance, detection: Event) -> bool:
        """Start or stop the utterance if the audio has come that far; whether anything changed."""
        stop_ms = utterance.stop_ms + int(detection.get("silence_duration_ms", _SILENCE_MS))
        if self._speaking is None and self._audio.total_ms >= utterance.start_ms:
            start_ms = max(0, utterance.start_ms - int(detection.get("prefix_padding_ms", _PREFIX_MS)))
            self._speaking = self._line.ids.new("item"), start_ms
            self._quiet_from_ms = None
            self._line.send(events.speech_started(self._speaking[0], start_ms))
            self._on_started()
        elif self._speaking is not None and self._audio.total_ms >= stop_ms:
            item_id, start_ms = self._speaking
            self._line.send(events.speech_stopped(item_id, stop_ms))
            self._commit(item_id, self._audio.take(start_ms, stop_ms), answered=bool(detection["create_response"]))
        else:
            return False
        return True

    def _watch_silence(self, timeout_ms: int | None) -> None:
        """Commit the silence if it has lasted too long, so that the model asks who is there."""
        now_ms, quiet_from_ms = self._audio.total_ms, self._quiet_from_ms
        if timeout_ms is None or quiet_from_ms is None or now_ms < quiet_from_ms + timeout_ms:
            return
        self._quiet_from_ms = None
        item_id = self._line.ids.new("item")
        self._line.send(events.timeout_triggered(item_id, quiet_from_ms, now_ms))
        self._line.add_item(Item(events.system_item(self._line.ids.new("item"), _NOBODY_SPOKE)))
        silence = Item(events.user_audio_item(item_id), self._audio.take(quiet_from_ms, now_ms))
        self._put(silence, Utterance(quiet_from_ms, now_ms, says=""), answered=True)

    def _commit(self, item_id: str, audio: bytearray, *, answered: bool) -> None:
        self._speaking = None
        utterance = self._coming.pop(0) if self._coming else None
        self._put(Item(events.user_audio_item(item_id), audio), utterance, answered=answered)

    def _put(self, item: Item, utterance: Utterance | None, *, answered: bool) -> None:
        """The audio becomes an item; what was said in it is transcribed, if the client asked for that."""
        self._line.send(events.committed(item.id, self._line.conversation.last_id))
        self._line.add_item(item)
        config = self._line.session["audio"]["input"]["transcription"]
        if utterance is not None and config is not None:
            usage = _usage(item, utterance.says, str(config["model"]))
            self._line.later(self._transcribe(item, utterance, usage))
        self._on_turn(answered)

    async def _transcribe(self, item: Item, utterance: Utterance, usage: Event) -> None:
        """State the transcript, piece by piece; it hurries no one and waits for nothing."""
        await self._line.sleep(utterance.transcript_after_ms)
        if utterance.transcript_error:
            self._line.send(events.transcription_failed(item.id, utterance.transcript_error))
            return
        deltas = pieces(utterance.says)
        for piece in deltas:
            self._line.send(events.transcription_delta(item.id, piece, self._line.ids.padding(piece)))
            await self._line.sleep(utterance.transcript_ms / len(deltas))
        item.body["content"][0]["transcript"] = utterance.says
        self._line.send(events.transcription_completed(item.id, utterance.says, usage))


def _decoded(audio: Any) -> bytes:
    if not isinstance(audio, str):
        raise RefusedError("missing_required_parameter", "Missing required parameter: 'audio'.", param="audio")
    try:
        return base64.b64decode(audio, validate=True)
    except binascii.Error:
        raise RefusedError("invalid_value", "The audio is not base64.", param="audio") from None


def _usage(item: Item, transcript: str, model: str) -> Event:
    """What the transcription cost: by duration for the whisper models, in tokens for the others. Silence is free."""
    if not transcript:
        return {"type": "duration", "seconds": 0}
    if "whisper" in model:
        return {"type": "duration", "seconds": -(-item.audio_ms // 1000)}
    audio_in, text_out = item.audio_ms // _MS_PER_TOKEN, text_tokens(transcript)
    return {
        "type": "tokens",
        "total_tokens": audio_in + text_out,
        "input_tokens": audio_in,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio_in},
        "output_tokens": text_out,
    }
