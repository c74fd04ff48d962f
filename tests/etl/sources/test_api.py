from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from errors import PivotalError, SourceError
from etl import client
from etl.nested import flatten
from etl.pipeline import Pipeline, Transform
from etl.run import run_pipeline
from etl.sources import api
from integrations.calls import RetryBudget
from tests.etl.sources.reading import read, source_of
from tests.integrations.web import Asked, Reply, Web

RECORDS = [{"id": number, "name": f"customer {number}"} for number in range(1, 8)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BUDGET", RetryBudget(attempts=2, first_wait=0.001, longest_wait=1.0))


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


def test_a_cursor_in_a_header_is_followed(web: Web) -> None:
    web.replies([Reply([{"id": 1}], headers={"X-Next": "b"}), Reply([{"id": 2}])])
    assert read(source(web, pagination={"type": "cursor", "param": "after", "header": "X-Next"})).column("id") == [1, 2]
    assert [request.params for request in web.asked] == [{}, {"after": "b"}]


@pytest.mark.parametrize(
    ("pagination", "wrap", "bodies"),
    [
        (
            {"type": "page", "in": "body"},
            lambda page, _: page,
            [{"size": 3, "page": page} for page in (1, 2, 3, 4)],
        ),
        (
            {"type": "offset", "in": "body", "limit": 3},
            lambda page, _: page,
            [{"size": 3, "limit": 3, "offset": at} for at in (0, 3, 6, 7)],
        ),
        (
            {"type": "cursor", "in": "body", "param": "after", "path": "next"},
            lambda page, end: {"data": page, "next": end if end < 7 else None},
            [{"size": 3}, {"size": 3, "after": 3}, {"size": 3, "after": 6}],
        ),
    ],
)
def test_a_post_is_sent_with_its_body_and_the_pagination_in_it(
    web: Web, pagination: dict[str, Any], wrap: Callable[[list[Any], int], Any], bodies: list[Any]
) -> None:
    def answer(asked: Asked) -> Reply:
        said = json.loads(asked.body)
        start = said.get("after") or said.get("offset") or (said.get("page", 1) - 1) * 3
        return Reply(wrap(RECORDS[start : start + 3], start + 3))

    web.answer = answer
    records = {"records": "data"} if pagination["type"] == "cursor" else {}
    assert read(source(web, body={"size": 3}, pagination=pagination, **records)).rows == RECORDS
    assert [json.loads(request.body) for request in web.asked] == bodies
    assert {(request.method, request.headers["content-type"]) for request in web.asked} == {
        ("POST", "application/json")
    }


def test_a_parameter_may_stand_deep_in_the_body_and_keeps_what_is_beside_it(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    web.replies([Reply({"data": [{"id": 1}], "next": "b"}), Reply(status=400)])
    body = {"query": "{ orders }", "variables": {"size": 3, "key": "${API_SECRET}"}}
    pagination = {"type": "cursor", "in": "body", "param": "variables.after", "path": "next"}
    with pytest.raises(SourceError) as caught:
        read(source(web, body=body, records="data", pagination=pagination))
    assert json.loads(web.asked[1].body) == {
        "query": "{ orders }",
        "variables": {"size": 3, "key": "s3cret", "after": "b"},
    }
    assert "s3cret" not in str(caught.value)


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


def test_a_key_in_the_query_is_sent_with_every_page_and_shows_nowhere(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    web.replies([Reply([{"id": 1}], headers={"Link": '</customers?p=2&appid=s3cret>; rel="next"'}), Reply([{"id": 2}])])
    auth = {"type": "api_key", "key": "${API_SECRET}", "param": "appid"}
    result = read(source(web, auth=auth, pagination={"type": "link"}))
    assert [request.params for request in web.asked] == [{"appid": "s3cret"}, {"p": "2", "appid": "s3cret"}]
    assert result.origins[1]["url"] == f"{web.url}/customers?p=2&appid=***"
    web.replies([Reply(status=403)])
    with pytest.raises(SourceError) as caught:
        read(source(web, auth=auth))
    assert "s3cret" not in str(caught.value)


def test_a_token_is_fetched_sent_and_renewed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    given: list[str] = []

    def answer(asked: Asked) -> Reply:
        if asked.path == "/token":
            given.append(asked.body.decode())
            return Reply({"access_token": f"t0ken{len(given)}"})
        if asked.params["page"] == "2" and asked.headers["authorization"] == "Bearer t0ken1":
            return Reply(status=401)
        return Reply([{"id": int(asked.params["page"])}] if asked.params["page"] < "4" else [])

    web.answer = answer
    auth = {"type": "oauth2", "token_url": f"{web.url}/token", "client_id": "ada", "client_secret": "${API_SECRET}"}
    result = read(source(web, auth={**auth, "scope": "read"}, pagination={"type": "page"}))
    assert result.column("id") == [1, 2, 3]
    assert given == ["grant_type=client_credentials&scope=read"] * 2
    web.answer = lambda _: Reply({"error": "invalid_client"}, status=401)
    with pytest.raises(SourceError, match="/token: invalid_client") as caught:
        read(source(web, auth=auth))
    assert "s3cret" not in str(caught.value)


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
        (Reply(b'[{"a":"\xff\xfe"}]'), {}, "the answer is not JSON: invalid unicode", None),
        (Reply(b'[{"a":1}]', headers={"Content-Encoding": "gzip"}), {}, "decoding error", None),
        (
            Reply([{"id": 1}], headers={"Link": '<http://[bad>; rel="next"'}),
            {"pagination": {"type": "link"}},
            "the next page is on another server",
            "check `url`",
        ),
        (
            Reply({"data": [{"id": 1}], "next": "http://\x00/"}),
            {"records": "data", "pagination": {"type": "link", "path": "next"}},
            "the next page's address cannot be read",
            "check `pagination`",
        ),
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
    assert "page 1" in caught.value.message or "page 2" in caught.value.message
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


def test_a_redirect_to_another_host_gets_no_credential(web: Web) -> None:
    other = Web()
    try:
        other.answer = lambda _: Reply(status=401)
        web.replies([Reply(status=302, headers={"Location": f"{other.url}/customers"})])
        with pytest.raises(SourceError, match="answered 401"):
            read(source(web, auth={"type": "bearer", "token": "t0ken"}))
        assert "authorization" not in other.asked[0].headers
    finally:
        other.stop()


def test_a_body_that_is_cut_off_is_asked_for_again_and_then_told(web: Web) -> None:
    web.replies([Reply(b'[{"id": 1}', promised=5), Reply([{"id": 1}])])
    assert read(source(web)).column("id") == [1]
    web.replies([Reply(b'[{"id": 1}', promised=5)])
    with pytest.raises(SourceError, match=r"page 1: .*closed connection without sending complete") as caught:
        read(source(web))
    assert caught.value.retryable


def test_an_answer_that_is_too_large_is_not_read_to_its_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LIMITS", client.LIMITS.__class__(size=10))
    web.replies([Reply(RECORDS)])
    with pytest.raises(SourceError, match="the answer has over 10 bytes") as caught:
        read(source(web))
    assert "smaller pages" in str(caught.value)


def test_a_rate_limit_by_the_minute_is_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real budget
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    web.replies(
        [
            Reply(status=429, headers={"Retry-After": "60"}),
            Reply([{"id": 1}], headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "59"}),
            Reply([]),
        ]
    )
    assert read(source(web, pagination={"type": "page"})).column("id") == [1]
    assert [round(pause) for pause in pauses if pause > 1] == [60, 59]
    web.replies([Reply(status=429, headers={"Retry-After": "3600"})])
    with pytest.raises(SourceError, match="asks to wait 3600 s"):
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


def test_the_cursor_may_be_sent_in_the_body(web: Web) -> None:
    web.replies([Reply([{"id": 1, "at": 1000}])])
    incremental = {"cursor": "at", "param": "filter.since", "in": "body", "start": 500}
    declared = source(web, body={"filter": {"kind": "paid"}}, incremental=incremental)
    read(declared, read(declared).state)
    assert [json.loads(asked.body)["filter"] for asked in web.asked] == [
        {"kind": "paid", "since": 500},
        {"kind": "paid", "since": 1000},
    ]


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


# --- lists of lists ---------------------------------------------------------------------------------------------

INVOICES: dict[int, list[dict[str, Any]]] = {
    1: [{"no": 11}, {"no": 12}, {"no": 13}],
    2: [],
    3: [{"no": 31, "at": "2024-01-02T00:00:00Z"}],
}


def shop(web: Web, *, page: int = 2) -> None:
    """Customers, each with a list of invoices, all in pages."""

    customers: list[dict[str, Any]] = [{"id": number, "address": {"zip": "?/"}} for number in INVOICES]

    def answer(asked: Asked) -> Reply:
        parts = asked.path.split("/")
        records = INVOICES[int(parts[2])] if len(parts) == 4 else customers
        start = int(asked.params.get("offset", 0))
        return Reply({"data": records[start : start + page]})

    web.answer = answer


def invoices(web: Web, **options: Any) -> dict[str, Any]:
    pages = {"type": "offset", "limit": 2}
    parent = {"url": f"{web.url}/customers", "records": "data", "pagination": pages, "as": "customer"}
    return {
        "type": "api",
        "url": f"{web.url}/customers/{{id}}/invoices",
        "records": "data",
        "pagination": pages,
        "for_each": parent,
        **options,
    }


@pytest.mark.parametrize("concurrency", [1, 4])
def test_each_records_own_list_is_read_and_says_whose_it_is(web: Web, concurrency: int) -> None:
    shop(web)
    result = read(invoices(web, concurrency=concurrency))
    assert [(row["customer"]["id"], row["no"]) for row in result.rows] == [(1, 11), (1, 12), (1, 13), (3, 31)]
    assert result.origins[2] == {"url": f"{web.url}/customers/1/invoices?limit=2&offset=2", "page": 2, "index": 0}
    asked = [(request.path, request.params.get("offset")) for request in web.asked]
    assert len(asked) == len(set(asked)) == 3 + 6


def test_what_a_parent_puts_into_the_address_stays_in_its_place(web: Web) -> None:
    shop(web)
    web_answer = web.answer
    web.answer = lambda asked: web_answer(asked) if asked.path == "/customers" else Reply({"data": [{"no": 1}]})
    pages = {"pagination": None, "url": f"{web.url}/zip/{{address.zip}}/{{id}}"}
    result = read(invoices(web, **pages))
    assert [row["customer"] for row in result.rows] == [{"address_zip": "?/", "id": n} for n in (1, 2, 3)]
    assert "/zip/%3F%2F/1" in [request.path for request in web.asked]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "{web}/customers/{code}/invoices"}, "record 0 has no 'code' to put into `url`"),
        ({"as": "no"}, "a record has a field 'no' of its own"),
        ({"parent": "http://127.0.0.1:1/customers"}, "is on another server"),
    ],
)
def test_a_list_of_lists_that_cannot_be_read_says_why(web: Web, options: dict[str, str], message: str) -> None:
    shop(web)
    declared = invoices(web)
    declared["url"] = options.get("url", declared["url"]).replace("{web}", web.url)
    declared["for_each"] |= {"as": options.get("as", "customer"), "url": options.get("parent", f"{web.url}/customers")}
    with pytest.raises(SourceError, match=message):
        read(declared)


