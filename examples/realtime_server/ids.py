"""Ids as the protocol forms them: a kind, an underscore, 21 letters and digits."""

import random
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 21


class Ids:
    """Draws the ids of one connection.

    With a seed, the n-th id of a kind is always the same, whatever was drawn in between for other kinds: the ids of
    items and responses do not depend on how events happened to interleave. Each connection passes a seed of its own.
    """

    def __init__(self, seed: str | None = None) -> None:
        self._seed = seed
        self._sources: dict[str, random.Random] = {}

    def new(self, kind: str) -> str:
        """A new id, such as `item_…` for the kind "item"."""
        return f"{kind}_{self._draw(kind, _LENGTH)}"

    def padding(self, text: str) -> str:
        """What the protocol calls obfuscation: it hides the length of a delta by filling it up to 16 characters."""
        return self._draw("padding", 16 - len(text) % 16)

    def _draw(self, kind: str, length: int) -> str:
        source = self._sources.get(kind)
        if source is None:
            source = random.Random(f"{self._seed}/{kind}") if self._seed is not None else random.SystemRandom()
            self._sources[kind] = source
        return "".join(source.choices(_ALPHABET, k=length))
