from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from errors import SourceError
from etl.sources import postgresql, rows
from tests.etl.sources.reading import execute, read, source_of


def table(url: str, name: str = "t", **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": name, **options}


def query(url: str, text: str) -> dict[str, Any]:
    return {"type": "database", "connection": url, "query": text}


def test_types_arrive_exact(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN eur AS numeric(10,3)",
        "CREATE TYPE place AS (city text, lat numeric)",
        "CREATE SCHEMA kinds",
        "CREATE TYPE kinds.size AS ENUM ('small')",
        "CREATE DOMAIN kinds.sizes AS kinds.size[]",
        """CREATE TABLE t (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, ok bool, price numeric(12,2),
        long numeric(38,10), free numeric, fine numeric(3,5), coarse numeric(5,-2), domain eur, txt text, fix char(5),
        var varchar(9), raw bytea, day date, clock time, clockz timetz, at timestamp, instant timestamptz,
        span interval, u uuid, j json, jb jsonb, mood mood, ints int[], grid int[][], prices numeric[],
        times timestamptz[], who place, ip inet, money money, bits bit(3), spot point, range int4range, o oid,
        longest numeric(39,1), size kinds.size, sizes kinds.sizes, span_of_days daterange, ranges int4multirange,
        cube text[], lower int[], places place[], raws bytea[], rates float8[], ends timestamp[], words tsvector,
        net cidr, mac macaddr, letter "char", path jsonpath, twice int GENERATED ALWAYS AS (2) STORED)""",
        """INSERT INTO t VALUES (-32768, 2147483647, 9223372036854775807, 0.1, 0.1, true, 1.10,
        1234567890123456789012345678.0123456789, 1e30, 0.00123, 12345, 1.5, 'é\\n', 'ab', 'x', '\\x00ff', '2024-01-01',
        '12:34:56.789', '12:34+02', '2024-01-01 12:00:00.123456', '2024-01-01 12:00:00.123456+05',
        '1 mon 2 days 3.5 s', '00000000-0000-0000-0000-00000000002a', '{"a":1.10}', '{"a": 1.10}', 'good',
        '{1,2,NULL}', '{{1,2},{3,4}}', '{1.10,NaN}', '{"2024-01-01 12:00+05"}', ROW('Bonn', 1.10), '10.0.0.1',
        12.34, '101', '(1,2)', '[1,3)', 4294967295, 99999999999999999999999999999999999999.9, 'small', '{small}',
        '[2024-01-01,2024-02-01)', '{[1,3),[5,7)}', '{{{a},{b}}}', '[0:1]={1,2}', ARRAY[ROW('Bonn', 1.10)::place],
        ARRAY['\\x00ff'::bytea], '{NaN,Infinity,0.1}', '{infinity}', 'a b', '10.0.0.0/8', '08:00:2b:01:02:03', 'x',
        '$.a')""",
    )
    row = read(table(postgres_url)).rows[0]
    assert row == {
        "i2": -32768, "i4": 2**31 - 1, "i8": 2**63 - 1, "f4": pa.scalar(0.1, pa.float32()).as_py(), "f8": 0.1,
        "ok": True,
        "price": Decimal("1.10"), "long": Decimal("1234567890123456789012345678.0123456789"),
        "free": "1000000000000000000000000000000", "fine": "0.00123", "coarse": "12300", "domain": Decimal("1.500"),
        "txt": "é\\n", "fix": "ab   ", "var": "x", "raw": b"\x00\xff", "day": date(2024, 1, 1),
        "clock": time(12, 34, 56, 789000), "clockz": "12:34:00+02",
        "at": datetime(2024, 1, 1, 12, 0, 0, 123456),  # noqa: DTZ001  (a timestamp without zone)
        "instant": datetime(2024, 1, 1, 7, 0, 0, 123456, tzinfo=UTC),
        "span": pa.MonthDayNano([1, 2, 3_500_000_000]), "u": UUID(int=42), "j": '{"a":1.10}', "jb": '{"a": 1.10}',
        "mood": "good", "ints": "[1,2,null]", "grid": "[[1,2],[3,4]]", "prices": '[1.10,"NaN"]',
        "times": '["2024-01-01T07:00:00+00:00"]', "who": '{"city":"Bonn","lat":1.10}', "ip": "10.0.0.1/32",
        "money": "12.34", "bits": "101", "spot": "(1,2)", "range": "[1,3)", "o": 4294967295,
        "longest": "99999999999999999999999999999999999999.9", "size": "small", "sizes": '["small"]',
        "span_of_days": "[2024-01-01,2024-02-01)", "ranges": "{[1,3),[5,7)}", "cube": '[[["a"],["b"]]]',
        "lower": "[1,2]", "places": '[{"city":"Bonn","lat":1.10}]', "raws": '["\\\\x00ff"]',
        "rates": '["NaN","Infinity",0.1]', "ends": '["infinity"]', "words": "'a' 'b'",
        "net": "10.0.0.0/8", "mac": "08:00:2b:01:02:03", "letter": "x", "path": '$."a"', "twice": 2,
    }  # fmt: skip


def test_a_long_text_and_bytes_arrive_whole(postgres_url: str) -> None:
    text = "SELECT repeat('é', 5000000) AS t, decode(repeat('00ff', 100000), 'hex') AS b"
    assert read(query(postgres_url, text)).rows == [{"t": "é" * 5_000_000, "b": b"\0\xff" * 100_000}]


def test_null_of_every_type_is_null(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (a numeric(12,2), b numeric(30,2), c numeric, d date, e timestamptz, f interval, g uuid,"
        " h int[])",
        "INSERT INTO t VALUES (NULL)",
    )
    assert read(table(postgres_url)).rows == [dict.fromkeys("abcdefgh")]


def test_nan_and_infinity_stay_where_the_type_can_hold_them(postgres_url: str) -> None:
    text = "SELECT 'NaN'::numeric n, 'Infinity'::numeric i, '-Infinity'::float8 f"
    assert read(query(postgres_url, text)).rows == [{"n": "NaN", "i": "Infinity", "f": float("-inf")}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("numeric(12,2)", "NaN"),
        ("numeric(30,2)", "NaN"),
        ("date", "infinity"),
        ("date", "-infinity"),
        ("timestamp", "infinity"),
        ("timestamptz", "-infinity"),
        ("timestamp", "294247-01-10 04:00:54.775808"),
        ("interval", "infinity"),
        ("interval", "3000000:00:00"),
    ],
)
def test_a_value_that_arrow_cannot_hold_sends_its_row_to_the_quarantine(
    postgres_url: str, kind: str, value: str
) -> None:
    execute(
        postgres_url,
        f"CREATE TABLE t (id int PRIMARY KEY, v {kind}, raw bytea)",
        f"INSERT INTO t VALUES (1, NULL, NULL), (2, '{value}', '\\xff00'), (3, NULL, NULL)",
    )
    result = read(table(postgres_url))
    assert result.column("id") == [1, 3]
    (bad,) = result.bad
    shown = value.replace("294247-01-10 04:00:54.775808", "9223372036854775808 microseconds after 1970")
    assert (bad.row, bad.origin) == ({"id": "2", "v": shown, "raw": "\\xFF\\x00"}, {"table": "t", "id": 2})
    assert bad.types == {"id": "INTEGER", "v": "VARCHAR", "raw": "BLOB"}
    assert [broken.column for broken in bad.broken] == ["v"]


def test_dates_before_christ_and_far_away_arrive(postgres_url: str) -> None:
    text = """SELECT '4714-11-24 BC'::timestamp a, '294247-01-10 04:00:54.775807'::timestamp b, '4714-11-24 BC'::date c,
        '5874897-12-31'::date d, '24:00'::time e"""
    with closing(source_of(query(postgres_url, text)).open(None)) as reading:
        row = next(iter(reading)).rows
    numbers = [
        row["a"].cast(pa.int64()),
        row["b"].cast(pa.int64()),
        row["c"].cast(pa.int32()),
        row["d"].cast(pa.int32()),
    ]
    assert [number[0].as_py() for number in numbers] == [-210_866_803_200_000_000, 2**63 - 1, -2_440_588, 2_145_042_905]
    assert row["e"].cast(pa.int64())[0].as_py() == 86_400_000_000


@pytest.mark.parametrize("name", ["T", 'odd "name', "sch.t"])
def test_names_are_quoted_and_the_key_is_the_origin(postgres_url: str, name: str) -> None:
    execute(
        postgres_url,
        "CREATE SCHEMA sch",
        *(
            f'CREATE TABLE {quoted} (b int, a text, "c d" text, PRIMARY KEY (a, b))'
            for quoted in ('"T"', '"odd ""name"', "sch.t")
        ),
    )
    for quoted in ('"T"', '"odd ""name"', "sch.t"):
        execute(postgres_url, f"INSERT INTO {quoted} VALUES (1, 'x', 'y')")
    result = read(table(postgres_url, name, columns=["c d"]))
    assert (result.rows, result.origins) == ([{"c d": "y"}], [{"table": name, "a": "x", "b": 1}])


def test_a_forgotten_schema_is_suggested(postgres_url: str) -> None:
    execute(postgres_url, "CREATE SCHEMA sch", "CREATE TABLE sch.orders (id int)")
    with pytest.raises(SourceError) as caught:
        read(table(postgres_url, "orders"))
    assert caught.value.hint == "did you mean sch.orders?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1/0 AS x", "division by zero"),
        ("SELECT frm", 'column "frm" does not exist'),
        ("DELETE FROM t", "syntax error"),
        ("SELECT set_config('a.b', 'c', false), pg_sleep(0) FROM nope", 'relation "nope" does not exist'),
    ],
)
def test_a_query_that_fails_says_why(postgres_url: str, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read(query(postgres_url, text))
    assert "correct-horse-battery" not in str(caught.value)


def test_nothing_is_written_even_by_a_query_that_tries(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int)",
        "CREATE FUNCTION put() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING id'",
    )
    with pytest.raises(SourceError, match="read-only transaction"):
        read(query(postgres_url, "SELECT put()"))