def test_a_time_is_a_cursor_over_all_lists_and_a_number_is_none(web: Web) -> None:
    shop(web)
    result = read(invoices(web, incremental={"cursor": "at", "param": "since"}))
    assert result.state is not None
    assert result.state["cursor"] == "2024-01-02T00:00:00Z"
    web.asked.clear()
    again = read(invoices(web, incremental={"cursor": "at", "param": "since"}), result.state)
    assert {request.params.get("since") for request in web.asked} == {None, "2024-01-02T00:00:00Z"}
    assert [row["no"] for row in again.rows] == []
    with pytest.raises(SourceError, match="the cursor must be a time"):
        read(invoices(web, incremental={"cursor": "no", "param": "since"}))


# --- several at a time ------------------------------------------------------------------------------------------


def slowly(web: Web, answer: Callable[[Asked], Reply], together: int) -> None:
    """An API that answers each request after the first only when so many are under way."""
    barrier = threading.Barrier(together, timeout=20)

    def waiting(asked: Asked) -> Reply:
        if asked.params.get("page", "1") != "1" and int(asked.params["page"]) <= 1 + 2 * together:
            barrier.wait()
        return answer(asked)

    web.answer = waiting


def test_pages_are_asked_for_at_the_same_time_and_read_in_order(web: Web) -> None:
    records = [{"id": number} for number in range(20)]
    slowly(web, pages_of(records, 2, lambda page, _: page), together=4)
    result = read(source(web, pagination={"type": "page"}, concurrency=4))
    assert result.rows == records
    assert len(web.asked) <= 11 + 3


