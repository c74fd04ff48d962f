from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from errors import SourceError
from settings import get_settings
from tests.etl.sources.reading import execute, read, source_of

URL = "duckdb:///shop.db"


def table(name: str = "t", **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": URL, "table": name, **options}


@pytest.mark.usefixtures("folder")
def test_types_arrive_exact() -> None:
    execute(
        URL,
        """CREATE TABLE t AS SELECT 1::TINYINT tiny, 18446744073709551615::UBIGINT big, 1.10::DECIMAL(12,2) price,
        170141183460469231731687303715884105::HUGEINT huge, 0.1::DOUBLE rate, 'nan'::DOUBLE none, true ok,
        '007' AS name, DATE '2024-01-01' AS day, TIME '12:34:56.789' AS clock, TIMESTAMP '2024-01-01 00:00:00.123456'
        AS at,
        TIMESTAMPTZ '2024-01-01 02:00:00+02' instant, TIMETZ '12:00:00+02' clockz, 'a'::ENUM('a', 'b') kind,
        UUID '00000000-0000-0000-0000-00000000002a' AS u, '{"a":1.10}'::JSON j, [1, 2] AS list, MAP {'a': 1} AS map,
        {'city': 'Bonn', 'geo': {'lat': 1}} nested, '101'::BIT bits, 'x'::BLOB raw,
        ['a"NaN'] texts, [0.1::DOUBLE, NULL] rates, [TIMESTAMP '2024-01-01', 'infinity'] times, [1, 2]::INTEGER[2] pair,
        union_value(number := 7) either, '123456789012345678901234567890123456789012'::BIGNUM bignum,
        TIMESTAMP_S '2024-01-01' AS second, '24:00'::TIME AS midnight, INTERVAL '1 month 2 days 3.5 seconds' span,
        {'e': 'a'::ENUM('a'), 'z': '12:00:00+02'::TIMETZ, 'l': [1], 'm': MAP {'a': [1]}, 'h': 5::HUGEINT} kinds,
        NULL::STRUCT(a INTEGER) AS nothing""",
    )
    row = read(table()).rows[0]
    assert row.pop("none") != row.get("none")
    assert row == {
        "tiny": 1, "big": 2**64 - 1, "price": Decimal("1.10"), "huge": Decimal(170141183460469231731687303715884105),
        "rate": 0.1, "ok": True, "name": "007", "day": date(2024, 1, 1), "clock": time(12, 34, 56, 789000),
        "at": datetime(2024, 1, 1, 0, 0, 0, 123456),  # noqa: DTZ001  (a timestamp without zone)
        "instant": datetime(2024, 1, 1, tzinfo=UTC), "clockz": "12:00:00+02", "kind": "a",
        "u": UUID(int=42), "j": '{"a":1.10}', "list": "[1,2]", "map": '{"a":1}',
        "nested": {"city": "Bonn", "geo": {"lat": 1}}, "bits": "101", "raw": b"x",
        "texts": '["a\\"NaN"]', "rates": "[0.1,null]", "times": '["2024-01-01 00:00:00","infinity"]', "pair": "[1,2]",
        "either": "7", "bignum": "123456789012345678901234567890123456789012",
        "second": datetime(2024, 1, 1),  # noqa: DTZ001
        "midnight": time(), "span": pa.MonthDayNano([1, 2, 3_500_000_000]),
        "kinds": {"e": "a", "z": "12:00:00+02", "l": "[1]", "m": '{"a":[1]}', "h": Decimal(5)}, "nothing": None,
    }  # fmt: skip


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("TIMESTAMP 'infinity'", "infinity"),
        ("TIMESTAMPTZ '-infinity'", "-infinity"),
        ("DATE 'infinity'", "infinity"),
        ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
        ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
        ("['nan'::DOUBLE]", "[nan]"),
        ("MAP {'a': 'infinity'::DOUBLE}", "{a=inf}"),
        ("{'a': 1, 'at': TIMESTAMP 'infinity'}", "{'a': 1, 'at': infinity}"),
        (f"{{'a': {{'b': {10**38}::HUGEINT}}}}", f"{{'a': {{'b': {10**38}}}}}"),
    ],
)
def test_a_value_that_arrow_cannot_hold_sends_its_row_to_the_quarantine(value: str, text: str) -> None:
    execute(URL, f"CREATE TABLE t AS SELECT 1 id, {value} v", "INSERT INTO t VALUES (2, NULL)")
    result = read(table())
    assert result.rows == [{"id": 2, "v": None}]
    assert [(bad.row, bad.types["v"]) for bad in result.bad] == [({"id": "1", "v": text}, "VARCHAR")]


@pytest.mark.usefixtures("folder")
def test_the_columns_and_the_key_of_a_table_in_a_schema_are_known() -> None:
    execute(URL, "CREATE SCHEMA shop", "CREATE TABLE shop.shop.t (a INTEGER, b INTEGER, PRIMARY KEY (b, a))")
    execute(URL, "INSERT INTO shop.shop.t VALUES (1, 2)")
    assert source_of(table("shop.t")).columns() == ["a", "b"]
    assert read(table("shop.t", columns=["a"])).origins == [{"table": "shop.t", "b": 2, "a": 1}]
    assert source_of({**table(), "connection": "duckdb:///later.db"}).columns() is None
    with pytest.raises(SourceError) as caught:
        read(table("t"))
    assert caught.value.hint == "did you mean shop.t?"


@pytest.mark.usefixtures("folder")
def test_an_endless_cursor_is_refused() -> None:
    execute(URL, "CREATE TABLE t AS SELECT TIMESTAMP 'infinity' AS at")
    with pytest.raises(SourceError, match="the cursor at has the value infinity"):
        read(table(incremental={"cursor": "at"}))


def test_a_destination_in_the_same_file_may_write_while_it_reads(folder: Path) -> None:
    execute(URL, "CREATE TABLE t AS SELECT range id FROM range(100000)")
    reading = source_of(table()).open(None)
    batches = iter(reading)
    rows = next(batches).rows.num_rows
    with duckdb.connect(folder / "shop.db") as destination:
        destination.execute("INSERT INTO t VALUES (-1)")
    rows += sum(batch.rows.num_rows for batch in batches)
    reading.close()
    assert rows == 100_000


@contextmanager
def held(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the file open until its standard input is closed."""
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder


def test_a_file_that_another_process_holds_too_long_is_told(folder: Path) -> None:
    execute(URL, "CREATE TABLE t (id INTEGER)")
    with held(folder / "shop.db"), pytest.raises(SourceError, match=r"held by .* \(waited 0\.2 s\)") as caught:
        read(table())
    assert caught.value.retryable


def test_a_file_that_another_process_holds_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(URL, "CREATE TABLE t AS SELECT 1 id")
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "60")
    get_settings.cache_clear()
    with held(folder / "shop.db") as holder:
        assert holder.stdin is not None
        release = threading.Timer(0.3, holder.stdin.close)
        release.start()
        assert read(table()).column("id") == [1]
        release.join()
        assert holder.wait() == 0


def test_a_file_that_is_something_else_is_told(folder: Path) -> None:
    (folder / "shop.db").write_text("text")
    with pytest.raises(SourceError, match="is not a DuckDB database"):
        read(table())
