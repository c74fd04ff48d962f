"""The backends that destination tests run over, each with a reader of its own that shares no code with ours."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import boto3
import duckdb
import fastexcel
import psycopg
import pyarrow as pa
import pymysql
import pytest
from pymysql.constants import FIELD_TYPE
from sqlalchemy.engine import make_url

from etl.destinations import open_destination
from etl.destinations.warehouse import Target, Warehouse, open_warehouse
from etl.pipeline import Pipeline
from etl.stream import BadRow, Broken, Destination, Loaded, State
from integrations.s3 import open_s3
from settings import get_settings

Row = dict[str, Any]
SQL = ["duckdb", "sqlite", "postgres", "mariadb"]
SCHEMAS = ["analytics", "billing", "crm"]
"""Those of the tests' tables: in MariaDB, they are databases of the server, beside the test's own."""
FILES = ["parquet", "csv", "ndjson", "excel"]
S3 = "s3"
"""Parquet in a bucket."""
_READERS = {
    "parquet": "read_parquet('{}/*.parquet', union_by_name = true)",
    "csv": "read_csv('{}/*.csv', union_by_name = true, header = true, null_padding = false)",
    "ndjson": "read_ndjson('{}/*.ndjson', union_by_name = true)",
}


@dataclass(frozen=True)
class Backend:
    """A kind of destination, with a place for this test.

    Args:
        kind: Of `SQL` or `FILES`, or `S3`.
        url: Of the database, or the folder.
        query: Runs SQL with the database's own client; for files, DuckDB with the folder's files as a view per table.
    """

    kind: str
    url: str
    query: Callable[[str], list[Row]]

    def destination(
        self,
        write: Literal["append", "replace", "merge"] = "append",
        *,
        table: str = "orders",
        name: str = "orders",
        **more: object,
    ) -> Destination:
        """The destination of a pipeline."""
        where: dict[str, object] = {"type": "database", "connection": self.url, "table": table}
        if self.kind in {*FILES, S3}:
            form = "parquet" if self.kind == S3 else self.kind
            where = {"type": "file", "path": f"{self.url}/{table}", "format": form}
        return open_destination(
            Pipeline.model_validate(
                {
                    "name": name,
                    "description": "A test.",
                    "source": {"type": "file", "path": "orders.csv"},
                    "destination": {**where, "write": write, **more},
                }
            )
        )

    @property
    def warehouse(self) -> Warehouse:
        """The database."""
        return open_warehouse(self.url)

    def name(self, table: str) -> str:
        """A table's name in SQL."""
        return f'"{table}"' if self.kind == "sqlite" else table

    def rows(self, table: str = "orders", order: str = "id") -> list[Row]:
        """A table's rows; those without a value in a column lack the column."""
        found = self.query(f"SELECT * FROM {self.name(table)} ORDER BY {order}")
        return [{name: value for name, value in row.items() if value is not None} for row in found]

    def has(self, table: str = "orders") -> bool:
        """Whether the table is there."""
        try:
            self.query(f"SELECT 1 FROM {self.name(table)}")
        except (duckdb.Error, sqlite3.Error, psycopg.Error, pymysql.Error):
            return False
        return True

    def untouched(self, table: str = "orders") -> bool:
        """Whether no load has left a trace; MariaDB cannot undo that a table was made."""
        return not self.has(table) or (self.kind == "mariadb" and not self.rows(table, order="1"))


def _duckdb(tmp_path: Path) -> Backend:
    path = tmp_path / "warehouse.duckdb"

    def query(sql: str) -> list[Row]:
        with duckdb.connect(path) as connection:
            return _rows(connection.execute(sql))

    return Backend("duckdb", f"duckdb:///{path}", query)


def _sqlite(tmp_path: Path) -> Backend:
    path = tmp_path / "warehouse.db"

    def query(sql: str) -> list[Row]:
        with closing(sqlite3.connect(path)) as connection, connection:
            return _rows(connection.execute(sql))

    return Backend("sqlite", f"sqlite:///{path}", query)


def _postgres(url: str) -> Backend:
    def query(sql: str) -> list[Row]:
        with psycopg.connect(url) as connection:
            return _rows(connection.execute(sql))

    return Backend("postgres", url, query)


