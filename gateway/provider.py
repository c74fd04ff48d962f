"""What the receiver asks of everyone who sends webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.responses import Response

from events.envelope import Event

JSON = frozenset({"application/json"})


def media_type(headers: Headers) -> str:
    """What a request's body is, without parameters, in lower case.

    Args:
        headers: The request's.
    """
    return headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook's request.

    Args:
        url: What the provider called, as far as we know.
        headers: The request's.
        body: The request's.
    """

    url: str
    headers: Headers
    body: bytes

    @property
    def content_type(self) -> str:
        """See `media_type`."""
        return media_type(self.headers)

    @property
    def query(self) -> Mapping[str, str]:
        """The URL's query parameters."""
        return dict(parse_qsl(self.url.partition("?")[2]))


@dataclass(frozen=True, slots=True)
class Received:
    """What a request came to.

    Args:
        events: What it told, to be on disk before it is answered.
        answer: What the provider wants to hear then; if None, how many events there were.
    """

    events: list[Event]
    answer: Response | None = None


class Provider(Protocol):
    """Someone who sends webhooks."""

    @property
    def name(self) -> str:
        """As the log calls it."""
        ...

    @property
    def path(self) -> str:
        """Where it posts."""
        ...

    @property
    def content_types(self) -> frozenset[str]:
        """What its bodies may be; empty: anything."""
        ...

    @property
    def body_limit(self) -> int:
        """Bytes that its bodies may have."""
        ...

    def prepare(self) -> None:
        """Imports and parses what `receive` needs: up to a second's work.

        Raises:
            RefusedError: The settings do not let us verify anything (503).
        """
        ...

    def receive(self, hook: Hook) -> Received:
        """Verifies a request, and only then reads it.

        Raises:
            RefusedError: It is malformed (400), not genuine or not fresh (401), or we cannot tell (503).
        """
        ...
