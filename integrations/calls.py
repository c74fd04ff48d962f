"""What a call to an outside service needs, whichever service it is: one retry budget, one key per operation, hints."""

from __future__ import annotations

import logging
import random
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TypeVar

import stamina
import stamina.instrumentation
from pydantic import BaseModel, ConfigDict, Field

from errors import IntegrationError

_log = logging.getLogger(__name__)
_POLICY = re.compile(r";\s*([rt])=(\d{1,9})(?!\d)")
_UNIX_TIME = 10**9
"""Resets above are points in time; below, seconds from now."""

_OPERATIONS = uuid.UUID("6f1c3c0e-6a53-4b0e-9a68-0d0b3f5a7c11")
_HINTS = {
    401: "check the API key: it is wrong, expired, or of another environment",
    402: "the payment was refused; ask for another payment method",
    403: "the API key lacks a permission, or the sender is not verified",
    404: "check the id; it may belong to another account or environment",
    409: "another call with the same key is still at work; try again in a moment",
    429: "the service limits how often it is called; call less often or later",
}

T = TypeVar("T")


class RetryBudget(BaseModel):
    """How often, and how patiently, one call is tried. The only retries there are: the SDKs' own are off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(4, ge=1, description="Calls made at most, the first one included.")
    first_wait: float = Field(0.5, ge=0, description="Seconds; the ceiling doubles with every failure.")
    longest_wait: float = Field(20.0, ge=0, description="Seconds; a service that asks for more is not waited for.")


def call(work: Callable[[], T], budget: RetryBudget) -> T:
    """Does `work`, again while its error says that this is safe and can help.

    Waits by exponential backoff with full jitter, or as long as the service asked for (Retry-After).

    Args:
        work: Makes one call on the wire; raises `IntegrationError`.
        budget: How often.

    Raises:
        IntegrationError: The last one.
    """
    failures = count()

    def wait(error: Exception) -> bool | float:
        if not isinstance(error, IntegrationError) or not error.retryable:
            return False
        if error.retry_after is not None:
            return error.retry_after <= budget.longest_wait and error.retry_after
        return random.uniform(0, min(budget.longest_wait, budget.first_wait * 2 ** next(failures)))  # noqa: S311

    for attempt in stamina.retry_context(on=wait, attempts=budget.attempts, timeout=None):
        with attempt:
            return work()
    raise AssertionError("stamina yields at least one attempt")


def idempotency_key(operation: str, operation_id: str) -> str:
    """The same key for the same operation of the same caller, over every retry and every rerun.

    Args:
        operation: What is done: `stripe.customers.create`.
        operation_id: The caller's own name of this one doing: `signup-4711`.
    """
    return str(uuid.uuid5(_OPERATIONS, f"{operation}:{operation_id}"))


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


def hint(status: int | None) -> str | None:
    """What to do about an HTTP status, where the status alone tells."""
    if status is not None and status >= 500:
        return "the service is in trouble; try again later, and look at its status page"
    return _HINTS.get(status or 0)


def without_addresses(text: str) -> str:
    """A service's message without the e-mail addresses that it repeats: messages end up in logs."""
    return re.sub(r"[^\s@'\"<>\[(]+@", "***@", text)


def silence(logger: str) -> None:
    """Turns off what an SDK logs below WARNING: headers with keys, bodies with personal data."""
    logging.getLogger(logger).setLevel(logging.WARNING)


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    error = details.caused_by
    if isinstance(error, IntegrationError):
        _log.warning(
            "%s %s failed (%s); attempt %d in %.1f s",
            error.service,
            error.operation,
            error.status or "no answer",
            details.retry_num + 1,
            details.wait_for,
        )


# stamina's default would print each retry to stdout (structlog comes with Dagster), into the output of `--json`.
stamina.instrumentation.set_on_retry_hooks([_log_retry])
