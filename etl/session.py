"""The embedded engine that rules run in: DuckDB in memory, shut off from files, the network and other tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import duckdb
import jiter
import pyarrow as pa

from etl.clock import stopped_at
from etl.privacy import HASH, MACROS, hash_pads

_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET ieee_floating_point_ops = false",  # a division by zero is an error, so the rule is broken; not infinity
    "SET python_enable_replacements = false",  # a name in SQL is never a variable of this process
    "SET lock_configuration = true",
    "CREATE TEMP MACRO offset_at(zone, i) AS timezone(zone, i) - timezone('UTC', i)",
    "CREATE TEMP MACRO instant_by(l, zone, other) AS timezone('UTC', l - offset_at(zone, timezone('UTC', l) + other))",
    """CREATE TEMP MACRO instant_between(l, zone, early, late) AS CASE
        WHEN timezone(zone, early) = l THEN CASE WHEN early = late OR timezone(zone, late) <> l THEN early END
        WHEN timezone(zone, late) = l THEN late END""",
    """CREATE TEMP MACRO instant_of(l, zone) AS
        instant_between(l, zone, instant_by(l, zone, INTERVAL '-1' DAY), instant_by(l, zone, INTERVAL '1' DAY))""",
)

ROWS = "rows"
"""What the data is called in SQL; its columns are r0, r1, ...."""


class Session:
    """A session of the engine, with the functions `strict_json(text)` and `instant_of(time, zone)` besides its own.

    A local time's offset is that of a day before or a day after: where both fit and differ the clock was put back, and
    where none does it was put forward.

    Args:
        threads: How many threads one statement may use.
    """

    def __init__(self, threads: int = 1) -> None:
        options: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "enable_external_access": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        }
        self._threads = threads
        self._engine = duckdb.connect(":memory:", config=options)
        self._engine.create_function("strict_json", _is_json, ["VARCHAR"], "BOOLEAN")
        for setting in (*_SETTINGS, *MACROS, *stopped_at(datetime.now(UTC))):
            self._engine.execute(setting)
        self._names = count()
        self._hashes = False

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs a statement that needs no data, and returns its rows.

        Raises:
            duckdb.Error: The engine refuses it.
        """
        return self._engine.execute(sql, values).fetchall()

    def use_hash_key(self) -> None:
        """Lets `hash` work.

        Raises:
            RuleError: There is no key.
        """
        if not self._hashes:
            for name, pad in hash_pads().items():
                self._engine.create_function(name, partial(_same, pad), [], "BLOB")
            self._engine.execute(HASH)
            self._hashes = True

    def types(self, schema: pa.Schema, items: Sequence[str]) -> list[str]:
        """The DuckDB types of SQL items over data with a schema.

        Raises:
            duckdb.Error: The engine refuses the schema, or an item.
        """
        self._engine.register(ROWS, _numbered(_empty(schema)))
        return [str(kind) for kind in self._engine.sql(f"SELECT {', '.join(items)} FROM {ROWS}").types]

    def prepare(self, sql: str, schema: pa.Schema) -> Statement:
        """Reads and plans a SELECT over the data once; running it is then a third of the cost for a small batch.

        Args:
            sql: The SELECT.
            schema: The data's.

        Raises:
            duckdb.Error: The engine refuses it.
        """
        data = _Data(_numbered(_empty(schema)))
        name = f"statement{next(self._names)}"
        self._engine.register(ROWS, data)
        self._engine.execute(f"PREPARE {name} AS {sql}")
        return Statement(self._engine, name, data, self._threads)

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()


@dataclass(frozen=True, slots=True)
class Statement:
    """A prepared SELECT, which gives one row for each of the data."""

    engine: duckdb.DuckDBPyConnection
    name: str
    data: _Data
    threads: int

    def table(self, rows: pa.RecordBatch) -> pa.Table:
        """Runs it over a batch, in its order.

        Raises:
            duckdb.Error: It fails.
        """
        share = -(-max(rows.num_rows, 1) // self.threads)
        parts = [rows.slice(start, share) for start in range(0, rows.num_rows, share)]
        self.data.table = _numbered(pa.Table.from_batches(parts, rows.schema))
        return self.engine.sql(f"EXECUTE {self.name}").to_arrow_table(max(rows.num_rows, 1))

    def tuples(self, rows: pa.RecordBatch) -> list[tuple[Any, ...]]:
        """As `table`, in Python's objects: for a few rows."""
        self.data.table = _numbered(pa.Table.from_batches([rows]))
        return self.engine.execute(f"EXECUTE {self.name}").fetchall()


class _Data:
    """What prepared statements read: a table that can be another one each time, without preparing again."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def _empty(schema: pa.Schema) -> pa.Table:
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)


def _numbered(table: pa.Table) -> pa.Table:
    return table.rename_columns([f"r{number}" for number in range(table.num_columns)])


def _same(value: bytes) -> bytes:
    return value


def _is_json(text: str) -> bool:
    """Whether a text is JSON by RFC 8259, with no key twice. DuckDB's own parser takes [1,] and NaN."""
    try:
        jiter.from_json(text.encode(), allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        return False
    return True
