"""The examples' G.711 codec, against values of the standard."""

from __future__ import annotations

import array

import pytest

from examples import g711, pcm


def samples(*values: int) -> bytes:
    return array.array("h", [value for value in values for _ in range(3)]).tobytes()


@pytest.mark.parametrize(
    ("sample", "byte"),
    [(0, 0xFF), (8, 0xFE), (-8, 0x7E), (1000, 0xCE), (-1000, 0x4E), (32635, 0x80), (32767, 0x80), (-32768, 0x00)],
)
def test_a_sample_is_the_byte_of_the_standard(sample: int, byte: int) -> None:
    assert g711.from_pcm(samples(sample)) == bytes([byte])


def test_each_byte_comes_back_but_for_the_second_zero() -> None:
    every = bytes(range(256))

    assert g711.from_pcm(g711.to_pcm(every)) == every.replace(b"\x7f", b"\xff")


def test_times_stay_what_they_were() -> None:
    assert len(g711.from_pcm(pcm.tone(330))) == 330 * g711.BYTES_PER_MS
    assert len(g711.to_pcm(bytes(160))) == 20 * pcm.BYTES_PER_MS
