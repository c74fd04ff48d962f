"""An HTTP API, as a Dagster resource."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import dagster as dg
from pydantic import Field, model_validator

if TYPE_CHECKING:
    from integrations.http import ClientCredentials, Credential, HttpClient


class HttpResource(dg.ConfigurableResource["HttpClient"]):
    """Hands out a client of one HTTP API. Dagster shows its configuration: give secrets as `dg.EnvVar` only."""

    base_url: str = Field(description="What relative addresses are joined to; only its origin gets the credential.")
    service: str = Field(description="The service's name, for errors, logs and metrics.")
    headers: dict[str, str] = Field(default_factory=dict, description="Sent with every call.")
    bearer: str | None = Field(default=None, description="A bearer token.")
    api_key: str | None = Field(default=None, description="A key, sent in `api_key_header`.")
    api_key_header: str = Field(default="X-API-Key", description="The header of `api_key`.")
    username: str | None = Field(default=None, description="Basic authentication, with `password`.")
    password: str | None = Field(default=None, description="Basic authentication, with `username`.")
    token_url: str | None = Field(
        default=None, description="Who gives tokens (OAuth 2 client credentials), for `client_id` and `client_secret`."
    )
    client_id: str | None = Field(default=None, description="With `token_url`.")
    client_secret: str | None = Field(default=None, description="With `token_url`.")
    scope: str | None = Field(default=None, description="With `token_url`.")
    timeout: float = Field(default=30.0, gt=0, description="Seconds without a byte of an answer.")
    attempts: int = Field(default=4, ge=1, description="How often a call is tried, the first time included.")
    retry_delay: float = Field(default=0.5, ge=0, description="Seconds; the ceiling doubles with every failure.")

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        given = [name for name in ("bearer", "api_key", "username", "token_url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(given)}: a call is authenticated in one way")
        for name, others in (("username", ["password"]), ("token_url", ["client_id", "client_secret"])):
            if getattr(self, name) is not None and (missing := [one for one in others if getattr(self, one) is None]):
                raise ValueError(f"{name} needs {' and '.join(missing)}")
        return self

    def open(self) -> HttpClient:
        """The client: a context manager that frees its connections."""
        from integrations.calls import RetryBudget
        from integrations.http import HttpClient, Limits

        return HttpClient(
            self.base_url,
            service=self.service,
            headers=self.headers,
            credential=self._credential(),
            limits=Limits(timeout=self.timeout),
            budget=RetryBudget(attempts=self.attempts, first_wait=self.retry_delay),
        )

    def _credential(self) -> Credential | ClientCredentials | None:
        from integrations.http import ClientCredentials, Credential

        if self.bearer is not None:
            return Credential.bearer(self.bearer)
        if self.api_key is not None:
            return Credential.api_key(self.api_key, self.api_key_header)
        if self.username is not None:
            return Credential.basic(self.username, self.password or "")
        if self.token_url is None:
            return None
        params = {"scope": self.scope} if self.scope else {}
        return ClientCredentials(self.token_url, self.client_id or "", self.client_secret or "", params=params)
