"""Stripe's failures, and those of the way to it, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from errors import IntegrationError
from integrations.calls import NO_ANSWER, UNREACHABLE, hint, without_addresses
from integrations.limits import retry_after

if TYPE_CHECKING:
    import stripe

_HINTS = {
    ("APIConnectionError", None): "check the network and PIVOTAL_STRIPE_API_BASE; Stripe may be down",
    ("IdempotencyError", 400): "this operation id was used before, with other parameters: give every doing its own",
}


class StripeIntegrationError(IntegrationError):
    """Stripe refused a call or could not be reached."""


def explained(error: stripe.StripeError, operation: str) -> StripeIntegrationError:
    """What the SDK raised, in the house's words.

    Args:
        error: The SDK's error.
        operation: What was asked: `customers.create`.
    """
    import stripe

    headers = _headers(error)
    code = error.code or (error.error.code if error.error else None)
    if isinstance(error, stripe.APIConnectionError):
        code = UNREACHABLE if _unsent(error.__cause__) else NO_ANSWER
    return StripeIntegrationError(
        f"Stripe {operation}: {_what(error)}",
        service="stripe",
        operation=operation,
        status=error.http_status,
        code=code,
        request_id=headers.get("request-id"),
        retry_after=retry_after(headers.get("retry-after")),
        hint=_HINTS.get((type(error).__name__, error.http_status)) or hint(error.http_status),
        retryable=_can_help(error, headers.get("stripe-should-retry")),
    )


def _unsent(cause: BaseException | None) -> bool:
    """Whether no connection came about, as `requests` tells it: it calls a reset on the way the same."""
    import requests
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    if isinstance(cause, requests.ConnectTimeout):
        return True
    reason = cause.args[0] if isinstance(cause, requests.ConnectionError) and cause.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


def _what(error: stripe.StripeError) -> str:
    """What went wrong, in Stripe's words where it has some: a proxy's page of HTML is not repeated."""
    import stripe

    if isinstance(error, stripe.APIConnectionError):
        return f"no answer ({type(error.__cause__).__name__})"
    if error.error is None:
        return f"answered {error.http_status} with something that is not Stripe's"
    return f"{error.http_status} {without_addresses(error.user_message or 'without a message')}"


def _can_help(error: stripe.StripeError, advice: str | None) -> bool:
    """Whether to try again: as Stripe advises, else where its own SDK would, and when it limits the rate."""
    import requests
    import stripe

    if isinstance(error, stripe.APIConnectionError):
        # The SDK gives up on half an answer; the idempotency key makes it safe to ask again.
        return error.should_retry or isinstance(error.__cause__, requests.exceptions.ChunkedEncodingError)
    if advice is not None:
        return advice == "true"
    return error.http_status in {408, 409, 429} or (error.http_status or 0) >= 500


def _headers(error: stripe.StripeError) -> Mapping[str, str]:
    # For an answer that is not JSON, the SDK passes the headers where the body belongs.
    if not error.headers and error.json_body is not None and error.error is None:
        return cast(Mapping[str, str], error.json_body)
    return error.headers or {}
