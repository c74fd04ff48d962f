"""Lists that each belong to a record of another list: the invoices of every customer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from errors import SourceError
from etl.client import Address, inserts, param
from etl.overlap import several
from etl.paths import value_at
from etl.pipeline import ApiSource, ForEach, shown_url
from etl.sources.listing import Listing, Page
from etl.sources.pages import Request, first
from etl.variables import resolve
from integrations.http import Response, same_origin

Fields = Mapping[str, Any]


def child_pages(
    source: ApiSource, parents: ForEach, address: Address, request: Callable[[str], Request], listing: Listing
) -> Iterator[Page]:
    """The pages of all lists, one list after the other; the first pages of several are asked for at a time.

    Every record gets, as an object, the fields of its parent that the address names.

    Args:
        source: What the pipeline file says.
        parents: What it says of the other list.
        address: Of a list.
        request: What is asked for at an address.
        listing: How to read a list.

    Raises:
        SourceError: A page cannot be read, a parent lacks a field, or a record has a field of that name already.
    """

    def begin(parent: Fields) -> tuple[Fields, Request, Response]:
        asked = first(source.pagination, request(address.filled(inserts(parent.values()))))
        return parent, asked, listing.ask(asked)

    found = _parents(parents, address, listing)
    for parent, asked, answer in several(begin, found, source.concurrency):
        fields = {name.replace(".", "_"): value for name, value in parent.items()}
        for page in listing.pages(asked, answer=answer):
            yield replace(page, records=[_child(record, parents.as_, fields, page) for record in page.records])


def _parents(parents: ForEach, address: Address, child: Listing) -> Iterator[Fields]:
    """What the address names of each parent."""
    url = resolve(parents.url)
    if not same_origin(url, address.start):
        raise SourceError(
            f"the list that `for_each` reads is on another server: {shown_url(parents.url)}",
            hint="credentials are sent to one server only",
        )
    listing = child.of(parents.records, parents.pagination)
    params = {name: param(value) for name, value in parents.params.items()}
    for page in listing.pages(first(parents.pagination, Request(url, params))):
        for index, record in enumerate(page.records):
            fields = {name: value_at(record, name) for name in address.names}
            for name, text in zip(fields, inserts(fields.values()), strict=True):
                if not text:
                    raise SourceError(
                        f"{page.answer.url}, page {page.number}: record {index} has no {name!r} to put into `url`",
                        hint=f"its fields: {', '.join(list(record)[:20])}" if isinstance(record, dict) else None,
                    )
            yield fields


def _child(record: Any, name: str, parent: Fields, page: Page) -> Any:  # noqa: ANN401  (JSON can be anything)
    if not isinstance(record, dict):
        return record
    if name in record:
        raise SourceError(
            f"{page.answer.url}, page {page.number}: a record has a field {name!r} of its own",
            hint="give the parent's fields another name: `as: ...`",
        )
    record[name] = parent
    return record
