"""Functions for personal data in expressions: `mask`, `hash`, `redact`. NULL stays NULL.

`hash` takes the place of the engine's own function of that name, which anyone could undo for guessable values. It is
HMAC-SHA256 (RFC 2104), so the same value has the same hash wherever the key is the same.
"""

from __future__ import annotations

import hashlib

from errors import RuleError
from settings import get_settings

MACROS = (
    "CREATE MACRO redact(x) AS CASE WHEN x IS NOT NULL THEN '[redacted]' END",
    """CREATE MACRO mask(x) AS repeat('*', length(CAST(x AS VARCHAR)) - if(length(CAST(x AS VARCHAR)) < 8, 0, 4))
        || right(CAST(x AS VARCHAR), if(length(CAST(x AS VARCHAR)) < 8, 0, 4))""",
)
HASH_TYPE = "CREATE MACRO hash(x) AS sha256(CAST(x AS VARCHAR))"
"""What `hash` takes and gives, where no value is hashed."""

HASH = """CREATE MACRO hash(x) AS CASE WHEN x IS NOT NULL
    THEN sha256(__hash_outer() || unhex(sha256(__hash_inner() || encode(CAST(x AS VARCHAR))))) END"""
"""The key comes from functions that no expression may call, so that it stands in no SQL that an error could show."""

KEYED = "hash"

_SHORTEST = 32
_BLOCK = 64


def hash_pads() -> dict[str, bytes]:
    """What the functions of `HASH` give: the key, laid over the inner and the outer pad.

    Raises:
        RuleError: There is no key, or one that could be guessed.
    """
    secret = get_settings().hash_key
    key = secret.get_secret_value().encode() if secret else b""
    if len(key) < _SHORTEST:
        what = f"has fewer than {_SHORTEST} characters" if key else "is not set"
        raise RuleError(
            f"hash needs a key, but PIVOTAL_HASH_KEY {what}",
            hint="set it in the environment or in .env, and keep it: with another key, hashes are others; "
            "`openssl rand -hex 32` makes one",
        )
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return {name: bytes(byte ^ pad for byte in block) for name, pad in (("__hash_inner", 0x36), ("__hash_outer", 0x5C))}
