"""From what a provider tells to what an event holds. Everything verified is kept, of unknown types too, whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from gateway.refusal import RefusedError

_LONGEST_TYPE = 200


def parse(body: bytes) -> object:
    """The body's JSON, or a refusal (400)."""
    try:
        told: object = from_json(body, allow_inf_nan=False)
        if b"Infinity" in to_json(told, inf_nan_mode="constants"):  # a number, or a word
            json.loads(body, parse_float=_finite, parse_int=str)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    return told


def _finite(number: str) -> float:
    """`from_json` reads 1e400 as infinity, which is no JSON any more."""
    if math.isinf(value := float(number)):
        raise ValueError("a number is beyond all measure")
    return value


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that the body is, or a refusal (400)."""
    told = parse(body)
    if not isinstance(told, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return told


def required(told: Mapping[str, Any], name: str) -> str:
    """A text that must be there, or a refusal (400)."""
    if not (value := text(told.get(name))):
        raise RefusedError(400, f"the body has no {name!r}")
    return value


def text(value: object) -> str:
    """The value, if it is a text; else the empty one."""
    return value if isinstance(value, str) else ""


@lru_cache(maxsize=1024)
def type_name(source: str, name: str) -> str:
    """A provider's type in the envelope's letters; as the provider writes it, it stands in `data`."""
    words = (re.sub(r"[^a-z0-9_]+", "_", word) for word in name.lower().split("."))
    return ".".join([source, *(word for word in words if word)])[:_LONGEST_TYPE].rstrip(".")


def moment(value: object) -> datetime | None:
    """Seconds since 1970, or ISO 8601. None, which means now, rather than lose an event."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None
