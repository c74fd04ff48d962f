"""Rows that are sent to an API, by a pipeline's run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import DestinationError, InvalidRowsError, PivotalError
from etl import client
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.stream import RunReport
from integrations.calls import RetryBudget
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

ROWS = [{"id": number, "name": f"customer {number}"} for number in range(1, 6)]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:  # noqa: ARG001  (the warehouse is there)
    monkeypatch.setattr(client, "BUDGET", RetryBudget(attempts=3, first_wait=0.001, longest_wait=1.0))


def pipeline(web: Web, path: str = "/customers", **options: Any) -> Pipeline:
    parts = {name: options.pop(name) for name in ("source", "transform", "on_invalid") if name in options}
    return Pipeline.model_validate(
        {
            "name": "customers",
            "description": "Customers, for the shop",
            "source": {"type": "file", "path": "rows.ndjson"},
            "destination": {"type": "api", "url": f"{web.url}{path}", **options},
            **parts,
        }
    )


def given(project: Path, rows: list[Any]) -> None:
    (project / "rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))


def bodies(web: Web) -> list[Any]:
    return [json.loads(asked.body) for asked in web.asked]


def keys(web: Web, header: str = "idempotency-key") -> list[str]:
    return [asked.headers[header] for asked in web.asked]


def refusing(refused: Callable[[Any], bool], status: int = 422) -> Callable[[Asked], Reply]:
    """Takes a request unless a row in it is refused."""

    def answer(asked: Asked) -> Reply:
        body = json.loads(asked.body)
        rows = body if isinstance(body, list) else body.get("items", [body])
        return Reply({"error": "no such city"}, status=status) if any(map(refused, rows)) else Reply({})

    return answer


def counts(report: RunReport) -> tuple[int, int, int]:
    assert report.balanced
    return report.extracted, report.inserted, report.quarantined


def test_each_row_is_sent_as_an_object_in_order(web: Web, project: Path) -> None:
    given(project, ROWS)
    report = run_pipeline(pipeline(web, params={"version": 2}, headers={"X-Shop": "7"}))
    assert counts(report) == (5, 5, 0)
    assert bodies(web) == ROWS
    asked = web.asked[0]
    assert (asked.method, asked.path, asked.params) == ("POST", "/customers", {"version": "2"})
    assert (asked.headers["content-type"], asked.headers["x-shop"]) == ("application/json", "7")


def test_columns_stand_in_the_address_and_cannot_leave_their_place(web: Web, project: Path) -> None:
    given(
        project, [{"id": "a/../b?c=1", "n": 1}, {"id": "${HOME}", "n": 2}, {"id": None, "n": 3}, {"id": "..", "n": 4}]
    )
    report = run_pipeline(pipeline(web, "/customers/{id}/orders/{n}", method="PUT"))
    assert [(asked.method, asked.path) for asked in web.asked] == [
        ("PUT", "/customers/a%2F..%2Fb%3Fc%3D1/orders/1"),
        ("PUT", "/customers/%24%7BHOME%7D/orders/2"),
    ]
    assert counts(report) == (4, 2, 2)
    assert [bad.broken[0].message for bad in report.rejected] == [
        "None cannot be a part of `url`", "'..' cannot be a part of `url`",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"batch": 2}, [ROWS[:2], ROWS[2:4], ROWS[4:]]),
        ({"batch": 3, "records": "items"}, [{"items": ROWS[:3]}, {"items": ROWS[3:]}]),
        ({"batch": 1}, [[row] for row in ROWS]),
    ],
)
def test_rows_are_sent_in_batches(web: Web, project: Path, options: dict[str, Any], sent: list[Any]) -> None:
    given(project, ROWS)
    assert counts(run_pipeline(pipeline(web, **options))) == (5, 5, 0)
    assert bodies(web) == sent


def test_values_are_sent_exactly(web: Web, project: Path) -> None:
    table = pa.table(
        {
            "big": pa.array([2**63 - 1, None], pa.int64()),
            "amount": pa.array(["12345678901234567890.10", "0.30"]).cast(pa.decimal128(38, 2)),
            "at": pa.array([1_700_000_000_123_456, None], pa.timestamp("us", "Europe/Berlin")),
            "local": pa.array([1_700_000_000_000_000, None], pa.timestamp("us")),
            "day": pa.array([19_000, None], pa.date32()),
            "yes": [True, None],
            "tags": [["a", "b"], None],
            "ratio": [0.1, 2.5],
        }
    )
    pq.write_table(table, project / "rows.parquet")
    rules = {"derive": {"extra": "CAST('{\"a\": [1]}' AS JSON)"}}
    run_pipeline(pipeline(web, source={"type": "file", "path": "rows.parquet"}, transform=rules))
    assert web.asked[0].body == (
        b'{"big":9223372036854775807,"amount":12345678901234567890.10,"at":"2023-11-14T22:13:20.123456Z",'
        b'"local":"2023-11-14T22:13:20.000000","day":"2022-01-08","yes":true,"tags":["a","b"],"ratio":0.1,'
        b'"extra":{"a": [1]}}'
    )
    assert bodies(web)[1]["at"] is None


def test_a_number_that_json_has_not_is_quarantined(web: Web, project: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3], "x": [1.5, float("nan"), None]}), project / "rows.parquet")
    report = run_pipeline(pipeline(web, source={"type": "file", "path": "rows.parquet"}))
    assert counts(report) == (3, 2, 1)
    assert bodies(web) == [{"id": 1, "x": 1.5}, {"id": 3, "x": None}]
    assert [(bad.row["id"], bad.broken[0].column) for bad in report.rejected] == [("2", "x")]


def test_a_type_that_json_has_not_is_named(web: Web, project: Path) -> None:
    pq.write_table(pa.table({"id": [1], "photo": [b"\xff"]}), project / "rows.parquet")
    with pytest.raises(DestinationError, match="the column photo is binary, which JSON cannot say"):
        run_pipeline(pipeline(web, source={"type": "file", "path": "rows.parquet"}))


# --- once, as far as one can ------------------------------------------------------------------------------------


def test_a_request_is_repeated_with_the_same_key(web: Web, project: Path) -> None:
    given(project, ROWS[:1])
    web.replies([Reply(status=503), Reply(status=None), Reply({})])
    assert counts(run_pipeline(pipeline(web))) == (1, 1, 0)
    assert len(web.asked) == 3
    assert len(set(keys(web))) == 1


def test_the_key_is_the_rows_and_not_the_runs(web: Web, project: Path) -> None:
    given(project, ROWS)
    run_pipeline(pipeline(web))
    run_pipeline(pipeline(web))
    first, second = keys(web)[:5], keys(web)[5:]
    assert first == second
    assert len(set(first)) == 5
    given(project, [{**ROWS[0], "name": "Ada"}])
    run_pipeline(pipeline(web))
    assert keys(web)[-1] not in first


def test_a_key_of_columns_stays_when_the_other_columns_change(web: Web, project: Path) -> None:
    for name in ("Ada", "Grace"):
        given(project, [{"id": 1, "name": name}, {"id": 2, "name": name}])
        run_pipeline(pipeline(web, key=["id"], idempotency_header="X-Once"))
    first, second = keys(web, "x-once")[:2], keys(web, "x-once")[2:]
    assert first == second
    assert first[0] != first[1]


def test_a_run_that_stops_half_way_is_repeated_with_the_same_keys_and_keeps_no_state(web: Web, project: Path) -> None:
    given(project, ROWS)
    once = pipeline(web, source={"type": "file", "path": "rows.ndjson", "incremental": True})
    web.answer = lambda asked: Reply(status=503 if json.loads(asked.body)["id"] == 4 else 200)
    with pytest.raises(DestinationError, match="answered 503") as caught:
        run_pipeline(once)
    assert caught.value.retryable
    assert [row["id"] for row in bodies(web)] == [1, 2, 3, 4, 4, 4]
    before = dict(zip([row["id"] for row in bodies(web)], keys(web), strict=True))
    web.asked.clear()
    web.answer = lambda _: Reply({})
    assert counts(run_pipeline(once)) == (5, 5, 0)
    assert {row["id"]: key for row, key in zip(bodies(web), keys(web), strict=True)}.items() >= before.items()
    assert counts(run_pipeline(once)) == (0, 0, 0)


KILLED = """
import os
os.environ["PIVOTAL_ROOT"] = root
from etl.run import run_pipeline
run_pipeline(pipeline)
"""


def test_a_run_that_is_killed_sends_the_same_requests_again(web: Web, project: Path) -> None:
    given(project, [{"id": number} for number in range(30)])
    source = {"type": "file", "path": "rows.ndjson", "incremental": True}
    once = pipeline(web, source=source, concurrency=3)
    processes = multiprocessing.get_context("forkserver")
    for moment in (16, 30):
        web.asked.clear()
        process = processes.Process(target=exec, args=(KILLED, {"pipeline": once, "root": str(project)}))
        web.answer = partial(_kill_at, web, moment, process)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(web.asked) >= moment
    killed = dict(zip(keys(web), bodies(web), strict=True))
    web.answer = lambda _: Reply({})
    assert counts(run_pipeline(once)) == (30, 30, 0)
    sent = dict(zip(keys(web), bodies(web), strict=True))
    assert (len(sent), len(killed)) == (30, 30)
    assert sent == killed
    assert counts(run_pipeline(once)) == (0, 0, 0)


def _kill_at(web: Web, moment: int, process: BaseProcess, _: Asked) -> Reply:
    if len(web.asked) < moment:
        return Reply({})
    assert process.pid
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    return Reply(status=None)


# --- refused ----------------------------------------------------------------------------------------------------


def test_a_row_that_the_api_refuses_is_quarantined_as_it_was_read(web: Web, project: Path) -> None:
    given(project, [{"ID": str(number), "city": "?" if number == 3 else "Bonn"} for number in range(1, 6)])
    rules = {"map": {"ID": "id", "*": "*"}, "convert": {"id": "integer"}, "filter": ["id <> 1"]}
    web.answer = refusing(lambda row: row["city"] == "?")
    declared = pipeline(web, transform=rules)
    report = run_pipeline(declared)
    assert (report.filtered, *counts(report)) == (1, 5, 3, 1)
    waiting = open_destination(declared).quarantined()
    assert [(one.bad.row, one.bad.origin) for one in waiting] == [
        ({"ID": "3", "city": "?"}, {"file": "rows.ndjson", "record": 3})
    ]
    assert waiting[0].bad.broken[0].rule == "destination: api"
    assert waiting[0].bad.broken[0].message == 'answered 422 Unprocessable Entity: {"error": "no such city"}'
    assert list(report.rejected) == [waiting[0].bad]


def test_a_replay_sends_what_was_refused_through_the_rules_once(web: Web, project: Path) -> None:
    given(project, ROWS)
    declared = pipeline(web, transform={"derive": {"double": "id * 2"}})
    web.answer = refusing(lambda row: row["id"] in {2, 4})
    run_pipeline(declared)
    web.asked.clear()
    web.answer = refusing(lambda row: row["id"] == 4)
    report = run_pipeline(declared, replay=True)
    assert counts(report) == (2, 1, 1)
    assert [(row["id"], row["double"]) for row in bodies(web)] == [(2, 4), (4, 8)]
    assert [one.bad.row["id"] for one in open_destination(declared).quarantined()] == ["4"]


def test_a_batch_that_is_refused_is_split_until_the_bad_rows_are_found(web: Web, project: Path) -> None:
    rows = [{"id": number} for number in range(64)]
    given(project, rows)
    taken: list[int] = []
    check = refusing(lambda row: row["id"] in {5, 41})

    def answer(asked: Asked) -> Reply:
        reply = check(asked)
        taken.extend(row["id"] for row in json.loads(asked.body)["items"] if reply.status == 200)
        return reply

    web.answer = answer
    report = run_pipeline(pipeline(web, batch=64, records="items"))
    assert counts(report) == (64, 62, 2)
    assert taken == [number for number in range(64) if number not in {5, 41}]
    assert [bad.row["id"] for bad in report.rejected] == ["5", "41"]
    assert len(web.asked) < 30
    assert len(set(keys(web))) == len(web.asked)


def test_a_batch_that_is_taken_in_part_says_which_rows_were_not(web: Web, project: Path) -> None:
    given(project, ROWS)
    web.replies([Reply({"errors": [{"row": 1, "why": "no"}]}, status=207), Reply({"errors": []}), Reply({})])
    report = run_pipeline(pipeline(web, batch=2, errors={"path": "errors", "index": "row"}))
    assert counts(report) == (5, 4, 1)
    assert [(bad.row["id"], bad.broken[0].message) for bad in report.rejected] == [
        ("2", 'answered {"row":1,"why":"no"}')
    ]


@pytest.mark.parametrize(
    ("reply", "options", "message"),
    [
        (
            Reply({"errors": [{"index": 9}]}),
            {"batch": 2, "errors": {"path": "errors"}},
            "9 is no place in a batch of 2",
        ),
        (Reply(b"<html>"), {"batch": 2, "errors": {"path": "errors"}}, "does not say which rows were not taken"),
        (Reply({}, status=207), {"batch": 2}, "some rows may not have been taken"),
        (Reply(status=401), {}, "answered 401"),
        (Reply(status=403), {}, "answered 403"),
        (Reply(status=404), {}, "answered 404"),
        (Reply(status=405), {}, "answered 405"),
        (Reply(status=304), {}, "answered 304"),
        (Reply(status=429), {}, "answered 429"),
        (Reply(status=301, headers={"Location": "/elsewhere"}), {}, "redirect"),
    ],
)
def test_what_is_not_the_rows_fault_fails_the_run(
    web: Web, project: Path, reply: Reply, options: dict[str, Any], message: str
) -> None:
    given(project, ROWS[:2])
    web.replies([reply])
    declared = pipeline(web, **options)
    with pytest.raises(DestinationError, match=message):
        run_pipeline(declared)
    assert open_destination(declared).quarantined() == []


def test_an_address_that_a_row_names_and_that_is_not_there_is_the_rows_fault(web: Web, project: Path) -> None:
    given(project, ROWS[:2])
    web.answer = lambda asked: Reply(status=404 if asked.path.endswith("2") else 200)
    assert counts(run_pipeline(pipeline(web, "/customers/{id}", method="PATCH"))) == (2, 1, 1)


def test_on_invalid_fail_stops_at_a_refused_row_and_says_what_stays(web: Web, project: Path) -> None:
    given(project, ROWS)
    web.answer = refusing(lambda row: row["id"] == 3)
    with pytest.raises(InvalidRowsError, match=r"record 3.*answered 422") as caught:
        run_pipeline(pipeline(web, on_invalid="fail"))
    assert "what was sent before stays sent" in str(caught.value)


def test_a_column_that_is_not_there_is_named_before_anything_is_sent(web: Web, project: Path) -> None:
    given(project, ROWS)
    with pytest.raises(DestinationError, match="no column code, which `url` names") as caught:
        run_pipeline(pipeline(web, "/customers/{code}"))
    assert "id, name" in str(caught.value)
    assert web.asked == []


def test_no_secret_shows_in_the_label_the_quarantine_or_an_error(
    web: Web, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_SECRET", "s3cret")
    given(project, ROWS[:1])
    options = {"auth": {"type": "api_key", "key": "${API_SECRET}", "param": "appid"}}
    declared = pipeline(web, "/customers?token=t0ken", **options)
    web.answer = lambda asked: Reply({"you": asked.params["appid"]}, status=400)
    report = run_pipeline(declared)
    assert report.destination == f"POST {web.url}/customers"
    assert report.rejected[0].broken[0].message == 'answered 400 Bad Request: {"you": "***"}'
    web.replies([Reply(status=403)])
    with pytest.raises(PivotalError) as caught:
        run_pipeline(declared)
    assert not [secret for secret in ("s3cret", "t0ken") if secret in str(caught.value)]
    assert web.asked[0].params == {"token": "t0ken", "appid": "s3cret"}


# --- several at a time ------------------------------------------------------------------------------------------


@pytest.fixture
def together(web: Web) -> Iterator[threading.Barrier]:
    """An API that answers only when three requests are under way."""
    barrier = threading.Barrier(3, timeout=20)

    def answer(_: Asked) -> Reply:
        barrier.wait()
        return Reply({})

    web.answer = answer
    yield barrier
    barrier.abort()


def test_requests_are_under_way_at_the_same_time(web: Web, project: Path, together: threading.Barrier) -> None:
    given(project, [{"id": number} for number in range(9)])
    assert counts(run_pipeline(pipeline(web, concurrency=3))) == (9, 9, 0)
    assert sorted(row["id"] for row in bodies(web)) == list(range(9))
    assert not together.broken


def test_what_fails_among_several_fails_the_run(web: Web, project: Path) -> None:
    given(project, [{"id": number} for number in range(50)])
    web.answer = refusing(lambda row: row["id"] == 20, status=403)
    with pytest.raises(DestinationError, match="answered 403"):
        run_pipeline(pipeline(web, concurrency=4))
    assert len(web.asked) < 40
