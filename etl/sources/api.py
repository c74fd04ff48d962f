"""JSON over HTTP: pages of records, as typed columns with exact numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from errors import IntegrationError, SourceError
from etl.incremental import Cursor, Edge, earlier, start_text
from etl.nested import Shape, dump, parse, without_collector
from etl.paths import MISSING, value_at
from etl.pipeline import ApiKeyAuth, ApiSource, BasicAuth, BearerAuth, shown_url
from etl.sources.pages import Answer, Request, first, following
from etl.stream import BadRow, Batch, Broken, Origin, State
from etl.variables import resolve
from integrations.http import Credential, HttpClient, Response

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
        self._source = source
        self._shape = Shape()
        before = (state or {}).get("cursor")
        incremental = source.incremental
        self._before = before if isinstance(before, str) and incremental else None
        self._cursor = Cursor(incremental.cursor, incremental.lag, self._before) if incremental else None
        self._edge = Edge(state) if once and incremental else None
        self._url = resolve(source.url)
        self._client = _client(source, self._url)

    def __iter__(self) -> Iterator[Batch]:
        waiting = _Records()
        for page, (answer, records) in enumerate(self._pages(), 1):
            if records:
                waiting.add(records, answer.url, page)
                waiting.size += len(answer.body)
            self.bytes_read += len(answer.body)
            if waiting.size >= _CHUNK:
                yield self._batch(waiting)
                waiting = _Records()
        if waiting.size:
            yield self._batch(waiting)

    def state(self) -> State | None:
        """The newest cursor, and the records at its edge."""
        if not self._cursor:
            return None
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
        return self._edge.sift(batch, order, self._cursor.least()) if self._edge else batch

    def _pages(self) -> Iterator[tuple[Response, list[Any]]]:
        pagination = self._source.pagination
        request: Request | None = first(pagination, Request(self._url, self._params()))
        asked: set[object] = set()
        answered: set[object] = set()
        page = 1
        while request:
            answer = self._asked(request, page)
            try:
                document = _parsed(answer)
                records = _records(document, self._source.records)
                _check_new((request.url, *sorted(request.params.items())), asked)
                _check_new(_looks(records) or page, answered)
                following_request = following(pagination, request, Answer(document, records, answer.links))
            except SourceError as error:
                raise SourceError(f"{answer.url}, page {page}: {error.message}", hint=error.hint) from None
            yield answer, records
            request, page = following_request, page + 1

    def _asked(self, request: Request, page: int) -> Response:
        try:
            answer = self._client.get(request.url, operation=f"page {page}", params=request.params)
        except IntegrationError as error:
            raise SourceError(f"page {page}: {error.message}", hint=error.hint, retryable=error.retryable) from error
        if self._cursor and not self._cursor.began:
            self._cursor.began = _date(answer)
        return answer

    def _params(self) -> dict[str, str]:
        params = {name: _param(value) for name, value in self._source.params.items()}
        incremental = self._source.incremental
        if incremental and self._before is not None:
            params[incremental.param] = earlier(self._before, incremental.lag)
        elif incremental and incremental.start is not None:
            params[incremental.param] = start_text(incremental.start)
        return params


def _client(source: ApiSource, url: str) -> HttpClient:
    headers = {name: resolve(value) for name, value in source.headers.items()}
    texts = [*source.headers.values(), *(value for value in source.params.values() if isinstance(value, str))]
    credential: Credential | None = None
    match source.auth:
        case BearerAuth(token=token):
            credential = Credential.bearer(resolve(token))
        case BasicAuth(username=username, password=password):
            credential = Credential.basic(resolve(username), resolve(password))
        case ApiKeyAuth(key=key, header=header):
            credential = Credential.api_key(resolve(key), header)
    secrets = [resolve(text) for text in texts if "${" in text]
    return HttpClient(url, service="api", headers=headers, credential=credential, secrets=secrets)


def _param(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else resolve(str(value))


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


def _check_new(what: object, seen: set[object]) -> None:
    if what in seen:
        raise SourceError(
            "the page repeats one that was read before, so there would be no end",
            hint="check `pagination`: is its parameter the API's?",
        )
    seen.add(what)


def _date(answer: Response) -> datetime:
    """When the service answered, by its own clock."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _origin(url: str, page: int, index: int) -> Origin:
    return {"url": url, "page": page, "index": index}
