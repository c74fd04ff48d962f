"""The time and the ids of the sandbox's world: both can be made to repeat."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Clock:
    """Unix time in seconds, until it is moved, or set to another."""

    def __init__(self) -> None:
        self._set: int | None = None
        self.ahead = 0

    def now(self) -> int:
        """The time, in seconds since 1970; `ahead` seconds before the world's."""
        return int(time.time()) + self.ahead if self._set is None else self._set

    @contextmanager
    def at(self, moment: int) -> Iterator[None]:
        """Within this block it is `moment`, in seconds since 1970."""
        before, self._set = self._set, moment
        try:
            yield
        finally:
            self._set = before


class Ids:
    """Ids that look like a service's own, the same ones in the same order for the same seed.

    Args:
        seed: Any text; random if not given.
    """

    def __init__(self, seed: str | None = None) -> None:
        self._seed = secrets.token_hex(16) if seed is None else seed
        self._given: Counter[str] = Counter()

    def new(self, kind: str, length: int = 24) -> str:
        """The kind's next id, without a prefix: `length` letters and digits.

        Each kind counts for itself, so that one more call of one kind does not change the ids of another.
        """
        self._given[kind] += 1
        digest = hashlib.sha256(f"{self._seed}/{kind}/{self._given[kind]}".encode()).digest()
        number = int.from_bytes(digest)
        letters = []
        for _ in range(length):
            number, letter = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[letter])
        return "".join(letters)