def test_a_wrong_password_and_a_missing_database_are_told_without_the_password(postgres_url: str) -> None:
    wrong = postgres_url.replace("correct-horse-battery", "s3cret-wrong")
    with pytest.raises(SourceError, match="password authentication failed") as caught:
        read(table(wrong))
    assert "user or password are wrong" in (caught.value.hint or "")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SourceError, match="does not exist"):
        read(table(f"{postgres_url}x"))


def test_a_table_without_permission_is_told(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int)",
        "DROP ROLE IF EXISTS reader_of_nothing",
        "CREATE ROLE reader_of_nothing LOGIN PASSWORD 'x'",
    )
    try:
        as_reader = postgres_url.replace("pivotal:correct-horse-battery", "reader_of_nothing:x")
        with pytest.raises(SourceError, match="permission denied for table t") as caught:
            read(table(as_reader))
        assert "GRANT SELECT" in (caught.value.hint or "")
    finally:
        execute(postgres_url, "DROP ROLE reader_of_nothing")


@pytest.mark.parametrize("size", [300, 2_000, 1 << 20])
def test_chopping_never_changes_rows(postgres_url: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(rows, "BATCH_BYTES", size)
    monkeypatch.setattr(postgresql, "BATCH_BYTES", size)
    text = (
        "SELECT g AS id, CASE WHEN g % 7 = 0 THEN 'NaN' ELSE g / 100.0 END::numeric(9,2) AS n, repeat('x', g % 5) AS s "
        "FROM generate_series(1, 500) g ORDER BY g"
    )
    result = read(query(postgres_url, text))
    good = [number for number in range(1, 501) if number % 7]
    assert result.rows == [{"id": number, "n": Decimal(number).scaleb(-2), "s": "x" * (number % 5)} for number in good]
    assert [origin["row"] for origin in result.origins] == good
    assert [bad.origin["row"] for bad in result.bad] == [number for number in range(1, 501) if not number % 7]


def test_a_reading_may_be_closed_in_the_middle(postgres_url: str) -> None:
    reading = source_of(query(postgres_url, "SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000) g")).open(
        None
    )
    next(iter(reading))
    reading.close()
