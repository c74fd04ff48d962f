from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from errors import PivotalError, SourceError
from etl.nested import flatten
from etl.sources import api
from tests.etl.sources.reading import read, source_of
from tests.integrations.web import Asked, Reply, Web

RECORDS = [{"id": number, "name": f"customer {number}"} for number in range(1, 8)]


def source(web: Web, **options: Any) -> dict[str, Any]:
    return {"type": "api", "url": f"{web.url}/customers", **options}


def pages_of(records: list[Any], size: int, wrap: Callable[[list[Any], int], Any]) -> Callable[[Asked], Reply]:
    """Answers with the page that `page`, `offset` or `after` asks for."""

    def answer(asked: Asked) -> Reply:
        params = asked.params
        start = int(params.get("after") or params.get("offset") or (int(params.get("page", 1)) - 1) * size)
        return Reply(wrap(records[start : start + size], start + size))

    return answer


def test_an_answer_that_is_a_list_is_its_records(web: Web) -> None:
    web.replies([Reply(RECORDS)])
    result = read(source(web))
    assert result.rows == RECORDS
    assert result.origins[6] == {"url": f"{web.url}/customers", "page": 1, "index": 6}
    assert result.bytes_read == len(json.dumps(RECORDS))


def test_numbers_stay_exact(web: Web) -> None:
    web.replies([Reply(b'[{"n": 12345678901234567890}, {"n": 0.1}, {"n": 1.10}]')])
    assert read(source(web)).column("n") == [Decimal(12345678901234567890), Decimal("0.1"), Decimal("1.10")]


def test_nested_objects_are_structs_and_lists_are_json(web: Web) -> None:
    web.replies([Reply({"data": {"items": [{"id": 1, "address": {"city": "Bonn"}, "tags": ["a"]}]}})])
    source_ = source(web, records="data.items")
    assert read(source_).rows == [{"id": 1, "address": {"city": "Bonn"}, "tags": '["a"]'}]
    with closing(source_of(source_).open(None)) as reading:
        batch = next(iter(reading))
    assert flatten(batch.rows).to_pylist() == [{"id": 1, "address_city": "Bonn", "tags": '["a"]'}]


PAGINATIONS: list[tuple[Mapping[str, Any], Callable[[list[Any], int], Any], list[dict[str, str]]]] = [
    (
        {"pagination": {"type": "page"}},
        lambda page, _: page,
        [{"page": "1"}, {"page": "2"}, {"page": "3"}, {"page": "4"}],
    ),
    (
        {"pagination": {"type": "offset", "limit": 3}},
        lambda page, _: page,
        [{"offset": at, "limit": "3"} for at in ("0", "3", "6", "7")],
    ),
    (
        {"pagination": {"type": "cursor", "param": "after", "path": "data.-1.id", "more": "more"}, "records": "data"},
        lambda page, end: {"data": page, "more": end < 7},
        [{}, {"after": "3"}, {"after": "6"}],
    ),
    (
        {"pagination": {"type": "cursor", "param": "after", "path": "next"}, "records": "data"},
        lambda page, end: {"data": page, "next": end if end < 7 else None},
        [{}, {"after": "3"}, {"after": "6"}],
    ),
    (
        {"pagination": {"type": "link", "path": "links.next"}, "records": "data"},
        lambda page, end: {"data": page, "links": {"next": f"/customers?after={end}" if end < 7 else None}},
        [{}, {"after": "3"}, {"after": "6"}],
    ),
]


@pytest.mark.parametrize(("options", "wrap", "asked"), PAGINATIONS)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_every_pagination_reads_each_record_once(
    web: Web,
    monkeypatch: pytest.MonkeyPatch,
    options: Mapping[str, Any],
    wrap: Callable[[list[Any], int], Any],
    asked: list[dict[str, str]],
    chunk: int,
) -> None:
    monkeypatch.setattr(api, "_CHUNK", chunk)
    web.answer = pages_of(RECORDS, 3, wrap)
    result = read(source(web, **options))
    assert result.rows == RECORDS
    assert [(origin["page"], origin["index"]) for origin in result.origins] == [
        (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0),
    ]  # fmt: skip
    assert [request.params for request in web.asked] == asked


