"""The way to Google: its SDK and its tokens over httpx, and what goes wrong on it.

httplib2, which the SDK would use, sends a request again by itself when the connection breaks, a POST, too, and one
connection of it serves one thread. google-auth asks up to three times for a token. Both take another transport.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from integrations.calendar.errors import CalendarIntegrationError
from integrations.calls import NOT_SENT, Operation, hint, silence, without_addresses
from integrations.limits import retry_wait
from integrations.wires import tls, unanswered

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from googleapiclient.errors import HttpError
    from httplib2 import Response

SERVICE = "google_calendar"
SCOPE = "https://www.googleapis.com/auth/calendar"

_LIMITED = {"rateLimitExceeded", "userRateLimitExceeded"}
"""Google says 403 for some of its rate limits."""
_HINTS = {
    "insufficientPermissions": f"give the credentials the scope {SCOPE}",
    "forbidden": "share the calendar with the account, or let the service account act for its owner",
    "quotaExceeded": "the calendar's limits of use are reached: see docs/integrations/google_calendar.md",
}


class GoogleWire:
    """What Google's SDK takes for its `httplib2.Http`. Threads may share it.

    Args:
        credentials: google-auth's.
        timeout: Seconds to connect, and without a byte of the answer.
    """

    def __init__(self, credentials: Credentials, timeout: float) -> None:
        for library in ("httpx", "httpcore", "google"):  # they log URLs and headers
            silence(library)
        logging.getLogger("googleapiclient").setLevel(logging.ERROR)  # as a warning, it logs whole answers
        self._credentials = credentials
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)), verify=tls())
        self._renewing = threading.Lock()

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,  # noqa: ANN401  (as the SDK calls it)
    ) -> tuple[Response, bytes]:
        """One request; a second one if Google does not take the token (any more)."""
        from httplib2 import Response

        token = self._token(None)
        answer = self._send(uri, method, body, headers, token)
        if answer.status_code == 401:
            answer = self._send(uri, method, body, headers, self._token(token))
        return Response({**answer.headers, "status": str(answer.status_code)}), answer.content

    def close(self) -> None:
        """Frees the connections."""
        self._http.close()

    def _send(
        self, uri: str, method: str, body: str | None, headers: Mapping[str, str] | None, token: str
    ) -> httpx.Response:
        return self._http.request(
            method, uri, content=body, headers={**(headers or {}), "Authorization": f"Bearer {token}"}
        )

    def _token(self, refused: str | None) -> str:
        with self._renewing:
            if not self._credentials.valid or self._credentials.token == refused:
                self._credentials.refresh(self._ask)  # type: ignore[no-untyped-call]
            return str(self._credentials.token)

    def _ask(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002  (as google-auth calls it)
        **_: Any,  # noqa: ANN401
    ) -> _TokenAnswer:
        answer = self._http.request(method, url, content=body, headers=headers)
        if answer.status_code in {408, 429} or answer.status_code >= 500:
            raise TokenRefusedError(answer)  # before google-auth asks again: the call is what is repeated
        return _TokenAnswer(answer)


class _TokenAnswer:
    """What google-auth takes for an answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status, self.headers, self.data = answer.status_code, answer.headers, answer.content


class TokenRefusedError(Exception):
    """Google's token endpoint is in trouble.

    Args:
        answer: What it answered.
    """

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.status_code} from the token endpoint")
        self.answer = answer


def refused(error: HttpError, operation: Operation) -> CalendarIntegrationError:
    """Google's refusal, in the house's words."""
    status, headers = int(error.resp.status), httpx.Headers({str(k): str(v) for k, v in error.resp.items()})
    message, reason = _told(error.content)
    error.uri, error.reason, error.error_details = None, message, ""  # they may repeat somebody's address
    limited = status == 429 or reason in _LIMITED
    return CalendarIntegrationError(
        f"Google Calendar {operation.name}: {status} {message}",
        service=SERVICE,
        operation=operation.name,
        status=429 if limited else status,
        code=reason,
        request_id=headers.get("x-guploader-uploadid") or headers.get("x-request-id"),
        retry_after=retry_wait(headers),
        hint=hint(429) if limited else _HINTS.get(reason or "") or hint(status),
        retryable=limited or status == 408 or status >= 500,
    )


def unreached(error: httpx.HTTPError | httpx.InvalidURL, operation: Operation) -> CalendarIntegrationError:
    """No answer from Google, in the house's words."""
    code = unanswered(error)
    return CalendarIntegrationError(
        f"Google Calendar {operation.name}: no answer ({type(error).__name__})",
        service=SERVICE,
        operation=operation.name,
        code=code,
        hint="check the network, PIVOTAL_GOOGLE_API_BASE and the credentials' token_uri; Google may be down",
        retryable=code != NOT_SENT,
    )


def without_token(error: Exception, operation: Operation) -> CalendarIntegrationError:
    """No token from Google, in the house's words; google-auth's own may repeat the address of an account."""
    answer = error.answer if isinstance(error, TokenRefusedError) else None
    return CalendarIntegrationError(
        f"Google Calendar {operation.name}: no token: {without_addresses(str(error.args[0]))[:300]}",
        service=SERVICE,
        operation=operation.name,
        status=401 if answer is None else answer.status_code,
        code="no_token",
        retry_after=None if answer is None else retry_wait(answer.headers),
        hint="check the credentials, and that the account may use the scope for the subject"
        if answer is None
        else hint(answer.status_code),
        retryable=answer is not None,
    )


def not_sent(error: Exception, operation: Operation) -> CalendarIntegrationError:
    """What the SDK itself refuses to send."""
    return CalendarIntegrationError(
        f"Google Calendar {operation.name}: {without_addresses(str(error))}",
        service=SERVICE,
        operation=operation.name,
        code=NOT_SENT,
    )


def not_json(error: ValueError, operation: Operation) -> CalendarIntegrationError:
    """An answer that is none of Google's."""
    return CalendarIntegrationError(
        f"Google Calendar {operation.name}: answered with something that is not Google's ({type(error).__name__})",
        service=SERVICE,
        operation=operation.name,
        code="bad_answer",
        hint="check PIVOTAL_GOOGLE_API_BASE, and what stands between here and there",
    )


def _told(content: bytes) -> tuple[str, str | None]:
    """Google's message and the reason's name: a proxy's page of HTML is not repeated."""
    try:
        error = json.loads(content)["error"]
        reasons = error.get("errors") or error.get("details") or [{}]
        return without_addresses(str(error["message"])), reasons[0].get("reason") or error.get("status")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "with something that is not Google's", None
