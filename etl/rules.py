"""The rules of a pipeline, run over batches: map, convert, validate, derive, filter, in this order.

Every batch goes through one SELECT, without a copy of what no rule touches; only bad rows become Python objects.

- A row breaks a rule or it does not; what it breaks is told in full, but a value that does not convert breaks no
  other rule of its column.
- `unique` holds over the whole run: the first good row takes the value. Rows that break another rule take none;
  rows that `filter` leaves out do, since it comes after `validate`.
- `references` looks a batch's values up in another table at once, as the table is at that moment.
- A derived value or a predicate that fails (division by zero, overflow, a bad cast) is a broken rule. NULL is none.
- A row stays if every predicate is true: NULL is not.
- A row that breaks a rule is quarantined, also if `filter` would leave it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from errors import RuleError
from etl.casts import cast
from etl.mapping import mapped_columns
from etl.orphans import orphans
from etl.pipeline import Conversion, Transform
from etl.plan import BROKEN, FILTERED, GOOD, Output, Plan, compile_plan
from etl.schema import load_schema
from etl.session import Session
from etl.stream import BadRow, Batch, Broken, Transformed
from etl.unique import Mask, Seen, UniqueColumn, Values, duplicates

T = TypeVar("T")

_PATIENCE = 3
"""How often Arrow may refuse a column before it is not asked again; so there are few plans."""


class Rules:
    """Applies the rules to the batches of one run.

    Batches may differ (JSON knows a column only where it has a value): rules are compiled once for each schema, and
    a column that a batch lacks but an earlier one had is NULL.

    Args:
        transform: The rules.
        connection: Where `references` look if they name no connection: the destination's.
        threads: How many threads one batch may use.

    Raises:
        ConfigError: The schema that the rules name cannot be loaded.
    """

    def __init__(self, transform: Transform, *, connection: str | None = None, threads: int = 1) -> None:
        self._transform, self._connection = transform, connection
        self._schema = load_schema(transform.schema_) if transform.schema_ else None
        self._session = Session(threads)
        self._plans: dict[tuple[pa.Schema, tuple[str, ...]], Plan] = {}
        self._castable: dict[pa.Schema, dict[str, tuple[int, str]]] = {}
        self._refusals: Counter[str] = Counter()
        self._columns: dict[str, pa.Field] = {}
        self._seen: dict[str, Seen] = {}

    def apply(self, batch: Batch) -> Transformed:
        """Splits a batch into rows that follow the rules, rows that break some, and rows that are filtered out.

        Raises:
            RuleError: The rules do not fit the batch's columns, or another table that they name.
            DestinationError: The database that has such a table cannot be read.
        """
        rows = self._complete(batch.rows)
        if not rows.num_columns and not (rows.num_rows and self._transform.named_columns):
            return Transformed(rows, (), 0)  # a page without records, or records without fields
        converted = self._converted(rows)
        for name, values in converted.items():
            rows = rows.append_column(f"{name} converted", values)
        plan = self._plan(rows.schema, tuple(converted))
        judged = _run(plan.judge.table, rows)
        status = _numbers(judged, "status").copy()
        found = self._orphans(plan, judged)
        misfits = self._misfits(plan, rows, judged)
        for mask in found.values():
            status[mask] = BROKEN
        status[list(misfits)] = BROKEN
        found |= self._duplicates(plan, judged, status == BROKEN)
        for mask in found.values():
            status[mask] = BROKEN
        return Transformed(
            good=_result(plan, rows, judged, status == GOOD),
            bad=[
                BadRow(texts, plan.types, broken, batch.origin(row))
                for row, texts, broken in _diagnosed(plan, rows, np.flatnonzero(status == BROKEN), found, misfits)
            ],
            filtered=int(np.count_nonzero(status == FILTERED)),
            places=lambda: np.flatnonzero(status == GOOD).tolist(),
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

    def _converted(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """What Arrow converts, a whole column at a time; a column that it often cannot is left to the engine."""
        if rows.schema not in self._castable:
            self._castable[rows.schema] = _castable(self._transform, rows.schema)
        found = {}
        for name, (place, target) in self._castable[rows.schema].items():
            if self._refusals[name] < _PATIENCE:
                values = cast(rows.column(place), target)
                if values is None:
                    self._refusals[name] += 1
                else:
                    found[name] = values
        return found

    def _plan(self, schema: pa.Schema, converted: tuple[str, ...]) -> Plan:
        if (schema, converted) not in self._plans:
            self._plans[schema, converted] = compile_plan(self._session, self._transform, schema, converted)
        return self._plans[schema, converted]

    def _orphans(self, plan: Plan, judged: pa.Table) -> dict[int, Mask]:
        """For each `references` rule, by its number, the rows whose value the other table does not have."""
        return {
            number: orphans(references, self._connection, _array(judged, f"f{number}", value.type))
            for number, (references, value) in plan.references.items()
        }

    def _misfits(self, plan: Plan, rows: pa.RecordBatch, judged: pa.Table) -> Mapping[int, Sequence[Broken]]:
        """What the schema finds, by row."""
        if not self._schema:
            return {}
        checked = _columns(plan.checked, "s", rows, judged)
        return self._schema.broken(checked, missing_is_null=self._transform.on_missing_column is None)

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


def _castable(transform: Transform, schema: pa.Schema) -> dict[str, tuple[int, str]]:
    """The columns of texts that become something else in the plain way: where they are, and what they become."""
    places = {column.name: column.index for column in mapped_columns(transform, schema) if not column.path}
    return {
        name: (place, target.type)
        for name, target in transform.convert.items()
        if target == Conversion(type=target.type)
        and (place := places.get(name)) is not None
        and pa.types.is_string(schema.field(place).type)
    }


def _diagnosed(
    plan: Plan,
    rows: pa.RecordBatch,
    bad: NDArray[np.intp],
    found: Mapping[int, Mask],
    misfits: Mapping[int, Sequence[Broken]],
) -> Iterator[tuple[int, Mapping[str, str | None], Sequence[Broken]]]:
    """For each row for the quarantine: its place, its texts, and everything that is wrong with it."""
    answers = _run(plan.diagnose.tuples, rows.take(pa.array(bad))) if bad.size else []
    for row, answer in zip(bad.tolist(), answers, strict=True):
        broken = [
            Broken(rule.column, rule.text, rule.message(answer[start + 1 : stop]))
            for number, rule, start, stop in plan.spans
            if answer[start] or (number in found and found[number][row])
        ]
        unconverted = {each.column for each in broken if each.rule.startswith("convert: ")}
        broken += [each for each in misfits.get(row, ()) if each.column not in unconverted]
        yield row, dict(zip(plan.types, answer, strict=False)), broken


def _run(run: Callable[[pa.RecordBatch], T], rows: pa.RecordBatch) -> T:
    try:
        return run(rows)
    except duckdb.Error as error:
        raise RuleError(f"the rules cannot be run: {str(error).splitlines()[0]}") from error


def _result(plan: Plan, rows: pa.RecordBatch, judged: pa.Table, good: Mask) -> pa.RecordBatch:
    result = _columns(plan.outputs, "o", rows, judged)
    return result if good.all() else result.filter(pa.array(good))


def _columns(outputs: Sequence[Output], letter: str, rows: pa.RecordBatch, judged: pa.Table) -> pa.RecordBatch:
    fields, arrays = [], []
    for number, output in enumerate(outputs):
        if output.kept:
            fields.append(output.kept.field(rows.schema))
            arrays.append(output.kept.array(rows))
        else:
            array = _array(judged, f"{letter}{number}", output.value.type)
            fields.append(pa.field(output.name, array.type))
            arrays.append(array)
    return pa.record_batch(arrays, schema=pa.schema(fields))


def _array(judged: pa.Table, name: str, kind: str) -> pa.Array:
    return _extended(judged[name].combine_chunks(), kind)


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
