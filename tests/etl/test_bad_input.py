"""A run that meets bad input behind good rows says what is wrong, loads none of them, and leaves all as it was."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from errors import DestinationError, SourceError
from etl.destinations import open_destination
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from tests.etl.destinations import backends
from tests.etl.destinations.backends import load, rows
from tests.etl.users import someone_else
from tests.integrations.web import Asked, Reply, Web, web

__all__ = ["web"]

_TEXT = "x" * 1000
_CSV = b"id,text\n" + b"".join(b"%d,%s\n" % (number, _TEXT.encode()) for number in range(6000))
_RECORDS = [{"id": number, "text": _TEXT} for number in range(6000)]
"""More than one batch."""


def _json(records: list[dict[str, Any]]) -> bytes:
    return json.dumps(records).encode()


@pytest.mark.parametrize(
    ("name", "good", "bad", "message"),
    [
        ("o.csv.gz", gzip.compress(_CSV, 1), gzip.compress(_CSV, 1)[:-20], "is cut off: its compressed data has no"),
        ("o.csv", _CSV, _CSV + b"7,a\0b\n", "holds a NUL byte near byte 6"),
        ("o.csv", _CSV, _CSV + b"7," + b"x" * (9 << 20), "a record is longer than 8 MB"),
        ("o.json", _json(_RECORDS), _json(_RECORDS)[:-1], "not JSON: "),
        (
            "o.json",
            _json(_RECORDS),
            _json(_RECORDS)[:-1] + b',{"id":1,"id":2}]',
            "record 6001: the key 'id' stands twice",
        ),
        ("o.json", _json(_RECORDS), _json(_RECORDS)[:-1] + b',{"id":NaN}]', "not JSON: "),
        ("o.json", _json(_RECORDS), _json(_RECORDS)[:-1] + b',{"a":' + b"[" * 10_000, "o.json: "),
    ],
    ids=["cut off", "NUL", "no line end", "not closed", "key twice", "NaN", "deep"],
)
def test_a_file_that_goes_wrong_at_its_end_loads_nothing(
    project: Path, name: str, good: bytes, bad: bytes, message: str
) -> None:
    pipeline = _pipeline({"type": "file", "path": name, "incremental": True})
    (project / name).write_bytes(good)
    assert run_pipeline(pipeline).loaded == 6000
    before = open_destination(pipeline).state()

    (project / name).write_bytes(bad)
    with pytest.raises(SourceError) as error:
        run_pipeline(pipeline)

    assert message in error.value.message
    assert "\n" not in error.value.message
    assert _count(project) == 6000
    assert open_destination(pipeline).state() == before


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (Reply(b"<html>Please log in</html>"), "page 3: the answer is HTML, not JSON"),
        (Reply(status=204), "page 3: the answer is 204 No Content, without JSON"),
        (Reply([{"id": 20}, {"id": 21}]), "page 3: the page repeats one that was read before, so it would never end"),
        (Reply(status=302, headers={"Location": "/orders?page=3"}), "page=3: too many redirects"),
        (Reply(b'[{"id":1,"id":2}]'), 'page 3: the answer is not JSON: Detected duplicate key "id"'),
        (Reply(b'[{"id":NaN}]'), "page 3: the answer is not JSON: "),
        (Reply(b'[{"id":' + b"[" * 10_000), "page 3: the answer is not JSON: recursion limit"),
        (Reply(status=403), "page=3: answered 403"),
    ],
    ids=["HTML", "204", "repeats", "redirects", "key twice", "NaN", "deep", "forbidden"],
)
def test_an_api_that_goes_wrong_at_its_last_page_loads_nothing(
    web: Web, project: Path, last: Reply, message: str
) -> None:
    pipeline = _pipeline({"type": "api", "url": f"{web.url}/orders", "pagination": {"type": "page"}})
    web.answer = partial(_pages, last)

    with pytest.raises(SourceError) as error:
        run_pipeline(pipeline)

    assert message in error.value.message
    assert "\n" not in error.value.message
    assert not (project / "warehouse.db").exists()


def test_pages_that_point_at_each_other_end(web: Web, project: Path) -> None:
    following = {"": "a", "a": "b", "b": "a"}
    numbers = iter(range(100))
    web.answer = lambda asked: Reply(
        {"data": [{"id": next(numbers)}], "next": following[asked.params.get("after", "")]}
    )
    pagination = {"type": "cursor", "param": "after", "path": "next"}
    source = {"type": "api", "url": f"{web.url}/orders", "records": "data", "pagination": pagination}

    with pytest.raises(SourceError, match="page 4: the page repeats one that was read before"):
        run_pipeline(_pipeline(source))

    assert len(web.asked) == 4
    assert not (project / "warehouse.db").exists()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "parquet"])
def test_a_destination_that_may_not_be_written_is_told_and_stays(kind: str) -> None:
    with TemporaryDirectory() as name:  # where others may go, too
        folder = Path(name)
        embedded = {"duckdb": backends._duckdb, "sqlite": backends._sqlite}
        place = embedded[kind](folder) if kind in embedded else backends._files(kind, folder)
        load(place.destination(), rows(id=[1]), state={"cursor": 1})
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o444 if path.is_file() else 0o555)

        with someone_else(), pytest.raises(DestinationError, match=r"(?i)permission denied|readonly database") as error:
            load(place.destination("replace"), rows(id=[2]), run_id="run-2", state={"cursor": 2})

        assert "needs the right to write there" in str(error.value.hint)
        assert not error.value.retryable
        assert place.rows() == [{"id": 1}]
        assert place.destination().state() == {"cursor": 1}


def _pipeline(source: dict[str, Any]) -> Pipeline:
    place = {"type": "database", "connection": "sqlite:///warehouse.db", "table": "orders", "write": "append"}
    return Pipeline.model_validate({"name": "orders", "description": "Orders", "source": source, "destination": place})


def _pages(last: Reply, asked: Asked) -> Reply:
    """Two pages of records, and the last one."""
    page = int(asked.params["page"])
    return Reply([{"id": 10 * page}, {"id": 10 * page + 1}]) if page < 3 else last


def _count(project: Path) -> int:
    with closing(sqlite3.connect(project / "warehouse.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM orders").fetchone()[0])
