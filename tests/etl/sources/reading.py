"""Reads a source to its end, and says what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from etl.pipeline import Pipeline
from etl.sources import open_source
from etl.stream import BadRow, Origin, Source, State
from settings import get_settings

DESTINATION = {"type": "database", "connection": "duckdb:///nowhere.duckdb", "table": "t"}


@dataclass
class Read:
    """What a reading gave."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    deduplicated: int = 0
    schemas: list[pa.Schema] = field(default_factory=list)
    state: State | None = None
    bytes_read: int = 0

    @property
    def types(self) -> dict[str, str]:
        return {column.name: str(column.type) for column in self.schemas[-1]}

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]

    @property
    def broken(self) -> Sequence[str]:
        return [broken.message for row in self.bad for broken in row.broken]


def source_of(source: Mapping[str, Any], write: str = "append") -> Source:
    destination = {**DESTINATION, "write": write, **({"key": ["id"]} if write == "merge" else {})}
    return open_source(
        Pipeline.model_validate({"name": "p", "description": "d", "source": source, "destination": destination})
    )


def read(source: Mapping[str, Any], state: State | None = None, write: str = "append") -> Read:
    result = Read()
    with closing(source_of(source, write).open(state)) as reading:
        for batch in reading:
            result.rows += batch.rows.to_pylist()
            result.origins += [batch.origin(index) for index in range(batch.rows.num_rows)]
            result.bad += batch.bad
            result.deduplicated += batch.deduplicated
            result.schemas.append(batch.rows.schema)
        result.state = reading.state()
        result.bytes_read = reading.bytes_read
    return result


def execute(url: str, *statements: str) -> None:
    """Runs statements in a database, in one transaction."""
    kind, _, file = url.partition(":///")
    if kind == "duckdb":
        with duckdb.connect(get_settings().path(file)) as duck:
            duck.execute(";".join(statements))
        return
    address = f"sqlite:///{get_settings().path(file)}" if kind == "sqlite" else url
    engine = create_engine(make_url(address.replace("postgresql:", "postgresql+psycopg:")), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
