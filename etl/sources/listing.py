"""A list that an API gives page by page: asked for, parsed, and never for ever."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from errors import IntegrationError, SourceError
from etl.nested import dump, parse, without_collector
from etl.overlap import check_wanted
from etl.paths import MISSING, value_at
from etl.sources.pages import Answer, Pagination, Request, following, likely
from integrations.http import HttpClient, Response


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read.

    Args:
        number: From 1.
        answer: The whole answer.
        records: Its records.
        following: The request of the next page; None if this is the last one.
    """

    number: int
    answer: Response
    records: list[Any]
    following: Request | None


class Listing:
    """A list.

    Args:
        client: Who asks.
        records: Where an answer has its records.
        pagination: How its pages follow each other.
        heard: Told about every answer.
        at_a_time: How many requests are under way, where the next ones can be told before an answer has come.
    """

    def __init__(
        self,
        client: HttpClient,
        records: str | None,
        pagination: Pagination,
        heard: Callable[[Response], None],
        at_a_time: int = 1,
    ) -> None:
        self._client, self._path, self._pagination = client, records, pagination
        self._heard = heard
        self.at_a_time = at_a_time

    def of(self, records: str | None, pagination: Pagination) -> Listing:
        """Another list of the same API."""
        return Listing(self._client, records, pagination, self._heard)

    def pages(self, request: Request, number: int = 1, answer: Response | None = None) -> Generator[Page]:
        """The pages from a request on.

        Args:
            request: The first one.
            number: What the first page is called.
            answer: The answer to it, if it has come already.

        Raises:
            SourceError: A page cannot be had, is not what the pipeline says, or came before.
        """
        asked, answered = set[int](), set[int]()
        coming: Request | None = request
        with closing(_Ahead(self)) as ahead:
            while coming:
                check_wanted()
                answer = answer or ahead.ask(coming, number)
                if answer.status == 304 and "If-None-Match" in coming.headers:
                    return
                page = self._page(coming, number, answer)
                _check_new((coming.url, tuple(sorted(coming.params.items())), dump(coming.body)), asked, page)
                _check_new(_looks(page.records) or number, answered, page)
                if page.following:
                    ahead.prepare(page.following, number + 1)
                yield page
                coming, number, answer = page.following, number + 1, None

    def ask(self, request: Request, number: int = 1) -> Response:
        """One answer.

        Raises:
            SourceError: There is none, or it is a refusal.
        """
        headers, content = dict(request.headers), None
        if request.body is not None:
            content = (dump(request.body) or "").encode()
            headers["Content-Type"] = "application/json"
        try:
            answer = self._client.request(
                "GET" if content is None else "POST",
                request.url,
                operation=f"page {number}",
                label="page",
                params=request.params,
                content=content,
                headers=headers,
                repeatable=True,
            )
        except IntegrationError as error:
            raise SourceError(f"page {number}: {error.message}", hint=error.hint, retryable=error.retryable) from error
        self._heard(answer)
        return answer

    def coming(self, request: Request) -> list[Request]:
        """A request and those that probably come after it, as many as may be under way; none if that is one."""
        if self.at_a_time == 1:
            return []
        found = [request]
        while len(found) < self.at_a_time and (after := likely(self._pagination, found[-1])):
            found.append(after)
        return found

    def _page(self, request: Request, number: int, answer: Response) -> Page:
        try:
            document = _parsed(answer)
            records = _records(document, self._path)
            told = Answer(document, records, answer.links, answer.headers)
            return Page(number, answer, records, following(self._pagination, request, told))
        except SourceError as error:
            raise SourceError(f"{answer.url}, page {number}: {error.message}", hint=error.hint) from None


class _Ahead:
    """Asks for pages before it is their turn.

    The first request of all goes alone: its answer tells when the reading began.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._threads = ThreadPoolExecutor(listing.at_a_time, "pages")
        self._waiting: dict[str, Future[Response]] = {}

    def ask(self, request: Request, number: int) -> Response:
        """The answer to a request, which may be under way already."""
        waiting = self._waiting.pop(repr(request), None)
        return waiting.result() if waiting else self._listing.ask(request, number)

    def prepare(self, request: Request, number: int) -> None:
        """Sends the next request and those that probably follow it; forgets what does not after all."""
        coming = {repr(each): each for each in self._listing.coming(request)}
        for wrong in self._waiting.keys() - coming.keys():
            self._waiting.pop(wrong).cancel()
        for page, (name, each) in enumerate(coming.items(), number):
            if name not in self._waiting:
                self._waiting[name] = self._threads.submit(copy_context().run, self._listing.ask, each, page)

    def close(self) -> None:
        """Waits for what is under way; what has not begun does not."""
        self._threads.shutdown(cancel_futures=True)


def _parsed(answer: Response) -> Any:  # noqa: ANN401  (JSON can be anything)
    if not answer.body.strip():
        raise SourceError(f"the answer is {answer.status} {answer.reason}, without JSON", hint="check `url`")
    try:
        with without_collector():
            return parse(answer.body)
    except ValueError as error:
        if answer.body.lstrip().startswith(b"<"):
            raise SourceError("the answer is HTML, not JSON", hint="check `url`; it may be a page for people") from None
        raise SourceError(f"the answer is not JSON: {error}") from None


def _records(document: Any, path: str | None) -> list[Any]:  # noqa: ANN401  (JSON can be anything)
    """The records of an answer. Some APIs write null for an empty list."""
    found = value_at(document, path) if path else document
    if isinstance(found, list):
        return found
    if found is None:
        return []
    parent = document if not path or "." not in path else value_at(document, path.rpartition(".")[0])
    keys = [key for key, value in parent.items() if isinstance(value, list)] if isinstance(parent, dict) else []
    what = (
        f"has no {path!r} (`records`)"
        if found is MISSING
        else "is not a list"
        if not path
        else f"has no list at {path!r}"
    )
    raise SourceError(
        f"the answer {what}", hint=f"say where its records are; lists there: {', '.join(keys[:20]) or 'none'}"
    )


def _looks(records: list[Any]) -> tuple[int, str, str] | None:
    """What tells a page from others: how many records it has, its first and its last one."""
    return (len(records), repr(records[0]), repr(records[-1])) if records else None


def _check_new(what: object, seen: set[int], page: Page) -> None:
    """Hashes are kept, not pages: there may be millions."""
    if hash(what) in seen:
        raise SourceError(
            f"{page.answer.url}, page {page.number}: the page repeats one that was read before, so it would never end",
            hint="check `pagination`: is its parameter the API's?",
        )
    seen.add(hash(what))
