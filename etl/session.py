"""The embedded engine that rules run in: DuckDB in memory, shut off from files, the network and other tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET ieee_floating_point_ops = false",  # a division by zero is an error, so the rule is broken; not infinity
    "SET python_enable_replacements = false",  # a name in SQL is never a variable of this process
    "SET lock_configuration = true",
)


def open_session(threads: int = 1) -> duckdb.DuckDBPyConnection:
    """Opens a session with the function `strict_json(text)` besides DuckDB's own; the caller closes it.

    Args:
        threads: How many threads one query may use.
    """
    session = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "enable_external_access": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        },
    )
    session.create_function("strict_json", _strict_json, ["VARCHAR"], "BOOLEAN", type="arrow")
    for setting in _SETTINGS:
        session.execute(setting)
    return session


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _strict_json(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([_is_json(text) for text in texts.to_pylist()], pa.bool_())


def _is_json(text: str | None) -> bool | None:
    """Whether a text is JSON by RFC 8259, with no key twice. DuckDB's own parser takes [1,] and NaN."""
    if text is None:
        return None
    try:
        json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
