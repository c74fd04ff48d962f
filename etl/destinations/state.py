"""What sources remember, as a row of `_pivotal_state`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import orjson
import pyarrow as pa

from etl.stream import State

SCHEMA = pa.schema(
    {"name": pa.string(), "state": pa.string(), "run_id": pa.string(), "updated_at": pa.timestamp("us", "UTC")}
)


def state_to_arrow(name: str, run_id: str, state: State) -> pa.RecordBatch:
    """The row."""
    row = {"name": name, "state": dump_state(state), "run_id": run_id, "updated_at": datetime.now(UTC)}
    return pa.RecordBatch.from_pylist([row], SCHEMA)


def dump_state(state: State) -> str:
    """The state as JSON, the same text for the same state."""
    return orjson.dumps(state, option=orjson.OPT_SORT_KEYS).decode()


def parse_state(text: str) -> State:
    """The state that `dump_state` wrote."""
    return cast(State, orjson.loads(text))
