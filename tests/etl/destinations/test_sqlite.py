"""What SQLite asks for besides the contract: few types, one writer."""

from __future__ import annotations

import math
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
import sqlalchemy

from errors import DestinationError
from etl.stream import Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, load, make_backend, rows


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    return make_backend("sqlite", request)


def test_what_sqlite_has_no_type_for_is_kept_as_exact_text(backend: Backend) -> None:
    load(
        backend.destination(),
        rows(
            id=[1],
            price=pa.array([Decimal("1234567890123456.70")], pa.decimal128(18, 2)),
            tiny=pa.array([Decimal("0.0000000001")], pa.decimal128(20, 10)),
            big=pa.array([2**64 - 1], pa.uint64()),
            at=pa.array([datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")),
            local=pa.array([datetime(2024, 2, 29, 12, 30)]),  # noqa: DTZ001  (without a zone)
            day=[date(2024, 2, 29)],
            clock=pa.array([time(1, 2, 3)]),
            uid=pa.array([UUID(int=7).bytes], pa.uuid()),
        ),
    )

    assert backend.rows() == [
        {
            "id": 1,
            "price": "1234567890123456.70",
            "tiny": "0.0000000001",
            "big": "18446744073709551615",
            "at": "2024-02-29 12:30:00.000005+00:00",
            "local": "2024-02-29 12:30:00.000000",
            "day": "2024-02-29",
            "clock": "01:02:03.000000",
            "uid": "00000000-0000-0000-0000-000000000007",
        }
    ]


def test_a_number_that_is_none_is_not_turned_into_null(backend: Backend) -> None:
    load(backend.destination(), rows(id=[1, 2, 3], n=[math.nan, math.inf, None]))

    assert backend.rows() == [{"id": 1, "n": "NaN"}, {"id": 2, "n": math.inf}, {"id": 3}]


def test_sqlalchemy_reads_times_as_times(backend: Backend) -> None:
    moment = datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=UTC)
    load(
        backend.destination(),
        rows(
            id=[1], at=pa.array([moment]), day=[moment.date()], local=pa.array([moment.replace(tzinfo=None)]), ok=[True]
        ),
    )

    engine = sqlalchemy.create_engine(backend.url)
    table = sqlalchemy.Table("orders", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        row = connection.execute(table.select()).one()
    engine.dispose()

    assert tuple(row) == (1, moment, moment.date(), moment.replace(tzinfo=None), True)


def test_a_table_in_a_schema_keeps_its_whole_name(backend: Backend) -> None:
    load(backend.destination(table="analytics.orders"), rows(id=[1]))

    assert backend.query('SELECT id FROM "analytics.orders"') == [{"id": 1}]


def test_column_names_differ_by_more_than_case(backend: Backend) -> None:
    backend.query("CREATE TABLE orders (ID INTEGER PRIMARY KEY, Name VARCHAR(20))")
    destination = backend.destination("merge", key=["id"])

    load(destination, rows(id=[1], name=["a"]))

    assert load(destination, rows(id=[1], NAME=["b"]), run_id="run-2") == Loaded(inserted=0, updated=1)
    assert backend.rows() == [{"ID": 1, "Name": "b"}]


def test_a_column_that_would_keep_decimals_as_floats_refuses_them(backend: Backend) -> None:
    backend.query("CREATE TABLE orders (id INTEGER, price DECIMAL(10, 2))")

    with pytest.raises(DestinationError, match=r"column price is DECIMAL\(10, 2\)"):
        load(backend.destination(), rows(id=[1], price=[Decimal("1.10")]))


def test_readers_see_the_old_or_the_new_table_and_never_wait(backend: Backend) -> None:
    destination = backend.destination("replace")
    load(destination, rows(id=[1, 2]))

    with closing(sqlite3.connect(backend.url.removeprefix("sqlite:///"), timeout=0)) as reader:
        with destination.begin("run-2") as running:
            running.write(rows(id=[3, 4, 5]))
            running.loaded()
            assert reader.execute("SELECT sum(id) FROM orders").fetchall() == [(3,)]
            running.commit(None)
        assert reader.execute("SELECT sum(id) FROM orders").fetchall() == [(12,)]


def test_a_slow_source_keeps_no_other_writer_waiting(backend: Backend) -> None:
    with backend.destination().begin("run-1") as slow:
        slow.write(rows(id=[1]))
        load(backend.destination(name="other"), rows(id=[2]), run_id="run-2")
        slow.write(rows(id=[3]))
        slow.loaded()
        slow.commit(None)

    assert [row["id"] for row in backend.rows()] == [1, 2, 3]


def test_writers_take_turns(backend: Backend) -> None:
    threads = [
        threading.Thread(target=load, args=[backend.destination(), rows(id=[number])], kwargs={"run_id": str(number)})
        for number in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [row["id"] for row in backend.rows()] == [0, 1, 2, 3, 4]


def test_waiting_too_long_for_another_writer_may_be_retried(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    load(backend.destination(), rows(id=[1]))
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()

    with closing(sqlite3.connect(backend.url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DestinationError, match="database is locked") as error:
            load(backend.destination(), rows(id=[2]), run_id="run-2")

    assert error.value.retryable
    assert "PIVOTAL_LOCK_TIMEOUT" in str(error.value.hint)


def test_a_file_of_something_else_is_named(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "warehouse.db").write_bytes(b"PK something else" * 1000)

    with pytest.raises(DestinationError, match="file is not a database") as error:
        backend.destination().state()

    assert error.value.hint == "the file is something else: name another one"
