"""Pages of an API: which request comes after an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from errors import SourceError
from etl.paths import MISSING, value_at
from etl.pipeline import CursorPagination, LinkPagination, OffsetPagination, PagePagination
from integrations.http import clean_url, same_origin

Pagination = PagePagination | OffsetPagination | CursorPagination | LinkPagination | None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for next.

    Args:
        url: Absolute URL.
        params: Query parameters, added to those of the URL.
    """

    url: str
    params: Mapping[str, str]

    def having(self, **params: str) -> Request:
        """The request with other parameters."""
        return replace(self, params={**self.params, **params})


@dataclass(frozen=True, slots=True)
class Answer:
    """What pagination looks at.

    Args:
        document: The answer's JSON.
        records: The records in it.
        links: Its `Link` header.
    """

    document: Any
    records: Sequence[Any]
    links: Mapping[str, str]


def first(pagination: Pagination, request: Request) -> Request:
    """The request of the first page."""
    match pagination:
        case PagePagination():
            return request.having(**{pagination.param: str(pagination.start)})
        case OffsetPagination():
            return request.having(**{pagination.param: "0", pagination.limit_param: str(pagination.limit)})
    return request


def following(pagination: Pagination, request: Request, answer: Answer) -> Request | None:
    """The request of the next page, None if there is none.

    Raises:
        SourceError: The answer lacks what the pagination needs.
    """
    match pagination:
        case PagePagination(param=param):
            return request.having(**{param: str(int(request.params[param]) + 1)}) if answer.records else None
        case OffsetPagination(param=param):
            done = int(request.params[param]) + len(answer.records)  # an API may give less than `limit`
            return request.having(**{param: str(done)}) if answer.records else None
        case CursorPagination():
            cursor = _cursor(pagination, answer)
            return None if cursor is None else request.having(**{pagination.param: cursor})
        case LinkPagination():
            return _linked(pagination, request, answer)
    return None


def _cursor(pagination: CursorPagination, answer: Answer) -> str | None:
    more = True if pagination.more is None else value_at(answer.document, pagination.more)
    if more is MISSING:
        raise SourceError(f"the answer has no {pagination.more!r} (`more`)", hint=_there(answer.document))
    cursor = value_at(answer.document, pagination.path) if more else None
    if cursor is not MISSING and cursor is not None and cursor != "":
        return str(cursor)
    if more and pagination.more is not None:
        raise SourceError(
            f"{pagination.more} says that there is more, but there is no {pagination.path!r}",
            hint=_there(answer.document),
        )
    return None


def _linked(pagination: LinkPagination, request: Request, answer: Answer) -> Request | None:
    link = value_at(answer.document, pagination.path) if pagination.path else answer.links.get("next")
    if link is MISSING or not link:
        return None
    url = urljoin(request.url, str(link))
    if not same_origin(url, request.url):
        raise SourceError(
            f"the next page is on another server, {clean_url(url)}", hint="credentials are not sent there; check `url`"
        )
    return Request(url, {})


def _there(document: object) -> str:
    return f"the answer has: {', '.join(list(document)[:20])}" if isinstance(document, dict) else "it is no object"
