"""Nested records as columns: JSON records become typed columns, structs become flat columns."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain, repeat
from typing import Any

import jiter
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from errors import RuleError

_EMPTY: dict[str, Any] = {}
_SCALE = 9


def parse(text: bytes) -> Any:  # noqa: ANN401  (JSON can be anything)
    """JSON (RFC 8259) with exact numbers: integers of any size, fractions as decimals.

    Raises:
        ValueError: It is not JSON, holds NaN or infinity, has a key twice in an object, or is nested too deeply.
    """
    return jiter.from_json(text, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="decimal")


@contextmanager
def without_collector() -> Iterator[None]:
    """For parsing: JSON has no cycles, and looking for some in a million new objects takes as long as parsing them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Shape:
    """What a field of JSON records has held so far. Its type only grows, so that the batches of one run agree.

    Text, booleans and integers keep their types. Numbers with a fraction are decimals, with nine digits after the
    point or as many as they need; integers of more than 64 bits are decimals, too. Objects are structs. Lists, and
    objects without fields, are JSON. A field that holds things of several kinds is text: strings as they are,
    everything else as JSON.
    """

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._number: pa.DataType | None = pa.int64()
        self._fields: dict[str, Shape] = {}

    def records(self, records: Sequence[dict[str, Any]]) -> pa.RecordBatch:
        """JSON objects as rows; every field that was ever seen is a column.

        Raises:
            RecursionError: An object is nested too deeply.
        """
        columns = self._columns(records)
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{} for _ in records], pa.struct([])))
        return pa.record_batch(list(columns.values()), names=list(columns))

    def array(self, values: Sequence[Any]) -> pa.Array:
        """The field's values as a column."""
        self._kinds.update(map(type, values))
        self._kinds.discard(type(None))
        if not self._kinds:
            return pa.nulls(len(values))
        if self._kinds in ({str}, {bool}):
            return pa.array(values, pa.string() if str in self._kinds else pa.bool_())
        if self._kinds <= {int, Decimal}:
            return self._numbers(values)
        if self._all(dict):
            return self._struct(values)
        return _json(values) if self._all(dict, list) else _texts(values)

    def _all(self, *kinds: type) -> bool:
        return all(issubclass(kind, kinds) for kind in self._kinds)

    def _columns(self, records: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
        for name in dict.fromkeys(chain.from_iterable(records)):
            self._fields.setdefault(name, Shape())
        return {name: shape.array(list(map(dict.get, records, repeat(name)))) for name, shape in self._fields.items()}

    def _struct(self, values: Sequence[Any]) -> pa.Array:
        columns = self._columns([value or _EMPTY for value in values])
        if not columns:
            return _json(values)
        missing = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns), mask=missing)

    def _numbers(self, values: Sequence[Any]) -> pa.Array:
        if Decimal in self._kinds and self._number in {pa.int64(), pa.decimal128(38, 0)}:
            self._number = pa.decimal128(38, _SCALE)
        while self._number:
            try:
                return pa.array(values, self._number)
            except (OverflowError, pa.ArrowInvalid):
                self._number = _wider(self._number, values)
        return _texts(values)


def flatten(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with structs laid flat: `address.city` becomes `address_city`, at any depth.

    Raises:
        RuleError: A flat column would have the name of another column.
    """
    while structs := {field.name for field in rows.schema if pa.types.is_struct(field.type)}:
        columns = [column for name in rows.schema.names for column in _flat(rows, name, name in structs)]
        names = [name for name, _ in columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RuleError(
                f"a nested field becomes the column {twice}, but there is such a column already",
                hint=f"give one of them another name with `map`: {{{twice}: ...}}",
            )
        rows = pa.record_batch([column for _, column in columns], names=names)
    return rows


def _flat(rows: pa.RecordBatch, name: str, is_struct: bool) -> list[tuple[str, pa.Array]]:
    column = rows.column(name)
    if not is_struct:
        return [(name, column)]
    return [(f"{name}_{field.name}", pc.struct_field(column, [place])) for place, field in enumerate(column.type)]


def _wider(number: pa.DataType, values: Sequence[Any]) -> pa.DataType | None:
    """A type that may hold the numbers that `number` cannot; None if only text can."""
    if number == pa.int64():
        return pa.decimal128(38, 0)
    scale = max((-int(value.as_tuple().exponent) for value in values if isinstance(value, Decimal)), default=0)
    return pa.decimal128(38, scale) if number.scale < scale <= 38 else None


def _texts(values: Sequence[Any]) -> pa.Array:
    return pa.array([value if isinstance(value, str) else dump(value) for value in values], pa.string())


def _json(values: Sequence[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(list(map(dump, values)), pa.string()))


def dump(value: Any) -> str | None:  # noqa: ANN401  (JSON can be anything)
    """A value as JSON text, numbers exactly as they were written; None if there is none."""
    if value is None:
        return None
    try:
        return orjson.dumps(value, default=_exact).decode()
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise RecursionError(str(error)) from None
        return orjson.dumps(_decimals(value), default=_exact).decode()


def _exact(number: Decimal) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def _decimals(value: Any) -> Any:  # noqa: ANN401  (JSON can be anything)
    match value:
        case bool():
            return value
        case int():
            return Decimal(value)
        case list():
            return [_decimals(item) for item in value]
        case dict():
            return {name: _decimals(item) for name, item in value.items()}
    return value
