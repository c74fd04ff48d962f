"""What the jobs read: made by DuckDB and PostgreSQL, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import duckdb
import psycopg

BATCH = 1_000_000

_COLUMNS = """
    i AS "OrderID",
    CAST(hash(i) % 100000 AS INTEGER) AS customer_id,
    CASE WHEN i % 300 = 7 THEN CAST(-1 AS DECIMAL(12,2))
         ELSE CAST(CAST(hash(i + {seed}) % 10000000 AS BIGINT) / 100 AS DECIMAL(12,2)) END AS amt,
    (hash(i + 2) % 1000000) / 1e6 AS rate,
    hash(i + 3) % 2 = 0 AS gift,
    TIMESTAMP '2024-01-01' + to_seconds(CAST(hash(i + 4) % 63072000 AS BIGINT)) AS created_at,
    DATE '2024-01-01' + CAST(hash(i + 5) % 730 AS INTEGER) AS ship_on,
    CASE WHEN i % 300 = 107 THEN 'unknown' WHEN i % 50 = 3 THEN 'test'
         ELSE ['paid', 'open', 'void'][CAST(1 + hash(i + 6) % 3 AS BIGINT)] END AS status,
    CASE WHEN i % 300 = 207 THEN 'not an address' ELSE 'customer' || hash(i) % 100000 || '@example.com' END AS email,
    'order ' || i || ' of customer ' || hash(i) % 100000 || ', as agreed on the telephone' AS note"""
"""Ten columns; one row in a hundred breaks a rule, one in fifty is a test that is filtered out."""


def write_csv(path: Path, rows: int, *, changed_every: int = 0) -> Path:
    """A CSV file of orders, numbered from 0.

    Args:
        path: Where it goes; it is kept if it is there.
        rows: How many.
        changed_every: Of so many rows one has another amount than the rows that are loaded already (0: none).
    """
    if not path.exists():
        seed = f"CASE WHEN i % {changed_every} = 0 THEN 99 ELSE 1 END" if changed_every else "1"
        with duckdb.connect() as engine:
            engine.execute(
                f"COPY (SELECT {_COLUMNS.format(seed=seed)} FROM range({rows}) AS t(i)) TO '{path}.part' (HEADER)"
            )
        Path(f"{path}.part").rename(path)
    return path


def make_orders(url: str, csv: Path) -> None:
    """The table `orders` of a PostgreSQL database, from the CSV file."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            'CREATE TABLE orders ("OrderID" bigint PRIMARY KEY, customer_id integer, amt numeric(12,2), '
            "rate double precision, gift boolean, created_at timestamp, ship_on date, status text, email text, "
            "note text)"
        )
        with database.cursor().copy("COPY orders FROM STDIN (FORMAT csv, HEADER)") as copy, csv.open("rb") as file:
            while chunk := file.read(1 << 20):
                copy.write(chunk)
        database.execute("VACUUM ANALYZE orders")


def make_loaded(url: str, csv: Path) -> None:
    """The table that a pipeline has loaded from the CSV file: the rows that follow its rules, and what it derives."""
    make_orders(url, csv)
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            "DELETE FROM orders WHERE amt < 0 OR status NOT IN ('paid', 'open', 'void', 'test') "
            "OR email NOT LIKE '%@%' OR status = 'test'"
        )
        database.execute(
            'CREATE TABLE loaded AS SELECT "OrderID" AS order_id, CAST(customer_id AS bigint) AS customer_id, '
            "amt AS amount, rate, gift, created_at, "
            "ship_on, status, email, note, CAST(amt * 1.1 AS numeric(14,3)) AS amount_usd FROM orders"
        )
        database.execute("DROP TABLE orders")
        database.execute("ALTER TABLE loaded ADD PRIMARY KEY (order_id)")
        database.execute("VACUUM ANALYZE loaded")


def make_indexed(url: str, rows: int) -> None:
    """A table of many rows with an index on when they changed; the last 1,000 changed on 2026-01-02."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(
            "CREATE TABLE changes AS SELECT i AS id, "
            f"CASE WHEN i > {rows} - 1000 THEN timestamptz '2026-01-02 00:00Z' "
            "ELSE timestamptz '2024-01-01 00:00Z' END "
            f"+ (i % 1000) * interval '1 second' AS updated_at, 'text of row ' || i AS text "
            f"FROM generate_series(1::bigint, {rows}) AS t(i)"
        )
        database.execute("ALTER TABLE changes ADD PRIMARY KEY (id)")
        database.execute("CREATE INDEX ON changes (updated_at)")
        database.execute("VACUUM ANALYZE changes")
