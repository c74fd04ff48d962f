from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from errors import SourceError
from etl.sources import sqlalchemy
from tests.etl.sources.reading import execute, read, source_of


def table(url: str, **options: Any) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": "t", **options}


def test_types_arrive_exact(mariadb_url: str) -> None:
    execute(
        mariadb_url,
        """CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, small TINYINT, price DECIMAL(12,2), longer DECIMAL(50,2),
        f FLOAT, d DOUBLE, name VARCHAR(9), txt LONGTEXT, raw VARBINARY(9), day DATE, at DATETIME(6),
        instant TIMESTAMP(6) NULL, span TIME(3), kind ENUM('a', 'b'), j JSON, bits BIT(9), y YEAR, kinds SET('a', 'b'),
        place POINT, ip INET6, u UUID, clock TIME(6), fix BINARY(3), never DATETIME(6), full DECIMAL(38, 38),
        old VARCHAR(9) CHARACTER SET latin1, day0 DATE)""",
        """INSERT INTO t VALUES (18446744073709551615, -1, 1.10, 12345678901234567890123456789012345678901.10, 16777217,
        0.1, '007', 'é', X'00FF', '2024-01-01', '2024-01-01 12:00:00.123456', '2024-01-01 12:00:00', '-30:00:00.5', 'a',
        '{"a":1.10}', b'101', 2024, 'a,b', ST_GeomFromText('POINT(1 2)'), '::1', '00000000-0000-0000-0000-00000000002a',
        '838:59:59', 'ab', '9999-12-31 23:59:59.999999', 0.1, 'é', NULL)""",
    )
    row = read(table(mariadb_url)).rows[0]
    assert row == {
        "id": 2**64 - 1, "small": -1, "price": Decimal("1.10"),
        "longer": "12345678901234567890123456789012345678901.10", "f": 16777216.0, "d": 0.1, "name": "007", "txt": "é",
        "raw": b"\x00\xff", "day": date(2024, 1, 1),
        "at": datetime(2024, 1, 1, 12, 0, 0, 123456),  # noqa: DTZ001  (a DATETIME has no zone)
        "instant": datetime(2024, 1, 1, 12, tzinfo=UTC), "span": "-30:00:00.500000", "kind": "a", "j": '{"a":1.10}',
        "bits": b"\x00\x05", "y": 2024, "kinds": "a,b",
        "place": bytes.fromhex("00000000 01 01000000 000000000000f03f 0000000000000040"),  # SRID, then WKB
        "ip": "::1", "u": "00000000-0000-0000-0000-00000000002a", "clock": "838:59:59", "fix": b"ab\0",
        "never": datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        "full": Decimal("0.1"), "old": "é", "day0": None,
    }  # fmt: skip


def test_a_query_is_typed_by_the_driver_and_the_values(mariadb_url: str) -> None:
    execute(
        mariadb_url,
        "SET time_zone = '+00:00'",
        """CREATE TABLE t (id INT, n DECIMAL(12,2), big BIGINT UNSIGNED, f FLOAT, day DATE, at DATETIME,
        instant TIMESTAMP NULL, span TIME)""",
        "INSERT INTO t (id) VALUES (1)",
        """INSERT INTO t VALUES (2, 1.10, 18446744073709551615, 16777215, '2024-01-01', '2024-01-01 12:00:00',
        '2024-01-01 12:00:00', '25:00:00')""",
    )
    text = "SELECT t.*, NULL AS nil, 'a' AS s, id / 3 AS third FROM t ORDER BY id"
    result = read({"type": "database", "connection": mariadb_url, "query": text})
    assert result.types == {
        "id": "int64", "n": "decimal128(38, 2)", "big": "uint64", "f": "double", "day": "date32[day]",
        "at": "timestamp[us]", "instant": "timestamp[us, tz=UTC]", "span": "string", "nil": "null", "s": "string",
        "third": "decimal128(38, 4)",
    }  # fmt: skip
    assert list(result.rows[1].values())[:8] == [
        2, Decimal("1.10"), 2**64 - 1, 16777215.0, date(2024, 1, 1),
        datetime(2024, 1, 1, 12),  # noqa: DTZ001
        datetime(2024, 1, 1, 12, tzinfo=UTC), "25:00:00",
    ]  # fmt: skip
    assert set(list(result.rows[0].values())[1:9]) == {None}


def test_a_long_text_arrives_whole(mariadb_url: str) -> None:
    execute(mariadb_url, "CREATE TABLE t (txt LONGTEXT)", "INSERT INTO t VALUES (REPEAT('é', 5000000))")
    assert read(table(mariadb_url)).rows == [{"txt": "é" * 5_000_000}]


@pytest.mark.parametrize("kind", ["DATE", "DATETIME", "TIMESTAMP"])
def test_a_date_that_is_none_sends_its_row_to_the_quarantine(mariadb_url: str, kind: str) -> None:
    execute(
        mariadb_url,
        "SET sql_mode = ''",
        f"CREATE TABLE t (id INT PRIMARY KEY, at {kind} NULL)",
        "INSERT INTO t VALUES (1, '0000-00-00'), (2, '2024-01-01'), (3, NULL)",
    )
    shown = "0000-00-00" if kind == "DATE" else "0000-00-00 00:00:00"
    for source in (table(mariadb_url), {"type": "database", "connection": mariadb_url, "query": "SELECT * FROM t"}):
        result = read(source)
        assert result.column("id") == [2, 3]
        assert [dict(bad.row) for bad in result.bad] == [{"id": "1", "at": shown}]


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_chopping_never_changes_rows(mariadb_url: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(sqlalchemy, "_ROWS", size)
    execute(
        mariadb_url,
        "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(9))",
        "INSERT INTO t SELECT seq, IF(MOD(seq, 3), CONCAT('n', seq), NULL) FROM seq_1_to_50",
    )
    result = read(table(mariadb_url))
    assert result.rows == [{"id": n, "name": f"n{n}" if n % 3 else None} for n in range(1, 51)]
    assert [origin["id"] for origin in result.origins] == list(range(1, 51))


def test_a_reading_that_is_closed_in_the_middle_does_not_read_on(mariadb_url: str) -> None:
    execute(mariadb_url, "CREATE TABLE t (id INT)")
    text = "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_100000000"
    reading = source_of({"type": "database", "connection": mariadb_url, "query": text}).open(None)
    next(iter(reading))
    reading.close()


def test_a_wrong_password_is_told_without_it(mariadb_url: str) -> None:
    with pytest.raises(SourceError, match="Access denied") as caught:
        read(table(mariadb_url.replace("correct-horse-battery", "s3cret-wrong")))
    assert "s3cret" not in str(caught.value)