def test_pages_that_are_shorter_than_they_should_be_lose_nothing(web: Web) -> None:
    records = [{"id": number} for number in range(20)]
    web.answer = pages_of(records, 3, lambda page, _: page)
    assert read(source(web, pagination={"type": "offset", "limit": 5}, concurrency=4)).rows == records


def test_what_lies_behind_the_end_may_fail(web: Web) -> None:
    answer = pages_of(RECORDS, 2, lambda page, _: page)
    web.answer = lambda asked: Reply(status=404) if int(asked.params["page"]) > 5 else answer(asked)
    assert read(source(web, pagination={"type": "page"}, concurrency=4)).rows == RECORDS
    web.answer = lambda asked: Reply(status=404) if int(asked.params["page"]) > 2 else answer(asked)
    with pytest.raises(SourceError, match=r"page 3: .*answered 404"):
        read(source(web, pagination={"type": "page"}, concurrency=4))


# --- nothing new ------------------------------------------------------------------------------------------------


def test_an_answer_that_has_not_changed_has_no_rows(web: Web) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == '"v1"':
            return Reply(status=304, headers={"ETag": '"v1"'})
        return Reply(RECORDS, headers={"ETag": '"v1"'})

    web.answer = answer
    conditional = source(web, conditional=True)
    first = read(conditional)
    second = read(conditional, first.state)
    third = read(conditional, second.state)
    assert [len(each.rows) for each in (first, second, third)] == [7, 0, 0]
    assert len(read(source(web, conditional=True, params={"all": True}), third.state).rows) == 7
    web.replies([Reply(RECORDS)])
    assert read(conditional, third.state).state == {}


