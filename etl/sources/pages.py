"""Pages of an API: which request comes after an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin

import httpx

from errors import SourceError
from etl.paths import MISSING, value_at
from etl.pipeline import ApiParameter, CursorPagination, LinkPagination, OffsetPagination, PagePagination
from integrations.http import clean_url, same_origin

Pagination = PagePagination | OffsetPagination | CursorPagination | LinkPagination | None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for next.

    Args:
        url: Absolute URL.
        params: Query parameters, added to those of the URL.
        body: JSON body; the request is a POST if there is one.
        headers: Headers of this request.
    """

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def having(self, parameter: ApiParameter, name: str, value: Any) -> Request:  # noqa: ANN401  (JSON can be anything)
        """The request with another parameter, in the query or at a path of the body."""
        if parameter.in_ == "body":
            return replace(self, body=_put(self.body or {}, name.split("."), value))
        return replace(self, params={**self.params, name: str(value)})


@dataclass(frozen=True, slots=True)
class Answer:
    """What pagination looks at.

    Args:
        document: The answer's JSON.
        records: The records in it.
        links: Its `Link` header.
        headers: All its headers.
    """

    document: Any
    records: Sequence[Any]
    links: Mapping[str, str]
    headers: Mapping[str, str]


def first(pagination: Pagination, request: Request) -> Request:
    """The request of the first page."""
    match pagination:
        case PagePagination():
            return request.having(pagination, pagination.param, pagination.start)
        case OffsetPagination():
            return request.having(pagination, pagination.limit_param, pagination.limit).having(
                pagination, pagination.param, 0
            )
    return request


def following(pagination: Pagination, request: Request, answer: Answer) -> Request | None:
    """The request of the next page, None if there is none.

    Raises:
        SourceError: The answer lacks what the pagination needs.
    """
    match pagination:
        case PagePagination():
            return _further(pagination, request, 1) if answer.records else None
        case OffsetPagination():  # an API may give less than `limit`
            return _further(pagination, request, len(answer.records)) if answer.records else None
        case CursorPagination():
            cursor = _cursor(pagination, answer)
            return None if cursor is None else request.having(pagination, pagination.param, cursor)
        case LinkPagination():
            return _linked(pagination, request, answer)
    return None


def likely(pagination: Pagination, request: Request) -> Request | None:
    """The request that probably comes next, as far as that can be told before the answer has come."""
    match pagination:
        case PagePagination():
            return _further(pagination, request, 1)
        case OffsetPagination():
            return _further(pagination, request, pagination.limit)
    return None


def position(pagination: Pagination, request: Request) -> object:
    """Where a request stands in the list: a page, an offset, a cursor, a URL."""
    match pagination:
        case PagePagination() | OffsetPagination() | CursorPagination():
            name = pagination.param
            return request.params[name] if pagination.in_ == "query" else value_at(request.body, name)
    return request.url


def at(pagination: Pagination, request: Request, place: Any) -> Request:  # noqa: ANN401  (see `position`)
    """The request of the page at a `position`."""
    match pagination:
        case PagePagination() | OffsetPagination() | CursorPagination():
            return first(pagination, request).having(pagination, pagination.param, place)
    return replace(request, url=str(place), params={})


def _further(pagination: PagePagination | OffsetPagination, request: Request, step: int) -> Request:
    return request.having(pagination, pagination.param, int(str(position(pagination, request))) + step)


def _put(body: Mapping[str, Any], path: Sequence[str], value: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """An object with another value at a path."""
    name, *rest = path
    inner = body.get(name)
    return {**body, name: _put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def _cursor(pagination: CursorPagination, answer: Answer) -> object:
    more = True if pagination.more is None else value_at(answer.document, pagination.more)
    if more is MISSING:
        raise SourceError(f"the answer has no {pagination.more!r} (`more`)", hint=_there(answer.document))
    cursor = _told(pagination, answer) if more else None
    if cursor is not MISSING and cursor is not None and cursor != "":
        return cursor
    if more and pagination.more is not None:
        raise SourceError(
            f"{pagination.more} says that there is more, but there is no {pagination.path or pagination.header!r}",
            hint=_there(answer.document),
        )
    return None


def _told(pagination: CursorPagination, answer: Answer) -> object:
    if pagination.header:
        return answer.headers.get(pagination.header)
    return value_at(answer.document, pagination.path or "")


def _linked(pagination: LinkPagination, request: Request, answer: Answer) -> Request | None:
    link = value_at(answer.document, pagination.path) if pagination.path else answer.links.get("next")
    if link is MISSING or not link:
        return None
    try:
        url = urljoin(request.url, str(link))
        here, shown = same_origin(url, request.url), clean_url(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise SourceError(f"the next page's address cannot be read: {error}", hint="check `pagination`") from None
    if not here:
        raise SourceError(
            f"the next page is on another server, {shown}", hint="credentials are not sent there; check `url`"
        )
    return replace(request, url=url, params={})


def _there(document: object) -> str:
    return f"the answer has: {', '.join(list(document)[:20])}" if isinstance(document, dict) else "it is no object"
