"""The HTTP client of an API that a pipeline reads from or writes to."""

from __future__ import annotations

from etl.pipeline import ApiDestination, ApiKeyAuth, ApiSource, Auth, BasicAuth, BearerAuth, OAuth2Auth
from etl.variables import resolve
from integrations.calls import RetryBudget
from integrations.http import ClientCredentials, Credential, HttpClient

BUDGET = RetryBudget(longest_wait=75.0)
"""A limit by the minute is waited for: nobody is watching, and all that was done would be lost."""


def open_client(end: ApiSource | ApiDestination, url: str) -> HttpClient:
    """A client that sends what the pipeline file says with every call. Nobody is called yet.

    Args:
        end: The source or the destination.
        url: Its address, with the variables filled in; its origin gets the credential.

    Raises:
        PivotalError: A `${NAME}` has no value.
    """
    headers = {name: resolve(value) for name, value in end.headers.items()}
    texts = [*end.headers.values(), *(value for value in end.params.values() if isinstance(value, str))]
    return HttpClient(
        url,
        service="api",
        headers=headers,
        credential=_credential(end.auth) if end.auth else None,
        secrets=[secret for text in texts for secret in _secrets(text)],
        budget=BUDGET,
    )


def param(value: object) -> str:
    """A query parameter's value as text."""
    return str(value).lower() if isinstance(value, bool) else resolve(str(value))


def _credential(auth: Auth) -> Credential | ClientCredentials:
    match auth:
        case BearerAuth():
            return Credential.bearer(resolve(auth.token))
        case BasicAuth():
            return Credential.basic(resolve(auth.username), resolve(auth.password))
        case ApiKeyAuth():
            return Credential(auth.param or auth.header, resolve(auth.key), in_query=auth.param is not None)
        case OAuth2Auth():
            scope = {"scope": auth.scope} if auth.scope else {}
            params = {name: resolve(value) for name, value in (scope | auth.params).items()}
            return ClientCredentials(
                resolve(auth.token_url), resolve(auth.client_id), resolve(auth.client_secret), params=params
            )


def _secrets(text: str) -> list[str]:
    """What may be secret in a text: what its variables stand for."""
    return [resolve(text)] if "${" in text else []