def test_the_link_header_is_followed(web: Web) -> None:
    web.replies([Reply([{"id": 1}], headers={"Link": '</customers?p=2>; rel="next"'}), Reply([{"id": 2}])])
    assert read(source(web, pagination={"type": "link"})).column("id") == [1, 2]
    assert web.asked[1].params == {"p": "2"}


def test_a_next_link_to_another_server_is_not_followed(web: Web) -> None:
    web.replies([Reply({"data": [{"id": 1}], "next": "http://evil.example/steal?token=t0ken"})])
    with pytest.raises(SourceError, match="the next page is on another server") as caught:
        read(source(web, records="data", pagination={"type": "link", "path": "next"}))
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": "${API_SECRET}"}, "authorization", "Bearer s3cret"),
        ({"type": "basic", "username": "ada", "password": "${API_SECRET}"}, "authorization", "Basic YWRhOnMzY3JldA=="),
        ({"type": "api_key", "key": "${API_SECRET}"}, "x-api-key", "s3cret"),
        ({"type": "api_key", "key": "${API_SECRET}", "header": "X-Token"}, "x-token", "s3cret"),
    ],
)
def test_credentials_are_sent_with_every_page(
    web: Web, monkeypatch: pytest.MonkeyPatch, auth: dict[str, str], header: str, value: str
) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    web.replies([Reply([{"id": 1}]), Reply([])])
    read(source(web, auth=auth, headers={"Accept-Language": "de"}, pagination={"type": "page"}))
    assert [request.headers[header] for request in web.asked] == [value, value]
    assert web.asked[0].headers["accept-language"] == "de"


