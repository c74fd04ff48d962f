"""SendGrid's failures, and those of the way to it, as errors that say what to do."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.error
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from errors import IntegrationError
from integrations.calls import NO_ANSWER, UNREACHABLE, hint, without_addresses
from integrations.limits import retry_after, retry_wait

if TYPE_CHECKING:
    from python_http_client.exceptions import HTTPError

_NOT_TAKEN = frozenset({429, 503})
"""SendGrid certainly did nothing, and may do it later."""


class Mistake(NamedTuple):
    """What SendGrid says is wrong, and with which field (`personalizations.3.to.0.email`)."""

    message: str
    field: str | None

    def __str__(self) -> str:
        return f"{self.message} ({self.field})" if self.field else self.message


class SendGridIntegrationError(IntegrationError):
    """SendGrid refused a call or could not be reached.

    Args:
        message: As in `IntegrationError`; so is `about`.
        mistakes: What SendGrid says is wrong with the request.
        doubtful: Whether what must not be done twice may have been done.
    """

    def __init__(
        self,
        message: str,
        *,
        mistakes: tuple[Mistake, ...] = (),
        doubtful: bool = False,
        **about: Any,  # noqa: ANN401  (what `IntegrationError` takes)
    ) -> None:
        super().__init__(message, **{"service": "sendgrid", **about})
        self.mistakes, self.doubtful = mistakes, doubtful


def refused(error: HTTPError, operation: str, unsure: str | None) -> SendGridIntegrationError:
    """What SendGrid, or what stands in front of it, answered instead of doing what was asked.

    Args:
        error: The SDK's error.
        operation: What was asked: `mail.send`.
        unsure: What to do if it is not certain whether it was done; None: it is safe to repeat.
    """
    status, headers, told = int(error.status_code), error.headers or {}, _read(error.body)
    mistakes = _mistakes(told)
    doubtful = unsure is not None and (status == 408 or status >= 500) and status not in _NOT_TAKEN
    says = "; ".join(map(str, mistakes)) or "with something that is not SendGrid's"
    return SendGridIntegrationError(
        f"SendGrid {operation}: {status} {says}",
        operation=operation,
        mistakes=mistakes,
        doubtful=doubtful,
        status=status,
        request_id=told.get("id"),
        retry_after=retry_wait(headers) if status == 429 else retry_after(headers.get("Retry-After")),
        hint=unsure if doubtful else hint(status) or "see SendGrid's documentation of this status",
        retryable=not doubtful and (status in {408, 429} or status >= 500),
    )


def unreached(
    error: OSError | http.client.HTTPException, operation: str, unsure: str | None
) -> SendGridIntegrationError:
    """That there was no answer, or half of one.

    Args:
        error: What `urllib` raised.
        operation: As for `refused`.
        unsure: As for `refused`.
    """
    # urllib wraps what goes wrong before the request is out, and nothing after.
    unsent = isinstance(error, urllib.error.URLError)
    doubtful = not unsent and unsure is not None
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    again = "check the network and PIVOTAL_SENDGRID_API_BASE"
    return SendGridIntegrationError(
        f"SendGrid {operation}: no answer ({type(reason).__name__})",
        operation=operation,
        doubtful=doubtful,
        code=UNREACHABLE if unsent else NO_ANSWER,
        hint=again if unsent else unsure or f"{again}; SendGrid may be down",
        retryable=not doubtful and not isinstance(reason, ssl.SSLCertVerificationError),
    )


def garbled(operation: str, unsure: str | None) -> SendGridIntegrationError:
    """That the answer says yes, but is not SendGrid's: a proxy's, for example."""
    return SendGridIntegrationError(
        f"SendGrid {operation}: answered with something that is not SendGrid's",
        operation=operation,
        doubtful=unsure is not None,
        code=NO_ANSWER,
        hint=unsure or "check PIVOTAL_SENDGRID_API_BASE, and the proxies on the way",
        retryable=unsure is None,
    )


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _mistakes(told: Mapping[str, Any]) -> tuple[Mistake, ...]:
    """SendGrid's APIs tell of mistakes in two shapes: a list of `errors`, or one `error`."""
    errors = told.get("errors")
    listed = errors if isinstance(errors, list) else [{"message": told["error"]}] if "error" in told else []
    return tuple(_mistake(each) for each in listed if isinstance(each, dict))


def _mistake(told: Mapping[str, Any]) -> Mistake:
    field = told.get("field")
    named = isinstance(field, str) and re.fullmatch(r"[\w.\[\]-]{1,100}", field) and field != "null"
    return Mistake(without_addresses(str(told.get("message") or "without a message")), field if named else None)
