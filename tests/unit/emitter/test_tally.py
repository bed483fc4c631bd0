"""What is counted instead of sent."""

import threading

import pytest

from realtime_otel import contract
from realtime_otel.tally import AudioTally, CallTally, DeltaTally

PART = {"item_id": "item_1", "content_index": 0}
AUDIO = "response.output_audio"
ARGUMENTS, ITEM = "response.function_call_arguments.done", "response.output_item.done"


def test_appended_audio_is_summed_up_once() -> None:
    tally = AudioTally()
    for time, size in [(10, 480), (20, 480), (30, 100)]:
        tally.add(size, time)

    assert tally.take() == {
        contract.AUDIO_COUNT: 3,
        contract.AUDIO_SIZE: 1060,
        contract.AUDIO_FIRST: 10,
        contract.AUDIO_LAST: 30,
    }
    assert tally.take() == {}


@pytest.mark.parametrize(("deltas", "sent"), [("first", [True, False, False]), ("off", [False] * 3)])
def test_deltas_that_are_not_sent_are_counted_at_the_end_of_their_part(deltas: str, sent: list[bool]) -> None:
    tally = DeltaTally(deltas)  # type: ignore[arg-type]

    assert [tally.is_sent(f"{AUDIO}.delta", PART, 100) for _ in range(3)] == sent
    assert tally.take("response.output_audio_transcript.done", PART) == {}
    assert tally.take("response.done", {}) == {}
    assert tally.take(f"{AUDIO}.done", PART) == {contract.DELTA_COUNT: 3, contract.DELTA_SIZE: 300}
    assert tally.take(f"{AUDIO}.done", PART) == {}


@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_a_transcriptions_deltas_are_counted_at_either_of_its_ends(ending: str) -> None:
    tally = DeltaTally("off")
    kind = "conversation.item.input_audio_transcription"
    tally.is_sent(f"{kind}.delta", PART, 5)

    assert tally.take(f"{kind}.{ending}", PART) == {contract.DELTA_COUNT: 1, contract.DELTA_SIZE: 5}


def test_parts_that_never_end_are_forgotten_in_the_end() -> None:
    tally = DeltaTally("off")
    for number in range(5000):
        tally.is_sent(f"{AUDIO}.delta", {"item_id": number}, 1)

    assert tally.take(f"{AUDIO}.done", {"item_id": 0}) == {}
    assert tally.take(f"{AUDIO}.done", {"item_id": 4999}) != {}


def test_a_call_id_that_opens_again_after_its_end_counts_on() -> None:
    tally = CallTally()

    assert tally.ordinal("call_1") == 1
    tally.opened("call_1", ARGUMENTS)
    tally.opened("call_1", ITEM)
    tally.opened("call_1", ARGUMENTS)
    assert tally.ordinal("call_1") == 1

    tally.ended("call_1")
    assert tally.ordinal("call_1") == 1
    tally.opened("call_1", ARGUMENTS)
    tally.opened("call_1", ITEM)
    assert tally.ordinal("call_1") == 2
    assert tally.ordinal("call_2") == 1


def test_what_completes_a_call_once_more_after_its_end_does_not_open_it_again() -> None:
    tally = CallTally()
    tally.opened("call_1", ARGUMENTS)
    tally.ended("call_1")
    tally.opened("call_1", ITEM)

    assert tally.ordinal("call_1") == 1


def test_calls_of_long_ago_are_forgotten() -> None:
    tally = CallTally()
    for number in range(5000):
        tally.opened(f"call_{number}", ITEM)
        tally.ended(f"call_{number}")

    tally.opened("call_0", ITEM)
    assert tally.ordinal("call_0") == 1
    tally.opened("call_4999", ITEM)
    assert tally.ordinal("call_4999") == 2


def test_a_take_that_interrupts_another_leaves_it_nothing() -> None:
    tally = AudioTally()
    tally.add(4, 7)
    taken = []

    class Interrupted:
        """A finalizer may run at any line, and close the stream."""

        def __enter__(self) -> None:
            tally._lock = threading.RLock()
            taken.append(tally.take())

        def __exit__(self, *_error: object) -> None: ...

    tally._lock = Interrupted()  # type: ignore[assignment]

    assert tally.take() == {}
    assert [each[contract.AUDIO_FIRST] for each in taken] == [7]