# --- a page that fails ------------------------------------------------------------------------------------------


def loading(web: Web, write: str = "append", **options: Any) -> Pipeline:
    declared = source(web, **{"pagination": {"type": "page"}, "resume": True, **options})
    destination = {"type": "database", "connection": "duckdb:///warehouse.duckdb", "table": "t", "write": write}
    keys = {"key": ["id"]} if write == "merge" else {}
    return Pipeline.model_validate(
        {"name": "customers", "description": "d", "source": declared, "destination": {**destination, **keys}}
    )


def loaded(project: Path) -> list[int]:
    with duckdb.connect(project / "warehouse.duckdb", read_only=True) as connection:
        return [row[0] for row in connection.sql("SELECT id FROM t ORDER BY id").fetchall()]


PLACES = [
    ({"pagination": {"type": "page"}}, lambda page, _: page, {"page": "2"}, {"page": "3"}),
    ({"pagination": {"type": "offset", "limit": 2}}, lambda page, _: page, {"offset": "2"}, {"offset": "4"}),
    (
        {"pagination": {"type": "cursor", "param": "after", "path": "next"}, "records": "data"},
        lambda page, end: {"data": page, "next": end if end < 7 else None},
        {"after": "2"},
        {"after": "4"},
    ),
    (
        {"pagination": {"type": "link", "path": "next"}, "records": "data"},
        lambda page, end: {"data": page, "next": f"/customers?after={end}" if end < 7 else None},
        {"after": "2"},
        {"after": "4"},
    ),
]


@pytest.mark.parametrize(("options", "wrap", "good", "dead"), PLACES)
def test_a_run_goes_on_at_the_page_where_the_last_one_failed(
    web: Web,
    project: Path,
    options: dict[str, Any],
    wrap: Callable[[list[Any], int], Any],
    good: dict[str, str],
    dead: dict[str, str],
) -> None:
    answer = pages_of(RECORDS, 2, wrap)
    web.answer = lambda asked: Reply(status=503) if asked.params.items() >= dead.items() else answer(asked)
    pipeline = loading(web, **options)
    with pytest.raises(SourceError, match=r"page 3: .*answered 503.*the next run goes on there"):
        run_pipeline(pipeline)
    assert loaded(project) == [1, 2, 3, 4]
    with pytest.raises(SourceError, match=r"page 3: .*answered 503"):
        run_pipeline(pipeline)
    web.asked.clear()
    web.answer = answer
    assert run_pipeline(pipeline).inserted == 3
    assert loaded(project) == [1, 2, 3, 4, 5, 6, 7]
    assert web.asked[0].params.items() >= dead.items()
    assert not [asked for asked in web.asked if asked.params.items() >= good.items()]
    assert run_pipeline(pipeline).extracted == 7


