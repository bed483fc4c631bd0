"""The process that is fuzzed: ``python -m tests.fuzz.harness TARGET [libFuzzer's options and folders]``.

Coverage is that of the emitter's and the sidecar's own code. An exception ends the process, and libFuzzer leaves the
input behind; so does an input that takes too long.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from random import Random
from typing import Final

BYTES_ALONE: Final = 0.1
"""How often libFuzzer changes bytes, whatever they mean."""


def fuzz(arguments: Sequence[str]) -> None:
    """Fuzz one target until libFuzzer's options say stop. It ends the process."""
    import atheris

    with atheris.instrument_imports(include=["realtime_otel", "realtime_otel_sidecar"]):
        from .targets import TARGETS
    name, *options = arguments
    target = TARGETS[name]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = Random(seed)
        mutated = data if chance.random() < BYTES_ALONE else target.mutate(data, chance)
        if mutated == data or len(mutated) > max_size:
            return bytes(atheris.Mutate(data, max_size))
        return mutated

    atheris.Setup([sys.argv[0], *options], target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1:])
