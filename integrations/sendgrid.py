"""SendGrid, through its official SDK: one mail a call, one retry budget, one family of errors.

    sendgrid = SendGrid(SendGridConfig(api_key=SecretStr("SG....")))
    message_id = sendgrid.mail.send(Message(...), operation_id="welcome-4711")

SendGrid knows no idempotency keys. So a mail is sent again only if it is certain that SendGrid did not take it: it was
not reached, or said 429 or 503. Whatever else goes wrong, the mail may be on its way, and the error says so.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from errors import IntegrationError
from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import (
    USUAL_BUDGET,
    Calls,
    Operation,
    RetryBudget,
    hint,
    idempotency_key,
    silence,
    without_addresses,
)
from integrations.limits import retry_wait

if TYPE_CHECKING:
    from pydantic import SecretStr
    from python_http_client.exceptions import HTTPError
    from sendgrid import SendGridAPIClient


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGridConfig:
    """How SendGrid is reached.

    Args:
        api_key: The API key (`SG....`).
        api_base: Where SendGrid's API answers.
        timeout: Seconds to connect, and without a byte of the answer.
        retry: How often a call is tried.
        breaker: When SendGrid is left alone.
    """

    api_key: SecretStr
    api_base: str = "https://api.sendgrid.com"
    timeout: float = 30.0
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER


class SendGridIntegrationError(IntegrationError):
    """SendGrid refused a call or could not be reached."""


@dataclass(frozen=True, slots=True)
class Message:
    """A mail.

    Args:
        sender: A verified sender's address.
        to: Addresses; they all see each other.
        subject: Subject.
        text: Plain text; this or `html`, or both.
        html: HTML.
        categories: For SendGrid's statistics; at most 10.
    """

    sender: str
    to: tuple[str, ...]
    subject: str
    text: str | None = None
    html: str | None = None
    categories: tuple[str, ...] = ()


class SendGrid:
    """SendGrid's operations, by resource.

    Args:
        config: How SendGrid is reached.
    """

    def __init__(self, config: SendGridConfig) -> None:
        self._config = config
        self._calls = Calls("sendgrid", error=SendGridIntegrationError, budget=config.retry, breaker=config.breaker)
        self.mail = Mail(self)

    @cached_property
    def sdk(self) -> SendGridAPIClient:
        """The SDK's client: for what is not wrapped here."""
        from sendgrid import SendGridAPIClient

        silence("python_http_client")  # at DEBUG it logs the API key
        client = SendGridAPIClient(self._config.api_key.get_secret_value(), host=self._config.api_base.rstrip("/"))
        client.client.timeout = self._config.timeout  # the SDK would wait for ever
        return client

    def send(self, operation: str, body: Mapping[str, Any], unsure: str) -> Mapping[str, str]:
        """Posts to `mail/send` within the retry budget.

        Args:
            operation: What it is: `mail.send`.
            body: As SendGrid wants it.
            unsure: The hint for when it is not certain whether the mail is on its way.

        Returns:
            The answer's headers.

        Raises:
            SendGridIntegrationError: SendGrid refused it, or could not be reached within the budget.
        """
        from python_http_client.exceptions import HTTPError

        def once() -> Mapping[str, str]:
            try:
                headers: Mapping[str, str] = self.sdk.send(dict(body)).headers
            except HTTPError as error:
                raise _refused(error, operation, unsure) from error
            except (OSError, http.client.HTTPException) as error:
                raise _unreached(error, operation, unsure) from error
            return headers

        return self._calls.call(Operation(operation), once)


class Mail:
    """Sending mail."""

    def __init__(self, client: SendGrid) -> None:
        self._client = client

    def send(self, message: Message, *, operation_id: str) -> str:
        """Sends one mail.

        Args:
            message: The mail.
            operation_id: The caller's own name of this one doing. It travels with the mail: what SendGrid's webhooks
                say about the mail carries it as `operation_key`.

        Returns:
            SendGrid's message id; the webhooks' `sg_message_id` starts with it.

        Raises:
            SendGridIntegrationError: SendGrid refused it, or could not be reached within the budget; if it is not
                certain whether the mail is on its way, `retryable` is False and the hint says how to find out.
        """
        key = idempotency_key("sendgrid.mail.send", operation_id)
        unsure = f"the mail may be on its way: look for events with operation_key {key} before it is sent again"
        return self._client.send("mail.send", _body(message, key), unsure)["X-Message-Id"]


def _body(message: Message, key: str) -> dict[str, Any]:
    parts = {"text/plain": message.text, "text/html": message.html}
    body = {
        "personalizations": [{"to": [{"email": address} for address in message.to]}],
        "from": {"email": message.sender},
        "subject": message.subject,
        "content": [{"type": kind, "value": value} for kind, value in parts.items() if value is not None],
        "custom_args": {"operation_key": key},
    }
    return body | ({"categories": [*message.categories]} if message.categories else {})


def _refused(error: HTTPError, operation: str, unsure: str) -> SendGridIntegrationError:
    status = int(error.status_code)
    not_taken = status < 500 or status == 503
    return SendGridIntegrationError(
        f"SendGrid {operation}: {status} {_says(error.body)}",
        service="sendgrid",
        operation=operation,
        status=status,
        retry_after=retry_wait(error.headers or {}),
        hint=hint(status) if not_taken else unsure,
        retryable=status in {429, 503},
    )


def _unreached(error: OSError | http.client.HTTPException, operation: str, unsure: str) -> SendGridIntegrationError:
    # urllib wraps what goes wrong before the request is out, and nothing after.
    unsent = isinstance(error, urllib.error.URLError)
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return SendGridIntegrationError(
        f"SendGrid {operation}: no answer ({type(reason).__name__})",
        service="sendgrid",
        operation=operation,
        hint="check the network and PIVOTAL_SENDGRID_API_BASE" if unsent else unsure,
        retryable=unsent and not isinstance(reason, ssl.SSLError),
    )


def _says(body: bytes) -> str:
    try:
        errors = json.loads(body)["errors"]
        told = [f"{each['message']} ({each['field']})" if each.get("field") else each["message"] for each in errors]
    except (ValueError, KeyError, TypeError):
        return "with something that is not SendGrid's"
    return without_addresses("; ".join(told))
