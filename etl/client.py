"""The HTTP client of an API that a pipeline reads from or writes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

from etl.pipeline import ApiDestination, ApiKeyAuth, ApiSource, Auth, BasicAuth, BearerAuth, OAuth2Auth, placeholders
from etl.variables import resolve
from integrations.calls import RetryBudget
from integrations.http import ClientCredentials, Credential, HttpClient, Limits

BUDGET = RetryBudget(longest_wait=75.0)
"""A limit by the minute is waited for: nobody is watching, and all that was done would be lost."""

LIMITS = Limits()


def open_client(end: ApiSource | ApiDestination, url: str) -> HttpClient:
    """A client that sends what the pipeline file says with every call. Nobody is called yet.

    Args:
        end: The source or the destination.
        url: Its address, with the variables filled in; its origin gets the credential.

    Raises:
        PivotalError: A `${NAME}` has no value.
    """
    headers = {name: resolve(value) for name, value in end.headers.items()}
    for_each = end.for_each.params if isinstance(end, ApiSource) and end.for_each else None
    said = [end.headers, end.params, for_each, getattr(end, "body", None)]
    return HttpClient(
        url,
        service=(end.service if isinstance(end, ApiSource) else None) or "api",
        headers=headers,
        credential=credential_of(end.auth) if end.auth else None,
        secrets=list(_secrets(said)),
        budget=BUDGET,
        limits=LIMITS,
    )


class Address:
    """A URL with names in braces.

    Args:
        declared: As the pipeline file has it.

    Raises:
        PivotalError: A `${NAME}` in it has no value.
    """

    def __init__(self, declared: str) -> None:
        self.names = placeholders(declared)
        self._literals = [resolve(part) for part in re.split(r"(?<!\$)\{[^{}]*\}", declared)]

    @property
    def start(self) -> str:
        """What comes before the first name."""
        return self._literals[0]

    def filled(self, values: Sequence[str]) -> str:
        """The URL with values in the place of the names; each of them stays in its place, whatever it is."""
        rest = (quote(value, safe="") + literal for value, literal in zip(values, self._literals[1:], strict=True))
        return self.start + "".join(rest)


def inserts(values: Iterable[Any]) -> list[str]:
    """Values as they stand in an address; nothing for what cannot: NULL, a list, a step up."""
    texts = (_text(value) if isinstance(value, bool | int | Decimal | str | UUID) else "" for value in values)
    return ["" if text in {".", ".."} else text for text in texts]


def param(value: object) -> str:
    """A query parameter's value as text."""
    return resolve(_text(value))


def filled_in(value: Any) -> Any:  # noqa: ANN401  (JSON can be anything)
    """JSON with the variables in its texts filled in."""
    match value:
        case str():
            return resolve(value)
        case list():
            return [filled_in(item) for item in value]
        case dict():
            return {name: filled_in(item) for name, item in value.items()}
    return value


def credential_of(auth: Auth) -> Credential | ClientCredentials:
    """What a pipeline file says, with the variables filled in."""
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


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secrets(said: object) -> Iterator[str]:
    """What may be secret: what texts with variables stand for."""
    match said:
        case str() if "${" in said:
            yield resolve(said)
        case list() | dict():
            for part in said.values() if isinstance(said, dict) else said:
                yield from _secrets(part)
