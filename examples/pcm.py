"""Audio as the examples use it: 16-bit little-endian mono samples, 24 000 a second ("PCM16")."""

import array
import math
import sys

SAMPLE_RATE = 24_000
BYTES_PER_MS = SAMPLE_RATE * 2 // 1000
# 5 ms: one cycle of 200 Hz, so any number of these in a row is one tone without a click.
_CYCLE_MS = 5


def silence(ms: int) -> bytes:
    """Silence of `ms` milliseconds."""
    return bytes(ms * BYTES_PER_MS)


def tone(ms: int, amplitude: int = 600) -> bytes:
    """A quiet 200 Hz tone of `ms` milliseconds; `amplitude` is the peak sample value, up to 32767."""
    cycles = -(-ms // _CYCLE_MS)
    return (_cycle(amplitude) * cycles)[: ms * BYTES_PER_MS]


def _cycle(amplitude: int) -> bytes:
    count = SAMPLE_RATE * _CYCLE_MS // 1000
    samples = array.array("h", (round(amplitude * math.sin(2 * math.pi * i / count)) for i in range(count)))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