def _mariadb(url: str) -> Backend:
    address = make_url(url)

    def query(sql: str) -> list[Row]:
        with (
            pymysql.connect(
                host=address.host,
                port=address.port,
                user=address.username,
                password=address.password,
                database=address.database,
                sql_mode="ANSI_QUOTES,STRICT_ALL_TABLES",
                init_command="SET time_zone = '+00:00'",
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            zoned = [column[1] == FIELD_TYPE.TIMESTAMP for column in cursor.description or ()]
            return [
                {name: _from_mariadb(value, utc) for utc, (name, value) in zip(zoned, row.items(), strict=True)}
                for row in _rows(cursor)
            ]

    return Backend("mariadb", url, query)


def _from_mariadb(value: Any, zoned: bool) -> Any:
    if isinstance(value, datetime) and zoned:
        return value.replace(tzinfo=UTC)
    return (datetime(1, 1, 1) + value).time() if isinstance(value, timedelta) else value  # noqa: DTZ001


def _files(kind: str, tmp_path: Path) -> Backend:
    def query(sql: str) -> list[Row]:
        with duckdb.connect() as connection:
            for folder in filter(Path.is_symlink, tmp_path.iterdir()):
                rows = _sheets(connection, folder) if kind == "excel" else f"FROM {_READERS[kind].format(folder)}"
                if kind == "ndjson" and not any(file.stat().st_size for file in folder.glob("*.ndjson")):
                    rows = "SELECT 1 AS id WHERE false"  # lines tell the columns, but there are none
                connection.execute(f'CREATE TEMPORARY VIEW "{folder.name}" AS {rows}')
            return _rows(connection.execute(sql))

    return Backend(kind, str(tmp_path), query)


def _s3(endpoint: str) -> Backend:
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="lake")

    def query(sql: str) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
            for found in client.list_objects_v2(Bucket="lake").get("Contents", ()):
                table, _, inside = found["Key"].partition("/")
                if inside == "_pivotal/manifest.json":
                    _fetch(table, Path(folder, table))
                    files = f"read_parquet('{folder}/{table}/*.parquet', union_by_name = true)"
                    if any(Path(folder, table).iterdir()):
                        connection.execute(f'CREATE VIEW "{table}" AS FROM {files}')
            return _rows(connection.execute(sql))

    def _fetch(table: str, folder: Path) -> None:
        folder.mkdir()
        manifest = client.get_object(Bucket="lake", Key=f"{table}/_pivotal/manifest.json")["Body"].read()
        for name, key in json.loads(manifest)["files"].items():
            if "/" not in name:
                client.download_file("lake", f"{table}/{key}", str(folder / name))

    return Backend(S3, "s3://lake", query)


def _sheets(connection: duckdb.DuckDBPyConnection, folder: Path) -> str:
    """The rows of a folder's Excel files, as SQL."""
    names = []
    for number, file in enumerate(folder.glob("*.xlsx")):
        names.append(f'"{folder.name} {number}"')
        connection.register(names[-1].strip('"'), fastexcel.read_excel(file).load_sheet(0).to_arrow())
    return " UNION ALL BY NAME ".join(f"FROM {name}" for name in names)


def _rows(cursor: Any) -> list[Row]:
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []


def make_backend(kind: str, request: pytest.FixtureRequest) -> Backend:
    """A backend for this test."""
    if kind == "postgres":
        return _postgres(request.getfixturevalue("postgres_url"))
    if kind == "mariadb":
        backend = _mariadb(request.getfixturevalue("mariadb_url"))
        for schema in SCHEMAS:
            request.addfinalizer(partial(backend.query, f"DROP DATABASE IF EXISTS {schema}"))
        return backend
    tmp_path: Path = request.getfixturevalue("tmp_path")
    if kind in FILES:
        return _files(kind, tmp_path)
    if kind == S3:
        endpoint, monkeypatch = map(request.getfixturevalue, ("s3_endpoint", "monkeypatch"))
        for name, value in {"PIVOTAL_S3_ENDPOINT_URL": endpoint, "PIVOTAL_ROOT": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("etl.destinations.bucket.open_s3", cache(open_s3))  # to make one takes a while
        get_settings.cache_clear()
        return _s3(endpoint)
    return {"duckdb": _duckdb, "sqlite": _sqlite}[kind](tmp_path)


def rows(**columns: object) -> pa.RecordBatch:
    """A batch: a list a column, or an Arrow array where the type matters."""
    return pa.record_batch(dict(columns))


def load_table(database: Backend, target: Target, *batches: pa.RecordBatch) -> Loaded:
    """Writes batches into a table of the warehouse, without a pipeline."""
    with database.warehouse.transaction() as transaction:
        writer = transaction.writer(target)
        for batch in batches:
            writer.write(batch)
        loaded = writer.finish()
        transaction.commit()
    return loaded


def bad(text: str, record: int) -> BadRow:
    """A row for the quarantine."""
    broken = [Broken("amount", "convert: integer", f"{text!r} is not an integer")]
    return BadRow(
        {"id": "1", "amount": text, "note": None}, {"id": "BIGINT", "amount": "VARCHAR"}, broken, {"record": record}
    )


def load(
    destination: Destination,
    *batches: pa.RecordBatch,
    run_id: str = "run-1",
    state: State | None = None,
    quarantine: Sequence[BadRow] = (),
    replayed: Sequence[str] = (),
    expired: datetime | None = None,
) -> Loaded:
    """Loads batches in one run."""
    with destination.begin(run_id, replayed=replayed, expired=expired) as running:
        for batch in batches:
            running.write(batch)
        running.quarantine(quarantine)
        loaded = running.loaded()
        running.commit(state)
    return loaded
