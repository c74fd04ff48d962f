"""From what a provider tells to what an event holds. Everything verified is kept, of unknown types too, whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from gateway.refusal import RefusedError

_LONGEST_TYPE = 200


def parse(body: bytes) -> object:
    """The body's JSON, or a refusal (400). A number beyond all measure, 1e400, is infinite: the log refuses it."""
    try:
        told: object = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from None
    return told


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
