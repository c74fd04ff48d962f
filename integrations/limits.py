"""What a service says about how often it may be called, in the headers of its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_POLICY = re.compile(r";\s*([rt])=(\d{1,9})(?!\d)")
_UNIX_TIME = 10**9
"""Resets above are points in time; below, seconds from now."""


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as seconds or as an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def retry_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a service which refused a call asks to be left alone: Retry-After, or its rate limit's reset."""
    told = retry_after(headers.get("Retry-After"))
    return _limit(headers)[1] if told is None else told


def used_up(headers: Mapping[str, str]) -> float | None:
    """Seconds until a rate limit that this call has used up is renewed; None if there is something left."""
    remaining, reset = _limit(headers)
    return reset if remaining == 0 else None


def _limit(headers: Mapping[str, str]) -> tuple[int | None, float | None]:
    """What a rate limit has left, and the seconds until it is renewed.

    By `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10; of several limits, the one that is used up for longest),
    by `RateLimit-Remaining` and `-Reset` (the same draft until 06), or by the `X-RateLimit-...` of many services,
    whose reset is a number of seconds or a Unix time.
    """
    policies = [dict(_POLICY.findall(policy)) for policy in (headers.get("RateLimit") or "").split(",")]
    limits = [(int(one["r"]), float(one["t"])) for one in policies if one.keys() >= {"r", "t"}]
    if limits:
        return min(limits, key=lambda limit: (limit[0], -limit[1]))
    prefix = "RateLimit-" if headers.get("RateLimit-Reset") else "X-RateLimit-"
    remaining, reset = (_number(headers.get(prefix + name)) for name in ("Remaining", "Reset"))
    if reset and reset > _UNIX_TIME:
        reset = max(0.0, reset - datetime.now(UTC).timestamp())
    return None if remaining is None else int(remaining), reset


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,12}(\.\d*)?", text.strip()) else None
