"""Bad rows as the quarantine keeps them: a row of `_pivotal_quarantine`, or a line of a file beside the data.

What was read stays as JSON text, not as a database's JSON type: that would refuse some of it (NUL characters).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa

from etl.stream import BadRow, Broken, Quarantined

DOCUMENTS = ("row", "types", "broken", "origin")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("pipeline", pa.string()),
        ("run_id", pa.string()),
        ("quarantined_at", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in DOCUMENTS),
    ]
)


def quarantined(pipeline: str, run_id: str, rows: Sequence[BadRow]) -> list[Quarantined]:
    """The rows with their ids, as found now."""
    now = datetime.now(UTC)
    return [Quarantined(_id(pipeline, bad), pipeline, run_id, now, bad) for bad in rows]


def before(age: timedelta) -> datetime:
    """When a row was found that is so old now."""
    now = datetime.now(UTC)
    return now - min(age, now - datetime.fromtimestamp(0, UTC))


def to_arrow(rows: Sequence[Quarantined]) -> pa.RecordBatch:
    """The rows for the table."""
    records = [_record(row) for row in rows]
    texts = [record | {name: orjson.dumps(record[name]).decode() for name in DOCUMENTS} for record in records]
    return pa.RecordBatch.from_pylist(texts, SCHEMA)


def from_values(values: Sequence[object]) -> Quarantined:
    """A row of the table, each value as text, in the order of `SCHEMA`."""
    record: dict[str, Any] = dict(zip(SCHEMA.names, values, strict=True))
    return _row(record | {name: orjson.loads(record[name]) for name in DOCUMENTS})


def to_line(row: Quarantined) -> bytes:
    """The row as a line of NDJSON."""
    return orjson.dumps(_record(row), option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes) -> Quarantined:
    """The row that `to_line` wrote."""
    return _row(orjson.loads(line))


def _record(row: Quarantined) -> dict[str, Any]:
    return {
        "id": row.id,
        "pipeline": row.pipeline,
        "run_id": row.run_id,
        "quarantined_at": row.at,
        "row": dict(row.bad.row),
        "types": dict(row.bad.types),
        "broken": list(row.bad.broken),
        "origin": dict(row.bad.origin),
    }


def _row(record: Mapping[str, Any]) -> Quarantined:
    broken = [Broken(**rule) for rule in record["broken"]]
    bad = BadRow(record["row"], record["types"], broken, record["origin"])
    at = datetime.fromisoformat(record["quarantined_at"])
    at = at if at.tzinfo else at.replace(tzinfo=UTC)  # MariaDB shows no zone
    return Quarantined(record["id"], record["pipeline"], record["run_id"], at, bad)


def _id(pipeline: str, bad: BadRow) -> str:
    text = orjson.dumps([pipeline, dict(bad.origin), dict(bad.row)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]
