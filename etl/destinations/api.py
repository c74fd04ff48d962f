"""An API that rows are sent to, as JSON. State and quarantine are in the project's warehouse.

What was sent cannot be taken back, so nothing is published together here. The state is committed after everything was
acknowledged; a run that dies before sends the same requests again, with the same idempotency keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import orjson
import pyarrow as pa

from errors import DestinationError, IntegrationError
from etl.client import Address, inserts, open_client, param
from etl.destinations.beside import Beside, BesideLoad, Run
from etl.destinations.objects import check_columns, json_object, json_values, not_numbers
from etl.destinations.warehouse import Transaction, open_warehouse
from etl.nested import dump
from etl.overlap import several
from etl.paths import value_at
from etl.pipeline import ApiDestination, shown_url
from etl.stream import Broken, Loaded, Refused
from integrations.calls import idempotency_key
from integrations.http import Response
from settings import get_settings

_NOT_THE_ROWS = {401, 402, 403, 405, 407, 408, 425, 429}
"""Statuses of 400 and above that say something about the caller, the address or the moment, not about the row."""

_SHOWN = 500
"""Characters of an answer that the quarantine keeps."""

_SLICE = 1000
"""Rows that are JSON at a time: as Python's objects they take some ten times their bytes."""


class EndpointDestination(Beside):
    """`Destination` and `Expecting`: an API's endpoint.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.
    """

    def __init__(self, pipeline: str, declared: ApiDestination) -> None:
        super().__init__(pipeline, open_warehouse(get_settings().warehouse_url))
        self._declared = declared
        self.label = f"{declared.method} {shown_url(declared.url)}"

    def columns(self) -> None:
        """See `Destination.columns`: any name goes."""

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> EndpointLoad:
        """See `Destination.begin`.

        Raises:
            PivotalError: A `${NAME}` has no value.
        """
        run = self._run(run_id, replayed, expired)
        return EndpointLoad(self._warehouse.transaction(), self._declared, run)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row to be sent.

    Args:
        place: Where it stands in the rows that were given.
        url: Where it goes.
        text: The row as a JSON object.
        identity: What tells it from others.
    """

    place: int
    url: str
    text: bytes
    identity: bytes


class EndpointLoad(BesideLoad):
    """`Load`: requests, one after the other or some at a time."""

    def __init__(self, transaction: Transaction, declared: ApiDestination, run: Run) -> None:
        super().__init__(transaction, run)
        self._declared = declared
        self._url = Address(declared.url)
        self._client = open_client(declared, self._url.start)
        self._params = {name: param(value) for name, value in declared.params.items()}
        accepted = {404, 410} if self._url.names else set()
        self._accept = {*range(400, 500)} - _NOT_THE_ROWS - ({404, 410} - accepted)
        self._sent = self._refused = 0

    def write(self, rows: pa.RecordBatch) -> Sequence[Refused]:
        """See `Load.write`.

        Raises:
            DestinationError: The API cannot be reached, or refuses the caller and not a row; or the rows lack a column
                that the pipeline names.
        """
        check_columns(rows, {**dict.fromkeys(self._url.names, "url"), **dict.fromkeys(self._declared.key, "key")})
        refused: list[Refused] = []
        requests = _batches(self._rows(rows, refused), self._declared.batch or 1)
        for some in several(self._send, requests, self._declared.concurrency):
            refused += some
        self._refused += len(refused)
        self._sent += rows.num_rows - len(refused)
        return sorted(refused, key=lambda one: one.place)

    def loaded(self) -> Loaded:
        """See `Load.loaded`: what was acknowledged was, as far as anybody can tell, inserted."""
        return Loaded(inserted=self._sent, refused=self._refused)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        super().__exit__(kind, error, trace)

    # --- rows become requests

    def _rows(self, rows: pa.RecordBatch, refused: list[Refused]) -> Iterator[_Row]:
        """The rows that a request can be made of; the others are added to `refused`."""
        for start in range(0, rows.num_rows, _SLICE):
            some = rows.slice(start, _SLICE)
            values, broken = json_values(some), self._unsendable(some)
            in_url = [inserts(values[name]) for name in self._url.names]
            for index, row in enumerate(zip(*values.values(), strict=True)):
                if index in broken:
                    refused.append(Refused(start + index, broken[index]))
                else:
                    url = self._url.filled([column[index] for column in in_url])
                    yield self._row(start + index, url, dict(zip(values, row, strict=True)))

    def _unsendable(self, rows: pa.RecordBatch) -> dict[int, Broken]:
        """Rows that no request can be made of."""
        broken = {
            place: Broken(name, "destination: json", "JSON has no NaN and no infinity")
            for place, name in not_numbers(rows)
        }
        for name in self._url.names:
            values = json_values(rows.select([name]))[name]
            for place, text in enumerate(inserts(values)):
                if not text:
                    broken[place] = Broken(name, "destination: url", f"{values[place]!r} cannot be a part of `url`")
        return broken

    def _row(self, place: int, url: str, record: dict[str, Any]) -> _Row:
        text = json_object(record)
        key = {name: record[name] for name in self._declared.key}
        return _Row(place, url, text, json_object(key) if key else text)

    def _send(self, rows: Sequence[_Row]) -> list[Refused]:
        """Sends rows in one request; if it is refused, in two with half of them each, until the bad ones are found."""
        answer = self._request(rows)
        if answer.status < 300:
            return self._not_taken(answer, rows)
        if answer.status < 400:
            raise DestinationError(f"{answer.url}: answered {answer.status} {answer.reason}", hint="check `url`")
        if len(rows) > 1:
            half = len(rows) // 2
            return [*self._send(rows[:half]), *self._send(rows[half:])]
        said = " ".join(answer.body[:_SHOWN].decode(errors="replace").split())
        return [self._answered(rows[0], f"{answer.status} {answer.reason}: {said}")]

    def _request(self, rows: Sequence[_Row]) -> Response:
        declared = self._declared
        name = f"{self._run.pipeline}: {declared.method} {declared.url}"
        key = idempotency_key(name, b"\n".join(row.identity for row in rows).decode())
        try:
            return self._client.request(
                declared.method,
                rows[0].url,
                params=self._params,
                content=_body(rows, declared),
                headers={"Content-Type": "application/json", declared.idempotency_header: key},
                repeatable=True,
                accept=self._accept,
            )
        except IntegrationError as error:
            raise DestinationError(error.message, hint=error.hint, retryable=error.retryable) from error

    # --- what the API says

    def _not_taken(self, answer: Response, rows: Sequence[_Row]) -> list[Refused]:
        """The rows of a batch which the API says it did not take, though it took the batch."""
        errors = self._declared.errors
        if errors is None:
            if answer.status == 207:
                raise DestinationError(
                    f"{answer.url}: answered 207: some rows may not have been taken",
                    hint="say where the answer tells which: `errors: {path: ..., index: ...}`",
                )
            return []
        try:
            found = value_at(answer.data, errors.path)
            listed = found if isinstance(found, list) else []
            return [
                self._answered(rows[_place(value_at(item, errors.index), rows)], dump(item) or "null")
                for item in listed
            ]
        except ValueError as error:
            raise DestinationError(
                f"{answer.url}: the answer does not say which rows were not taken: {error}",
                hint="check `errors`",
            ) from None

    def _answered(self, row: _Row, said: str) -> Refused:
        message = self._client.without_secrets(f"answered {said}")[:_SHOWN]
        return Refused(row.place, Broken("", "destination: api", message))


def _batches(rows: Iterator[_Row], size: int) -> Iterator[Sequence[_Row]]:
    waiting: list[_Row] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _body(rows: Sequence[_Row], declared: ApiDestination) -> bytes:
    if declared.batch is None:
        return rows[0].text
    listed = b"[" + b",".join(row.text for row in rows) + b"]"
    return listed if declared.records is None else b"{" + orjson.dumps(declared.records) + b":" + listed + b"}"


def _place(index: object, rows: Sequence[_Row]) -> int:
    if not isinstance(index, int) or not 0 <= index < len(rows):
        raise ValueError(f"{index!r} is no place in a batch of {len(rows)}")
    return index
