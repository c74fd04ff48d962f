"""What authenticates the calls to a service: a key, a name and a password, a token that is asked for."""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

from errors import IntegrationError

if TYPE_CHECKING:
    import httpx

    from integrations.exchange import Options, Response


@dataclass(frozen=True, slots=True)
class Credential:
    """A header, or a query parameter, that authenticates.

    It is sent to the origin of the base URL only, also over redirects.
    """

    name: str
    value: str = field(repr=False)
    in_query: bool = False

    @classmethod
    def bearer(cls, token: str) -> Credential:
        """`Authorization: Bearer ...` (RFC 6750)."""
        return cls("Authorization", f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credential:
        """`Authorization: Basic ...` (RFC 7617)."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return cls("Authorization", f"Basic {pair}")

    @classmethod
    def api_key(cls, key: str, header: str = "X-API-Key") -> Credential:
        """A key in a header of the service's own choice."""
        return cls(header, key)

    @property
    def secrets(self) -> Collection[str]:
        """What must not show: with the scheme before it, and alone."""
        return [self.value, self.value.strip().rpartition(" ")[2]]

    def put(self, request: httpx.Request) -> None:
        """Adds it to a request."""
        if self.in_query:
            request.url = request.url.copy_set_param(self.name, self.value)
        else:
            request.headers[self.name] = self.value

    def remove(self, request: httpx.Request) -> None:
        """Takes it off a request that goes elsewhere."""
        if self.in_query:
            request.url = request.url.copy_remove_param(self.name)
        else:
            request.headers.pop(self.name, None)


class ClientCredentials:
    """A bearer token that a service gives for a client's id and secret (OAuth 2: RFC 6749, 4.4).

    An HTTP client asks for it when it is first needed, shortly before it expires, and when it is refused.

    Args:
        token_url: Who gives tokens.
        client_id: The client's id.
        client_secret: Its secret; both are sent as RFC 6749, 2.3.1 prefers (`Authorization: Basic`).
        params: More that the token's request says: scope, audience, ...
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str, *, params: Mapping[str, str] | None = None
    ) -> None:
        self.url, self._secret = token_url, client_secret
        self.client = Credential.basic(quote_plus(client_id), quote_plus(client_secret))
        self._form = {"grant_type": "client_credentials", **(params or {})}
        self._token: Credential | None = None
        self._until = 0.0

    @property
    def secrets(self) -> Collection[str]:
        """What must not show."""
        return [self._secret, *self.client.secrets, *(self._token.secrets if self._token else ())]

    @property
    def token(self) -> Credential | None:
        """The token; None if a new one is to be asked for."""
        return self._token if time.monotonic() < self._until else None

    @property
    def question(self) -> Options:
        """How `url` is asked for a token: options of a POST. Its 400 and 401 are answers that `take` explains."""
        return {
            "operation": "token",
            "content": urlencode(self._form).encode(),
            "headers": {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            "accept": {400, 401},
        }

    def take(self, answer: Response, error: type[IntegrationError] = IntegrationError) -> Credential:
        """Keeps the token that was given.

        Args:
            answer: What was answered to `question`.
            error: What is raised.

        Raises:
            IntegrationError: There is none in the answer.
        """
        try:
            told = answer.data
            if answer.status < 400:
                lifetime = float(told.get("expires_in", "inf"))
                self._token = Credential.bearer(str(told["access_token"]))
                self._until = time.monotonic() + lifetime - min(30.0, lifetime / 10)
                return self._token
            reason = str(told["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            reason = f"answered {answer.status} {answer.reason}, without a token"
        raise error(
            f"oauth2: POST {answer.url}: {reason[:100]}",
            service="oauth2",
            operation="token",
            status=answer.status,
            hint="check the client's id and secret, the scope, and the token's URL",
        )

    def forget(self, refused: httpx.Request) -> None:
        """Forgets the token that a refused request had; one that was fetched meanwhile stays."""
        if self._token and refused.headers.get("Authorization") == self._token.value:
            self._until = 0.0
