"""JSON over HTTP: pages of records, as typed columns with exact numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from errors import SourceError
from etl.client import Address, filled_in, open_client, param
from etl.incremental import Cursor, Edge, earlier, is_number, start_text
from etl.nested import Shape, dump
from etl.pipeline import ApiSource, shown_url
from etl.sources.children import child_pages
from etl.sources.listing import Listing, Page
from etl.sources.pages import Request, at, first, position
from etl.stream import BadRow, Batch, Broken, Origin, State
from integrations.http import Response, clean_url

_CHUNK = 4 << 20  # as Python objects, JSON takes some ten times its bytes


class Api:
    """An HTTP API as a source.

    Args:
        source: What the pipeline file says.
        once: Whether records at the cursor's edge must be left out if the last run read them.
    """

    def __init__(self, source: ApiSource, *, once: bool) -> None:
        self._source = source
        self._once = once
        self.label = f"api {shown_url(source.url)}"

    def columns(self) -> None:
        """Only reading tells."""

    def open(self, state: State | None) -> _Reading:
        """Starts a reading; nobody is called before the first batch is asked for."""
        return _Reading(self._source, state, once=self._once)


@dataclass(slots=True)
class _Records:
    """Records that wait to become a batch.

    Args:
        good: JSON objects.
        places: Where each of them came from: URL, page, index.
        bad: What was no object.
        size: Bytes of JSON.
    """

    good: list[dict[str, Any]] = field(default_factory=list)
    places: list[tuple[str, int, int]] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    size: int = 0

    def add(self, records: list[Any], url: str, page: int) -> None:
        """Takes a page."""
        for index, record in enumerate(records):
            if isinstance(record, dict):
                self.good.append(record)
                self.places.append((url, page, index))
            else:
                broken = Broken("", "source: json", "not a JSON object")
                self.bad.append(BadRow({"record": dump(record)}, {}, [broken], _origin(url, page, index)))

    def origin(self, index: int) -> Origin:
        """Where a good record came from."""
        return _origin(*self.places[index])


class _Reading:
    """One reading of an API (`etl.stream.Extraction`)."""

    def __init__(self, source: ApiSource, state: State | None, *, once: bool) -> None:
        self.bytes_read = 0
        self.stopped: SourceError | None = None
        self._source, self._state = source, state or {}
        self._shape = Shape()
        before, incremental = self._state.get("cursor"), source.incremental
        self._before = before if isinstance(before, str) and incremental else None
        self._cursor = Cursor(incremental.cursor, incremental.lag, self._before) if incremental else None
        self._edge = Edge(state) if once and incremental else None
        self._address = Address(source.url)
        self._client = open_client(source, self._address.start)
        self._reached: tuple[int, Request] | None = None
        self._tag: Mapping[str, object] = {}

    def __iter__(self) -> Iterator[Batch]:
        waiting = _Records()
        with closing(self._as_far_as_it_goes()) as pages:
            for page in pages:
                if page.records:
                    waiting.add(page.records, page.answer.url, page.number)
                    waiting.size += len(page.answer.body)
                self.bytes_read += len(page.answer.body)
                if waiting.size >= _CHUNK:
                    yield self._batch(waiting)
                    waiting = _Records()
        if waiting.size:
            yield self._batch(waiting)

    def state(self) -> State | None:
        """The newest cursor, and the records at its edge; where the next run goes on, if this one had to stop."""
        if self.stopped:
            return {**({} if self._before is None else {"cursor": self._before}), "resume": self._place()}
        if not self._cursor:
            return self._tag if self._source.conditional or self._source.resume else None
        counts = self._edge.counts(self._cursor.least()) if self._edge else {}
        return {"cursor": self._cursor.text, **({"edge": counts} if counts else {})}

    def close(self) -> None:
        """Frees the connections."""
        self._client.close()

    def _batch(self, records: _Records) -> Batch:
        batch = Batch(self._shape.records(records.good), records.origin, bad=records.bad)
        if not self._cursor or not records.good:
            return batch
        order = self._cursor.order(batch.rows)
        if self._source.for_each and order.null_count < len(order) and not self._cursor.counts_time:
            raise SourceError(
                "with `for_each` the cursor must be a time: only a time tells what is new in each of the lists",
                hint="choose another field as `cursor`; if it is Unix time, say so by a `lag`: 10m",
            )
        return self._edge.sift(batch, order, self._cursor.least()) if self._edge else batch

    # --- which pages

    def _pages(self) -> Iterator[Page]:
        source, concurrency = self._source, self._source.concurrency
        if source.for_each:
            listing = Listing(self._client, source.records, source.pagination, self._heard)
            return child_pages(source, source.for_each, self._address, self._request, listing)
        listing = Listing(self._client, source.records, source.pagination, self._heard, concurrency)
        request = self._request(self._address.start)
        if place := self._resumed():
            return listing.pages(at(source.pagination, request, place["at"]), place["page"])
        return listing.pages(first(source.pagination, self._if_changed(request)))

    def _request(self, url: str) -> Request:
        """What is asked for, but for the pagination."""
        source, incremental = self._source, self._source.incremental
        params = {name: param(value) for name, value in source.params.items()}
        request = Request(url, params, filled_in(source.body))
        if not incremental or (self._before is None and incremental.start is None):
            return request
        since = earlier(self._before, incremental.lag) if self._before is not None else start_text(incremental.start)
        as_number = incremental.in_ == "body" and is_number(since)
        return request.having(incremental, incremental.param, Decimal(since) if as_number else since)

    def _heard(self, answer: Response) -> None:
        """The first answer tells when the reading began, by the service's own clock."""
        if self._cursor and not self._cursor.began:
            self._cursor.began = _date(answer)

    # --- nothing new

    def _if_changed(self, request: Request) -> Request:
        """The request, with the condition that there is something new, if the last run asked for the same."""
        if self._source.conditional and self._state.get("of") == self._asked_for:
            self._tag = self._state
            return replace(request, headers={"If-None-Match": str(self._state["etag"])})
        return request

    @property
    def _asked_for(self) -> str:
        said = repr((self._source.url, self._source.params, self._source.headers))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    # --- a page that fails

    def _as_far_as_it_goes(self) -> Generator[Page]:
        """The pages; where the pipeline says `resume`, those before the one that fails."""
        try:
            for page in self._pages():
                if self._source.conditional:
                    tag = page.answer.headers.get("etag")
                    self._tag = {"etag": tag, "of": self._asked_for} if tag else {}
                if self._source.resume and page.following:
                    self._reached = page.number + 1, page.following
                yield page
        except SourceError as error:
            if not self._reached or self._place() is None:
                raise self._stuck(error) from None
            message = f"{error.message}; what was before it is loaded, and the next run goes on there"
            self.stopped = SourceError(message, hint=error.hint, retryable=error.retryable)

    def _place(self) -> State | None:
        """Where to go on; None if that has a secret in it, which is not to be kept."""
        if not self._reached:
            return None
        page, request = self._reached
        place = position(self._source.pagination, request)
        shown = clean_url(request.url) if place == request.url else str(place)
        if "***" in self._client.without_secrets(shown):
            return None
        found = {"by": self._type, "page": page, "at": place}
        if self._cursor:
            began = self._cursor.began.isoformat() if self._cursor.began else None
            found |= {"cursor": self._cursor.text, "began": began}
        return found

    def _resumed(self) -> dict[str, Any] | None:
        """Where the last run stopped; the cursor is then what it was there."""
        place = self._state.get("resume")
        if not self._source.resume or not isinstance(place, dict) or place["by"] != self._type:
            return None
        if self._cursor and place.get("began"):
            self._cursor.text, self._cursor.began = place["cursor"], datetime.fromisoformat(place["began"])
        return place

    @property
    def _type(self) -> str | None:
        return self._source.pagination.type if self._source.pagination else None

    def _stuck(self, error: SourceError) -> SourceError:
        if "resume" not in self._state or error.retryable:
            return error
        hint = "if the API does not know this page any more, read everything again: `pivotal run NAME --full-refresh`"
        return SourceError(error.message, hint=hint)


def _date(answer: Response) -> datetime:
    """When the service answered, by its own clock."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _origin(url: str, page: int, index: int) -> Origin:
    return {"url": url, "page": page, "index": index}