def test_the_cursor_moves_when_the_whole_list_has_been_read(web: Web, project: Path) -> None:
    records = [{"id": n, "at": f"2024-01-0{n}T00:00:00Z"} for n in (7, 6, 5, 4, 3, 2, 1)]
    answer = pages_of(records, 2, lambda page, _: page)
    web.answer = lambda asked: Reply(status=503) if asked.params["page"] == "3" else answer(asked)
    pipeline = loading(web, write="merge", incremental={"cursor": "at", "param": "since"})
    with pytest.raises(SourceError):
        run_pipeline(pipeline)
    web.asked.clear()
    web.answer = answer
    report = run_pipeline(pipeline)
    assert [asked.params for asked in web.asked] == [{"page": page} for page in ("3", "4", "5")]
    assert loaded(project) == [1, 2, 3, 4, 5, 6, 7]
    assert report.state_after == {"cursor": "2024-01-07T00:00:00Z"}


def test_rows_that_leave_the_quarantine_in_a_run_that_stops_at_a_page_are_told(
    web: Web, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = Transform.model_validate({"validate": {"id": {"max": 6}}})
    pipeline = loading(web).model_copy(update={"transform": rules, "quarantine_retention": timedelta(0)})
    answer = pages_of(RECORDS, 2, lambda page, _: page)
    web.answer = answer
    assert run_pipeline(pipeline).quarantined == 1
    web.answer = lambda asked: Reply(status=503) if asked.params["page"] == "3" else answer(asked)
    with pytest.raises(SourceError):
        run_pipeline(pipeline)
    assert "pipeline customers: 1 old rows left the quarantine" in caplog.text
    assert len(loaded(project)) == 6 + 4


def test_without_resume_a_page_that_fails_loads_nothing(web: Web, project: Path) -> None:
    answer = pages_of(RECORDS, 2, lambda page, _: page)
    web.answer = lambda asked: Reply(status=503) if asked.params["page"] == "3" else answer(asked)
    with pytest.raises(SourceError, match="page 3"):
        run_pipeline(loading(web, resume=False))
    assert not (project / "warehouse.duckdb").exists()


def test_a_page_that_is_not_known_any_more_can_be_got_past(web: Web, project: Path) -> None:
    answer = pages_of(RECORDS, 2, lambda page, _: page)
    web.answer = lambda asked: Reply(status=503 if asked.params["page"] == "3" else 200, body=answer(asked).body)
    with pytest.raises(SourceError):
        run_pipeline(loading(web))
    web.answer = lambda asked: Reply(status=410) if asked.params["page"] == "3" else answer(asked)
    with pytest.raises(SourceError, match="answered 410") as caught:
        run_pipeline(loading(web))
    assert "--full-refresh" in str(caught.value)
    web.answer = answer
    run_pipeline(loading(web), full_refresh=True)
    assert loaded(project) == [1, 2, 3, 4, 5, 6, 7]


# --- what cannot go together ------------------------------------------------------------------------------------

CURSOR = {"type": "cursor", "param": "after", "path": "next"}
PARENT = {"url": "https://x.example/customers", "as": "customer"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pagination": {"type": "page", "in": "body"}}, "`in: body` without `body`"),
        ({"pagination": {**CURSOR, "header": "X-Next"}}, "`header` beside `path`"),
        ({"pagination": {"type": "cursor", "param": "after"}}, "`path` is missing"),
        ({"concurrency": 4}, "`concurrency` needs pages"),
        ({"concurrency": 4, "pagination": CURSOR}, "`concurrency` needs pages"),
        ({"for_each": PARENT}, "`for_each` without a field"),
        ({"url": "https://x.example/{id}"}, "`{id}` in `url` without `for_each`"),
        ({"conditional": True, "pagination": {"type": "page"}}, "`conditional` beside `pagination`"),
        (
            {"conditional": True, "incremental": {"cursor": "at", "param": "since"}},
            "`conditional` beside `incremental`",
        ),
        ({"resume": True}, "`resume` needs pages"),
        ({"write": "replace", "conditional": True}, "`replace` with `conditional`"),
        ({"write": "replace", "resume": True, "pagination": CURSOR}, "`replace` with `resume`"),
        (
            {"resume": True, "pagination": CURSOR, "incremental": {"cursor": "at", "param": "since"}},
            "`append` with `resume` and `incremental`",
        ),
    ],
)
def test_what_cannot_go_together_is_told_before_anything_runs(web: Web, options: dict[str, Any], message: str) -> None:
    write = options.pop("write", "append") if "write" in options else "append"
    with pytest.raises(ValueError, match=re.escape(message)):
        source_of(source(web, **options), write)
    assert web.asked == []
