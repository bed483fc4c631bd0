"""G.711 mu-law, the telephone's audio: 8000 samples a second of one byte each (ITU-T G.711)."""

import array
import functools
import sys

BYTES_PER_MS = 8
_BIAS, _CLIP = 0x84, 32_635
# Of the samples that `pcm` has, every third is one of the telephone's.
_RATIO = 3


def from_pcm(audio: bytes) -> bytes:
    """What the telephone carries of 24 kHz PCM16: every third sample, without the filter that real audio needs."""
    samples = array.array("h", audio)
    if sys.byteorder == "big":
        samples.byteswap()
    table = _encoded_samples()
    return bytes(table[sample & 0xFFFF] for sample in samples[::_RATIO])


def to_pcm(audio: bytes) -> bytes:
    """The same sound as 24 kHz PCM16, each sample three times."""
    table = _decoded_bytes()
    return b"".join([table[byte] for byte in audio])


@functools.cache
def _encoded_samples() -> bytes:
    """The byte of each 16-bit sample, by the sample as an unsigned number."""
    return bytes(_encoded(number - 0x10000 if number & 0x8000 else number) for number in range(0x10000))


@functools.cache
def _decoded_bytes() -> list[bytes]:
    return [_decoded(byte).to_bytes(2, "little", signed=True) * _RATIO for byte in range(256)]


def _encoded(sample: int) -> int:
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return ~((0x80 if sample < 0 else 0) | exponent << 4 | mantissa) & 0xFF


def _decoded(byte: int) -> int:
    byte = ~byte & 0xFF
    exponent, mantissa = byte >> 4 & 0x07, byte & 0x0F
    magnitude = ((mantissa << 3) + _BIAS << exponent) - _BIAS
    return -magnitude if byte & 0x80 else magnitude
