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

    headers, what = _headers(error), _what(error)
    code = error.code or (error.error.code if error.error else None)
    told = StripeIntegrationError(
        f"Stripe {operation}: {what}",
        service="stripe",
        operation=operation,
        status=error.http_status,
        code=code,
        request_id=headers.get("request-id"),
        retry_after=retry_after(headers.get("retry-after")),
        hint=_HINTS.get((type(error).__name__, error.http_status)) or hint(error.http_status),
        retryable=_can_help(error, headers.get("stripe-should-retry")),
    )
    error._message = what  # noqa: SLF001  (a traceback shows it: without addresses, URLs and pages of HTML)
    if isinstance(error, stripe.APIConnectionError):
        error.__cause__ = _unsent(error.__cause__)  # what lies between the two has the URL in its message
        told.code = UNREACHABLE if error.__cause__ else NO_ANSWER
    return told


def _unsent(cause: BaseException | None) -> Exception | None:
    """Why no connection came about; None if there was one: `requests` calls a reset on the way the same."""
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

    retries = cause.args[0] if cause is not None and cause.args else None
    reason = retries.reason if isinstance(retries, MaxRetryError) else None
    return reason if isinstance(reason, NewConnectionError | ConnectTimeoutError) else None


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
