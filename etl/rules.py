"""The rules of a pipeline, run over batches: map, convert, validate, derive, filter, in this order.

Every batch goes through one SELECT, without a copy of what no rule touches; only bad rows become Python objects.

- A row breaks a rule or it does not; what it breaks is told in full, but a value that does not convert breaks no
  other rule of its column.
- `unique` holds over the whole run: the first good row takes the value. Rows that break another rule take none;
  rows that `filter` leaves out do, since it comes after `validate`.
- A derived value or a predicate that fails (division by zero, overflow, a bad cast) is a broken rule. NULL is none.
- A row stays if every predicate is true: NULL is not.
- A row that breaks a rule is quarantined, also if `filter` would leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from errors import RuleError
from etl.pipeline import Transform
from etl.plan import BROKEN, FILTERED, GOOD, Plan, compile_plan
from etl.session import Session
from etl.stream import BadRow, Batch, Broken, Transformed
from etl.unique import Mask, Seen, UniqueColumn, Values, duplicates

T = TypeVar("T")


class Rules:
    """Applies the rules to the batches of one run.

    Batches may differ (JSON knows a column only where it has a value): rules are compiled once for each schema, and
    a column that a batch lacks but an earlier one had is NULL.

    Args:
        transform: The rules.
        threads: How many threads one batch may use.
    """

    def __init__(self, transform: Transform, *, threads: int = 1) -> None:
        self._transform = transform
        self._session = Session(threads)
        self._plans: dict[pa.Schema, Plan] = {}
        self._columns: dict[str, pa.Field] = {}
        self._seen: dict[str, Seen] = {}

    def apply(self, batch: Batch) -> Transformed:
        """Splits a batch into rows that follow the rules, rows that break some, and rows that are filtered out.

        Raises:
            RuleError: The rules do not fit the batch's columns.
        """
        rows = self._complete(batch.rows)
        if not rows.num_columns and not (rows.num_rows and self._transform.named_columns):
            return Transformed(rows, (), 0)  # a page without records, or records without fields
        plan = self._plan(rows.schema)
        judged = _run(plan.judge.table, rows)
        status = _numbers(judged, "status").copy()
        duplicate = self._duplicates(plan, judged, status == BROKEN)
        for mask in duplicate.values():
            status[mask] = BROKEN
        return Transformed(
            good=_result(plan, rows, judged, status == GOOD),
            bad=[
                BadRow(texts, plan.types, broken, batch.origin(row))
                for row, texts, broken in _diagnosed(plan, rows, np.flatnonzero(status == BROKEN), duplicate)
            ],
            filtered=int(np.count_nonzero(status == FILTERED)),
        )

    def close(self) -> None:
        """Frees the engine and the disk."""
        self._session.close()
        for seen in self._seen.values():
            seen.close()

    def _complete(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with every column that the run has had so far, in the same order."""
        names = rows.schema.names
        if len(set(names)) < len(names):
            raise RuleError(
                f"the data has two columns named {next(name for name in names if names.count(name) > 1)}",
            places=lambda: np.flatnonzero(status == GOOD).tolist(),
                hint="give one of them another name in the source",
            )
        for field in rows.schema:
            if field.name not in self._columns or pa.types.is_null(self._columns[field.name].type):
                self._columns[field.name] = field
        for field in self._columns.values():
            place = rows.schema.get_field_index(field.name)
            if place < 0:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
            elif pa.types.is_null(rows.schema.field(place).type):
                rows = rows.set_column(place, field, pa.nulls(rows.num_rows, field.type))
        return rows if rows.schema.names == list(self._columns) else rows.select(list(self._columns))

    def _plan(self, schema: pa.Schema) -> Plan:
        if schema not in self._plans:
            self._plans[schema] = compile_plan(self._session, self._transform, schema)
        return self._plans[schema]

    def _duplicates(self, plan: Plan, judged: pa.Table, broken: Mask) -> dict[int, Mask]:
        """For each `unique` rule, by its number, the rows that break it."""
        if not plan.unique:
            return {}
        columns = [
            UniqueColumn(
                seen=self._seen.setdefault(column, Seen()),
                values=Values(_numbers(judged, f"k{number}").view(np.int64), _numbers(judged, f"h{number}")),
                present=_numbers(judged, f"n{number}"),
            )
            for number, column in plan.unique.items()
        ]
        return dict(zip(plan.unique, duplicates(columns, broken), strict=True))


def _diagnosed(
    plan: Plan, rows: pa.RecordBatch, bad: NDArray[np.intp], duplicate: Mapping[int, Mask]
) -> Iterator[tuple[int, Mapping[str, str | None], Sequence[Broken]]]:
    """For each row for the quarantine: its place, its texts, and everything that is wrong with it."""
    answers = _run(plan.diagnose.tuples, rows.take(pa.array(bad))) if bad.size else []
    for row, answer in zip(bad.tolist(), answers, strict=True):
        broken = [
            Broken(rule.column, rule.text, rule.message(answer[start + 1 : stop]))
            for number, rule, start, stop in plan.spans
            if answer[start] or (number in duplicate and duplicate[number][row])
        ]
        yield row, dict(zip(plan.types, answer, strict=False)), broken


def _run(run: Callable[[pa.RecordBatch], T], rows: pa.RecordBatch) -> T:
    try:
        return run(rows)
    except duckdb.Error as error:
        raise RuleError(f"the rules cannot be run: {str(error).splitlines()[0]}") from error


def _result(plan: Plan, rows: pa.RecordBatch, judged: pa.Table, good: Mask) -> pa.RecordBatch:
    fields, arrays = [], []
    for number, output in enumerate(plan.outputs):
        if output.kept:
            fields.append(output.kept.field(rows.schema))
            arrays.append(output.kept.array(rows))
        else:
            array = _extended(judged[f"o{number}"].combine_chunks(), output.value.type)
            fields.append(pa.field(output.name, array.type))
            arrays.append(array)
    result = pa.record_batch(arrays, schema=pa.schema(fields))
    return result if good.all() else result.filter(pa.array(good))


def _extended(array: pa.Array, kind: str) -> pa.Array:
    """Gives json and uuid the types that Arrow has for them."""
    if kind == "JSON":
        return pa.ExtensionArray.from_storage(pa.json_(), array)
    if kind == "UUID":
        return pa.ExtensionArray.from_storage(pa.uuid(), array.cast(pa.binary(16)))
    return array


def _numbers(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    numbers: np.ndarray[Any, Any] = table[name].to_numpy()
    return numbers
