"""Incremental reading: where the next run starts, and which rows at the cursor's edge were read before.

A source remembers `{"cursor": text, "edge": {hash: count}}`. The next run reads from `cursor - lag` on, the edge
included, so rows that tie with the cursor or arrive late are not missed. Whoever cannot merge would then get rows
twice: the edge tells them apart.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from errors import SourceError
from etl.session import open_session
from etl.sources.rows import taken
from etl.stream import Batch, State

EDGE_LIMIT = 100_000
"""How many rows an edge may have: it is kept in the state, some 40 bytes a row."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:(?P<gap>[T ])(?P<time>\d{2}:\d{2}:\d{2})(?P<rest>(?:\.\d+)?(?:Z|[+-]\d{2}(?::?\d{2})?)?))?"
)


def start_text(start: object) -> str:
    """The cursor of a pipeline file's `start`."""
    return start.isoformat(" ") if isinstance(start, datetime) else str(start)


def is_number(cursor: str) -> bool:
    """Whether a cursor is a number, not a text or a time."""
    return bool(_NUMBER.fullmatch(cursor))


def earlier(cursor: str, lag: timedelta | None) -> str:
    """The cursor, `lag` before; never later than that, and written in the same way.

    Args:
        cursor: A date, a timestamp as ISO 8601 writes it, or a number: Unix time in seconds (or milli-, micro- or
            nanoseconds, if it is too large for seconds).
        lag: Whole seconds.

    Raises:
        SourceError: The cursor is neither.
    """
    if not lag:
        return cursor
    if is_number(cursor):
        return f"{Decimal(cursor) - Decimal(lag.total_seconds()) * _unit(Decimal(cursor)):f}"
    found = _MOMENT.fullmatch(cursor)
    if not found:
        raise SourceError(
            f"`lag` needs a cursor that is a time or a number, and {cursor!r} is neither",
            hint="choose another cursor, or leave `lag` out",
        )
    if not found["time"]:
        return str(date.fromisoformat(cursor) - timedelta(days=-(-lag // timedelta(days=1))))
    moment = datetime.fromisoformat(f"{found['date']} {found['time']}") - lag
    return moment.isoformat(found["gap"], "seconds") + (found["rest"] or "")


def _unit(moment: Decimal) -> int:
    """How many of a Unix time's units are a second, told by its size."""
    return int(1000 ** sum(abs(moment) >= limit for limit in (Decimal(10) ** 11, Decimal(10) ** 14, Decimal(10) ** 17)))


class Edge:
    """The rows at the cursor's edge: leaves out those that the last run read, and remembers those of this run.

    Rows count, not only values: if the last run read a row twice, two such rows are left out, and a third one is new.

    Args:
        state: What the last run remembered.
    """

    def __init__(self, state: State | None) -> None:
        known = (state or {}).get("edge")
        self._known = Counter(known if isinstance(known, dict) else {})
        self._read = pa.table({"hash": pa.nulls(0, pa.string()), "order": pa.nulls(0)})

    def sift(self, batch: Batch, order: pa.Array, least: pa.Scalar) -> Batch:
        """The rows that are new.

        Args:
            batch: Rows.
            order: Where each row stands; NULL stands at the edge, always.
            least: Where the edge begins, as far as is known by now; it never goes back.

        Raises:
            SourceError: There are more than `EDGE_LIMIT` rows at the edge.
        """
        near = _near(order, least)
        if not self._known and not pc.any(near, min_count=0).as_py():
            return batch
        hashes = _hashes(batch.rows)
        self._remember(pa.table({"hash": hashes.filter(near), "order": order.filter(near)}), least)
        again = self._again(hashes)
        if not again:
            return batch
        mask = np.ones(batch.rows.num_rows, bool)
        mask[again] = False
        return replace(taken(batch, pa.array(mask)), deduplicated=batch.deduplicated + len(again))

    def counts(self, least: pa.Scalar) -> dict[str, int]:
        """What the next run has to know: hash -> how many rows at the edge have it."""
        if not self._read.num_rows:
            return {}
        hashes = self._read.filter(_near(self._read["order"], least))["hash"]
        return {pair["values"]: pair["counts"] for pair in hashes.value_counts().to_pylist()}

    def _again(self, hashes: pa.Array) -> list[int]:
        """The places of rows that the last run read; each of its rows counts once."""
        again = []
        if self._known:
            known = pc.is_in(hashes, value_set=pa.array(list(self._known), pa.string()))
            for place in pc.indices_nonzero(known).to_pylist():
                value = hashes[place].as_py()
                if self._known[value]:
                    self._known[value] -= 1
                    again.append(place)
        return again

    def _remember(self, rows: pa.Table, least: pa.Scalar) -> None:
        self._read = pa.concat_tables([self._read, rows], promote_options="permissive") if self._read.num_rows else rows
        if self._read.num_rows > EDGE_LIMIT:
            self._read = self._read.filter(_near(self._read["order"], least))
        if self._read.num_rows > EDGE_LIMIT:
            raise SourceError(
                f"more than {EDGE_LIMIT} rows are at the cursor's edge (within `lag`, equal to the cursor, or NULL), "
                "too many to remember for a destination that cannot merge",
                hint="use `write: merge` with a `key`, a shorter `lag`, or a cursor that tells rows apart better",
            )


def _near(order: pa.Array, least: pa.Scalar) -> pa.Array:
    return pc.or_kleene(pc.is_null(order), pc.greater_equal(order, least))


def _hashes(rows: pa.RecordBatch) -> pa.Array:
    """MD5 of each row as JSON: long enough that no two rows meet by chance, and the same in every release."""
    with open_session() as session:
        session.register("read", rows)
        hashes = session.sql("SELECT md5(CAST(to_json(read) AS VARCHAR)) AS hash FROM read").to_arrow_table()
    return hashes["hash"].combine_chunks()