def test_a_secret_parameter_shows_neither_in_origins_nor_in_errors(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    options = {"params": {"appid": "${API_SECRET}", "active": True, "limit": 5}}
    web.replies([Reply([{"id": 1}]), Reply(status=404)])
    result = read(source(web, **options))
    assert web.asked[0].params == {"appid": "s3cret", "active": "true", "limit": "5"}
    assert result.origins == [{"url": f"{web.url}/customers?appid=***&active=true&limit=5", "page": 1, "index": 0}]
    with pytest.raises(SourceError, match="answered 404") as caught:
        read(source(web, **options))
    assert "s3cret" not in repr(caught.value) + str(caught.value.__cause__)


def test_what_is_no_object_goes_to_the_quarantine(web: Web) -> None:
    web.replies([Reply(b'[{"id": 1}, [1.10], {"id": 2}]')])
    result = read(source(web))
    assert [(row["id"], origin["index"]) for row, origin in zip(result.rows, result.origins, strict=True)] == [
        (1, 0),
        (2, 2),
    ]
    assert [(row.row, row.types, row.origin["index"]) for row in result.bad] == [({"record": "[1.10]"}, {}, 1)]


def test_the_schema_of_a_run_only_grows(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_CHUNK", 1)
    web.replies([Reply([{"n": 1}]), Reply(b'[{"n": 1.5, "x": "a"}]'), Reply([{"n": 2}]), Reply([])])
    result = read(source(web, pagination={"type": "page"}))
    assert [schema.names for schema in result.schemas] == [["n"], ["n", "x"], ["n", "x"]]
    assert result.rows == [{"n": 1}, {"n": Decimal("1.5"), "x": "a"}, {"n": 2, "x": None}]


def test_an_empty_or_null_list_has_no_records(web: Web) -> None:
    empty: tuple[list[Any] | None, ...] = ([], None)
    for data in empty:
        web.replies([Reply({"data": data})])
        assert read(source(web, records="data")).rows == []


# --- bad answers ------------------------------------------------------------------------------------------------

PAGED = {"records": "data", "pagination": {"type": "cursor", "param": "after", "path": "next"}}


@pytest.mark.parametrize(
    ("reply", "options", "message", "hint"),
    [
        (Reply(b"<html>sorry</html>"), {}, "the answer is HTML, not JSON", "check `url`"),
        (Reply(status=204), {}, "the answer is 204 No Content, without JSON", "check `url`"),
        (Reply(b'{"data": ['), {}, "the answer is not JSON: EOF", None),
        (Reply(b'[{"a":1,"a":2}]'), {}, 'Detected duplicate key "a"', None),
        (Reply(b"[" * 10_000), {}, "recursion limit", None),
        (Reply(b'[{"a":NaN}]'), {}, "the answer is not JSON", None),
        (Reply({"data": [], "total": 0}), {}, "the answer is not a list", "lists there: data"),
        (Reply({"data": [], "total": 0}), {"records": "items"}, "the answer has no 'items'", "lists there: data"),
        (
            Reply({"data": {"rows": []}}),
            {"records": "data.items"},
            "the answer has no 'data.items'",
            "lists there: rows",
        ),
        (Reply({"data": {"rows": []}}), {"records": "data"}, "the answer has no list at 'data'", None),
        (
            Reply({"data": [{"id": 1}], "next": 1}),
            PAGED,
            "the page repeats one that was read before",
            "check `pagination`",
        ),
        (
            Reply([{"id": 1}]),
            {"pagination": {"type": "page"}},
            "the page repeats one that was read before",
            "pagination",
        ),
        (
            Reply({"data": [{"id": 1}], "more": True}),
            {**PAGED, "pagination": {**PAGED["pagination"], "more": "more"}},  # type: ignore[dict-item]
            "more says that there is more, but there is no 'next'",
            "the answer has: data, more",
        ),
        (
            Reply({"data": [{"id": 1}]}),
            {**PAGED, "pagination": {**PAGED["pagination"], "more": "has_more"}},  # type: ignore[dict-item]
            "the answer has no 'has_more'",
            "the answer has: data",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_gives_one_clear_message(
    web: Web, reply: Reply, options: Mapping[str, Any], message: str, hint: str | None
) -> None:
    web.replies([reply])
    with pytest.raises(SourceError) as caught:
        read(source(web, **options))
    assert message in caught.value.message
    assert f"{web.url}/customers" in caught.value.message
    assert ", page " in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


def test_a_refusal_names_the_page_and_the_url(web: Web) -> None:
    web.replies([Reply([{"id": 1}]), Reply(status=403)])
    with pytest.raises(SourceError, match=rf"page 2: api: GET {web.url}/customers\?page=2: answered 403") as caught:
        read(source(web, pagination={"type": "page"}))
    assert not caught.value.retryable


def test_a_redirect_loop_ends(web: Web) -> None:
    web.replies([Reply(status=302, headers={"Location": "/customers"})])
    with pytest.raises(SourceError, match="too many redirects"):
        read(source(web))


def test_a_variable_that_is_not_set_is_told_before_anybody_is_called(web: Web) -> None:
    with pytest.raises(PivotalError, match="NOT_SET_ANYWHERE"):
        read(source(web, headers={"X-Key": "${NOT_SET_ANYWHERE}"}))
    assert web.asked == []


# --- incremental ------------------------------------------------------------------------------------------------


def changes(web: Web, records: list[dict[str, Any]], *, after: Callable[[Any, str], bool]) -> None:
    """An API that answers with the records from `since` on, the edge included."""

    def answer(asked: Asked) -> Reply:
        since = asked.params.get("since")
        return Reply([record for record in records if since is None or after(record["at"], since)])

    web.answer = answer


def test_the_cursor_is_sent_and_records_at_its_edge_are_not_loaded_twice(web: Web) -> None:
    records = [{"id": 1, "at": 1000}, {"id": 2, "at": 2000}]
    changes(web, records, after=lambda at, since: bool(at >= int(since)))
    incremental = source(web, incremental={"cursor": "at", "param": "since", "start": 500})
    first = read(incremental)
    records += [{"id": 3, "at": 2000}, {"id": 4, "at": 3000}]
    second = read(incremental, first.state)
    assert [request.params for request in web.asked] == [{"since": "500"}, {"since": "2000"}]
    assert (first.column("id"), second.column("id"), second.deduplicated) == ([1, 2], [3, 4], 1)
    third = read(incremental, second.state)
    assert (third.column("id"), third.deduplicated) == ([], 1)
    assert read(incremental, second.state, write="merge").column("id") == [4]


def test_lag_is_taken_off_unix_time_and_iso_time(web: Web) -> None:
    for at, since in (
        (1_700_000_000, "1699999400"),
        (1_700_000_000_000, "1699999400000"),
        ("2024-01-01T00:05:00Z", "2023-12-31T23:55:00Z"),
        ("2024-01-01T00:05:00.123+02:00", "2023-12-31T23:55:00.123+02:00"),
    ):
        web.asked.clear()
        web.replies([Reply([{"id": 1, "at": at}])])
        incremental = source(web, incremental={"cursor": "at", "param": "since", "lag": "10m"})
        again = read(incremental, read(incremental).state)
        assert web.asked[1].params == {"since": since}
        assert (again.rows, again.deduplicated) == ([], 1)


def test_a_late_record_within_the_lag_is_loaded_once(web: Web) -> None:
    records = [{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-01-01T00:10:00Z"}]
    changes(web, records, after=lambda at, since: bool(at >= since))
    incremental = source(web, incremental={"cursor": "at", "param": "since", "lag": "5m"})
    first = read(incremental)
    records.append({"id": 3, "at": "2024-01-01T00:07:00Z"})
    second = read(incremental, first.state)
    third = read(incremental, second.state)
    assert (second.column("id"), second.deduplicated) == ([3], 1)
    assert (third.column("id"), third.deduplicated) == ([], 2)


def test_the_newest_of_times_in_several_zones_is_the_cursor(web: Web) -> None:
    web.replies([Reply([{"at": "2024-01-01T12:00:00+05:00"}, {"at": "2024-01-01T08:00:00Z"}, {"at": None}])])
    result = read(source(web, incremental={"cursor": "at", "param": "since"}))
    assert (result.state or {})["cursor"] == "2024-01-01T08:00:00Z"


def test_records_that_are_newer_than_the_run_do_not_move_the_cursor(web: Web) -> None:
    """Others like them may have appeared on a page that had been read."""
    began = datetime(2024, 1, 1, 12, tzinfo=UTC)
    at = [(began + timedelta(minutes=minutes)).isoformat() for minutes in (-1, 1)]
    headers = {"Date": format_datetime(began, usegmt=True)}
    incremental = source(web, incremental={"cursor": "at", "param": "since"})
    web.replies([Reply([{"id": 1, "at": at[0]}, {"id": 2, "at": at[1]}], headers=headers)])
    first = read(incremental)
    assert (first.state or {})["cursor"] == at[0]
    again = read(incremental, first.state)
    assert (again.rows, again.deduplicated) == ([], 2)


def test_a_cursor_inside_an_object_is_found(web: Web) -> None:
    web.replies([Reply([{"id": 1, "meta": {"at": 5}}])])
    result = read(source(web, incremental={"cursor": "meta.at", "param": "since"}))
    assert (result.state or {})["cursor"] == "5"


def test_a_run_without_new_records_keeps_the_cursor(web: Web) -> None:
    web.replies([Reply([])])
    incremental = source(web, incremental={"cursor": "at", "param": "since"})
    assert read(incremental, {"cursor": "5"}).state == {"cursor": "5"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": 1}], "no record has the cursor 'at'"),
        ([{"at": True}], "the cursor 'at' is bool"),
        ([{"at": {"a": 1}}], "the cursor 'at' is struct"),
    ],
)
def test_a_cursor_that_cannot_be_one_is_refused(web: Web, records: list[Any], message: str) -> None:
    web.replies([Reply(records)])
    with pytest.raises(SourceError, match=message):
        read(source(web, incremental={"cursor": "at", "param": "since"}))
