"""The floors: the same data moved by the fastest means that Python has, without rules, state or quarantine.

    python -m benchmarks.floors JOB

Each is a whole process, as the engine's run is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pyarrow as pa

URL, TARGET = os.environ.get("BENCH_SOURCE_URL", ""), os.environ.get("BENCH_TARGET_URL", "")
CSV, OUT = os.environ.get("BENCH_CSV", ""), os.environ.get("BENCH_OUT", "")
API = os.environ.get("BENCH_API", "")

_TYPES = {
    "OrderID": pa.int64(),
    "customer_id": pa.int32(),
    "amt": pa.decimal128(12, 2),
    "rate": pa.float64(),
    "gift": pa.bool_(),
    "created_at": pa.timestamp("us"),
    "ship_on": pa.date32(),
    "status": pa.string(),
    "email": pa.string(),
    "note": pa.string(),
}
_RENAMED = {"OrderID": "order_id", "amt": "amount"}


def postgresql_to_parquet() -> None:
    """An ADBC stream straight to a Parquet writer, in one thread."""
    import pyarrow.parquet as pq
    from adbc_driver_postgresql import dbapi

    pa.set_cpu_count(1)
    with dbapi.connect(URL) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM orders")
        reader = cursor.fetch_record_batch()
        with pq.ParquetWriter(OUT, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)


def csv_to_postgresql() -> None:
    """Read by Arrow, with the types given; ADBC's ingest."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(TARGET) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("orders", _csv(), mode="create")
        connection.commit()


def csv_merge() -> None:
    """ADBC's ingest into a staging table, then a plain INSERT ON CONFLICT DO UPDATE."""
    from adbc_driver_postgresql import dbapi

    names = [_RENAMED.get(name, name) for name in _TYPES]
    update = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    with dbapi.connect(TARGET) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("stage", _csv(), mode="create", temporary=True)
        cursor.execute(
            f"INSERT INTO loaded ({', '.join(names)}) SELECT * FROM stage ON CONFLICT (order_id) DO UPDATE SET {update}"
        )
        connection.commit()


def csv_to_parquet() -> None:
    """The rules as one SELECT, in DuckDB's own COPY."""
    import duckdb

    names = {"int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR"}
    names |= {"decimal128(12, 2)": "DECIMAL(12,2)", "timestamp[us]": "TIMESTAMP", "date32[day]": "DATE"}
    types = {name: names[str(kind)] for name, kind in _TYPES.items()}
    duckdb.execute(
        f"""COPY (SELECT "OrderID" AS order_id, amt AS amount, * EXCLUDE ("OrderID", amt), amt * 1.1 AS amount_usd
                  FROM read_csv('{CSV}', header = true, columns = {types})
                  WHERE amt >= 0 AND status IN ('paid', 'open', 'void', 'test') AND status <> 'test'
                    AND regexp_full_match(email, '[^@ ]+@[^@ ]+'))
            TO '{OUT}' (FORMAT parquet)"""
    )


def api_to_postgresql() -> None:
    """Flattened by hand, into Arrow columns; ADBC's ingest."""
    import httpx
    import orjson
    from adbc_driver_postgresql import dbapi

    with httpx.Client() as client, dbapi.connect(TARGET) as connection, connection.cursor() as cursor:
        page = 1
        while records := orjson.loads(client.get(API, params={"page": page}).content)["data"]:
            cursor.adbc_ingest("customers", _flattened(records), mode="create_append")
            page += 1
        connection.commit()


def changed_rows() -> None:
    """The bare query."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(URL) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM changes WHERE updated_at >= '2026-01-01'")
        assert cursor.fetch_arrow_table().num_rows == 1000


def nothing() -> None:
    """What any program on these two libraries pays."""
    import duckdb

    assert duckdb


def _csv() -> pa.RecordBatchReader:
    from pyarrow import csv

    return csv.open_csv(
        CSV,
        read_options=csv.ReadOptions(block_size=16 << 20),
        convert_options=csv.ConvertOptions(column_types=_TYPES),
    )


def _flattened(records: list[dict[str, dict[str, dict[str, int]]]]) -> pa.RecordBatch:
    plain = ("id", "number", "name", "email", "balance", "active", "created")
    columns = {name: pa.array([record[name] for record in records]) for name in plain}
    for name in ("city", "country", "postal_code"):
        columns[f"address_{name}"] = pa.array([record["address"][name] for record in records])
    columns["plan_id"] = pa.array([record["plan"]["id"] for record in records])
    for name in ("users", "projects"):
        columns[f"plan_limits_{name}"] = pa.array([record["plan"]["limits"][name] for record in records])
    columns["tags"] = pa.array([str(record["tags"]) for record in records])
    return pa.record_batch(columns)


FLOORS: dict[str, Callable[[], None]] = {
    floor.__name__: floor
    for floor in (
        postgresql_to_parquet,
        csv_to_postgresql,
        csv_merge,
        csv_to_parquet,
        api_to_postgresql,
        changed_rows,
        nothing,
    )
}

if __name__ == "__main__":
    FLOORS[sys.argv[1]]()
