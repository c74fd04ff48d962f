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
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from errors import SourceError
from etl.sources.rows import engine, taken
from etl.stream import Batch, State

_NUMBERS = pa.decimal128(38, 9)
_MOMENTS = pa.timestamp("us", "UTC")

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


class Cursor:
    """The cursor of a source that has no snapshot: found while reading, from records in any order.

    Records that are newer than the run itself do not move it: others like them may have come on pages that were read
    before, so the next run reads from there again.

    Args:
        name: The field; `a.b` is a field of an object.
        lag: How late a record may arrive.
        before: Where the last run stopped.
    """

    def __init__(self, name: str, lag: timedelta | None, before: str | None) -> None:
        self.text = before
        self.began: datetime | None = None
        self._name = name
        self._lag = lag
        self._kind: pa.DataType | None = None

    def order(self, rows: pa.RecordBatch) -> pa.Array:
        """Where each row stands, NULL if it has no cursor; moves the cursor to the newest of them.

        Raises:
            SourceError: There is no such field, or it holds nothing that a cursor can be.
        """
        values = self._values(rows)
        if pa.types.is_null(values.type):
            return values
        order = self._ordered(values)
        limit = self._limit(order)
        settled = order.filter(pc.less_equal(order, limit)) if limit else order
        newest = pc.max(settled)
        if newest.is_valid and (self.text is None or newest.as_py() > self._scalar(self.text).as_py()):
            self.text = str(values[pc.index(order, newest).as_py()].as_py())
        return order

    @property
    def counts_time(self) -> bool:
        """Whether it is a time, as far as it has values; a number is Unix time if there is a lag."""
        return self._kind == _MOMENTS or (self._kind == _NUMBERS and self._lag is not None)

    def least(self) -> pa.Scalar | None:
        """Where the edge begins; None if it is everywhere."""
        return self._scalar(earlier(self.text, self._lag)) if self.text is not None and self._kind else None

    def _values(self, rows: pa.RecordBatch) -> pa.Array:
        first, *inner = [self._name] if self._name in rows.schema.names else self._name.split(".")
        if first not in rows.schema.names:
            close = ", ".join(get_close_matches(first, rows.schema.names)) or ", ".join(rows.schema.names[:20])
            raise SourceError(f"no record has the cursor {self._name!r}", hint=f"the records have: {close}")
        values = rows[first]
        for name in inner:
            if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
                raise SourceError(f"no record has the cursor {self._name!r}: {name!r} is missing")
            values = pc.struct_field(values, name)
        return values

    def _ordered(self, values: pa.Array) -> pa.Array:
        if pa.types.is_integer(values.type) or pa.types.is_decimal(values.type):
            kind, order = _NUMBERS, values.cast(_NUMBERS)
        elif pa.types.is_string(values.type):
            order = _moments(values)
            kind, order = (_MOMENTS, order) if order.null_count == values.null_count else (pa.string(), values)
        else:
            raise SourceError(
                f"the cursor {self._name!r} is {values.type}", hint="choose a field that is a number, a time or a text"
            )
        if kind != (self._kind or kind):
            raise SourceError(f"the cursor {self._name!r} holds values of several kinds", hint="choose another field")
        self._kind = kind
        return order

    def _scalar(self, text: str) -> pa.Scalar:
        if self._kind == _MOMENTS:
            return _moments(pa.array([text]))[0]
        return pa.scalar(Decimal(text), _NUMBERS) if self._kind == _NUMBERS else pa.scalar(text)

    def _limit(self, order: pa.Array) -> pa.Scalar | None:
        """When the run began, as the cursor counts; None if it counts no time. Numbers do if there is a lag."""
        if self.began and self._kind == _MOMENTS:
            return pa.scalar(self.began, _MOMENTS)
        if self.began and self._kind == _NUMBERS and self._lag and order.null_count < len(order):
            return pa.scalar(Decimal(int(self.began.timestamp())) * _unit(pc.max(order).as_py()), _NUMBERS)
        return None


def _moments(texts: pa.Array) -> pa.Array:
    """Texts as points in time, NULL where they are none; without a zone they are UTC."""
    with engine(texts=pa.table({"text": texts})) as session:
        moments = session.sql("SELECT TRY_CAST(text AS TIMESTAMPTZ) AS moment FROM texts").to_arrow_table()
    return moments["moment"].combine_chunks().cast(_MOMENTS)


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

    def sift(self, batch: Batch, order: pa.Array, least: pa.Scalar | None) -> Batch:
        """The rows that are new.

        Args:
            batch: Rows.
            order: Where each row stands; NULL stands at the edge, always.
            least: Where the edge begins, as far as is known by now; it never goes back. None: every row is at it.

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

    def counts(self, least: pa.Scalar | None) -> dict[str, int]:
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

    def _remember(self, rows: pa.Table, least: pa.Scalar | None) -> None:
        self._read = pa.concat_tables([self._read, rows], promote_options="permissive") if self._read.num_rows else rows
        if self._read.num_rows > EDGE_LIMIT:
            self._read = self._read.filter(_near(self._read["order"], least))
        if self._read.num_rows > EDGE_LIMIT:
            raise SourceError(
                f"more than {EDGE_LIMIT} rows are at the cursor's edge (within `lag`, equal to the cursor, or NULL), "
                "too many to remember for a destination that cannot merge",
                hint="use `write: merge` with a `key`, a shorter `lag`, or a cursor that tells rows apart better",
            )


def _near(order: pa.Array, least: pa.Scalar | None) -> pa.Array:
    if least is None:
        return pa.array(np.ones(len(order), bool))
    return pc.or_kleene(pc.is_null(order), pc.greater_equal(order, least))


def _hashes(rows: pa.RecordBatch) -> pa.Array:
    """MD5 of each row as JSON: long enough that no two rows meet by chance, and the same in every release."""
    with engine(read=rows) as session:
        hashes = session.sql("SELECT md5(CAST(to_json(read) AS VARCHAR)) AS hash FROM read").to_arrow_table()
    return hashes["hash"].combine_chunks()
