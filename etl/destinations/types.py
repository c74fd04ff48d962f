"""The types that warehouses keep, and the one rule of who fits into whom: nothing is lost, or it is an error.

Arrow's types are the common tongue. Every database here keeps boolean, int16/32/64, float32/64, decimal(p,s), text,
binary, date, time, timestamp with and without zone (microseconds), uuid and json; lists and structs become json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from errors import DestinationError
from etl.quoting import quoted

JSON = pa.json_()
INTERVAL = pa.month_day_nano_interval()

_KEPT = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
}
_AS_THEY_ARE = {
    pa.null(), pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.binary(),
    pa.date32(), pa.uuid(), INTERVAL,
}  # fmt: skip

_NARROW = {pa.int16(): "SMALLINT", pa.int32(): "INTEGER"}
"""Integers that `convert` does not make: its own have 64 bits."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        name: As the table spells it.
        type: What it takes, as an Arrow type; None if the engine cannot write into it.
        declared: Its type as the database writes it.
        identity: Whether equal values are the same value (not so for json or case-insensitive text).
        order: What an ORDER BY and a comparison need besides the name.
        index: What an index needs besides the name.
        nullable: False where the database would put something else in the place of a NULL.
    """

    name: str
    type: pa.DataType | None
    declared: str
    identity: bool = True
    order: str = ""
    index: str = ""
    nullable: bool = True


def kept(kind: pa.DataType) -> pa.DataType | None:
    """The type in which warehouses keep values of an Arrow type; None if they cannot."""
    types = pa.types
    if types.is_nested(kind) or isinstance(kind, pa.JsonType):
        return JSON
    if types.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_time(kind) or types.is_fixed_size_binary(kind):
        return pa.time64("us") if types.is_time(kind) else pa.binary()
    return kind if kind in _AS_THEY_ARE else _KEPT.get(kind)


def fits(value: pa.DataType, column: pa.DataType) -> bool:
    """Whether every value of a type fits into a column of another without loss."""
    types = pa.types
    if value == column or types.is_null(value):
        return True
    if types.is_integer(value):
        return _integer_fits(value, column)
    if types.is_decimal(value) and types.is_decimal(column):
        whole = value.precision - value.scale <= column.precision - column.scale
        return bool(whole and value.scale <= column.scale)
    if types.is_floating(value) and types.is_floating(column):
        return bool(value.bit_width <= column.bit_width)
    if types.is_timestamp(value) and types.is_timestamp(column):
        return (value.tz is None) == (column.tz is None)
    return bool(isinstance(value, pa.JsonType) and types.is_string(column))


def _integer_fits(value: pa.DataType, column: pa.DataType) -> bool:
    low, high = _range(value)
    if pa.types.is_integer(column):
        return _range(column)[0] <= low and high <= _range(column)[1]
    if pa.types.is_decimal(column):
        return bool(len(str(high)) <= column.precision - column.scale)
    mantissa = {pa.float32(): 24, pa.float64(): 53}.get(column, 0)
    return high.bit_length() <= mantissa


def _range(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1


def plain(table: str, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without Arrow's ways of packing: dictionaries, booleans of 8 bits, and DuckDB's hugeint as 16 bytes.

    Raises:
        DestinationError: A value of hugeint has more than 38 digits, or a column is of a type that only DuckDB knows.
    """
    arrays = [_plain(table, field, array) for field, array in zip(rows.schema, rows.columns, strict=True)]
    return pa.record_batch(arrays, names=rows.schema.names)


def _plain(table: str, field: pa.Field, array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(field.type):
        return array.dictionary_decode()
    if isinstance(field.type, pa.Bool8Type):
        return array.storage.cast(pa.bool_())
    if isinstance(field.type, pa.OpaqueType):
        if field.type.type_name != "hugeint":
            raise _unkept(table, field)
        return by_engine(array, "CAST(value AS DECIMAL(38, 0))", f"{table}: column {field.name}")
    return array


def keep(table: str, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows in the types that warehouses keep.

    Raises:
        DestinationError: A column cannot be kept without loss.
    """
    rows = plain(table, rows)
    arrays = [_kept_array(table, field, array) for field, array in zip(rows.schema, rows.columns, strict=True)]
    return pa.record_batch(arrays, names=rows.schema.names)


def _kept_array(table: str, field: pa.Field, array: pa.Array) -> pa.Array:
    kind = kept(field.type)
    if kind is None:
        raise _unkept(table, field)
    if pa.types.is_nested(field.type):
        text = by_engine(array, "CASE WHEN value IS NOT NULL THEN to_json(value) END", f"{table}: column {field.name}")
        return cast(table, field.name, text, JSON)
    return array if kind == field.type else cast(table, field.name, array, kind)


def fit(table: str, rows: pa.RecordBatch, columns: Mapping[str, Column]) -> pa.RecordBatch:
    """The rows in the types and with the names of a table's columns; each name of `rows` is in `columns`.

    Raises:
        DestinationError: A column's values do not fit the table's column.
    """
    found = [columns[name] for name in rows.schema.names]
    arrays = [_fitted(table, column, array) for column, array in zip(found, rows.columns, strict=True)]
    return pa.record_batch(arrays, names=[column.name for column in found])


def _fitted(table: str, column: Column, array: pa.Array) -> pa.Array:
    if column.type is None or not fits(array.type, column.type):
        raise DestinationError(
            f"{table}: column {column.name} is {column.declared}, the data has {array.type}",
            hint=_way_out(column),
        )
    if array.null_count and not column.nullable:
        raise DestinationError(
            f"{table}: column {column.name} must have a value, and is NULL in {array.null_count} rows",
            hint=f"set such rows aside: `validate: {{{column.name}: {{required: true}}}}`",
        )
    return array if array.type == column.type else cast(table, column.name, array, column.type)


def _way_out(column: Column) -> str:
    """What makes values fit, so that those which cannot are set aside."""
    if column.type in _NARROW:
        cast = f"derive: {{{column.name}: CAST({quoted(column.name)} AS {_NARROW[column.type]})}}"
        return f"make it narrower, which sets aside what does not fit: `{cast}`, or load into a new table"
    wanted = _conversion(column.type)
    return (f"convert it: `convert: {{{column.name}: {wanted}}}`, or " if wanted else "") + "load into a new table"


def _conversion(kind: pa.DataType | None) -> str | None:
    """What a pipeline file calls the type in `convert`."""
    if kind is None or pa.types.is_binary(kind) or pa.types.is_time(kind) or kind in {INTERVAL, pa.float32()}:
        return None
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_integer(kind):
        return "bigint" if kind.bit_width == 64 else None
    if isinstance(kind, pa.JsonType):
        return "json"
    names = {pa.string(): "string", pa.bool_(): "boolean", pa.date32(): "date", pa.uuid(): "uuid"}
    return names.get(kind, "number")


def cast(table: str, name: str, array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values in another type.

    Raises:
        DestinationError: A value would change.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, cast(table, name, array, kind.storage_type))
    if pa.types.is_decimal256(kind) and pa.types.is_decimal(array.type):
        return array  # a column of more digits than Arrow's 128 bits takes decimals as they are
    try:
        return array.cast(kind)
    except pa.ArrowInvalid as error:
        raise DestinationError(
            f"{table}: column {name}: a value does not fit {kind} exactly: {error}",
            hint="convert the column to a type that holds its values",
        ) from None


def by_engine(array: pa.Array, expression: str, label: str) -> pa.Array:
    """What an SQL expression makes of `value`."""
    import duckdb

    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        try:
            result = engine.from_arrow(pa.table({"value": array})).project(f"{expression} AS value").to_arrow_table()
        except duckdb.Error as error:
            raise DestinationError(f"{label}: {error}", hint="convert the column to string") from None
    return result["value"].combine_chunks()


def narrowed(array: pa.Array, kind: pa.DataType | None) -> pa.Array:
    """Integers in a column's own type, where all of them fit: to be looked up there, they need not be what it takes."""
    if kind is None or not (pa.types.is_integer(array.type) and pa.types.is_integer(kind)):
        return array
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        return array


def untyped(table: str, rows: pa.RecordBatch) -> DestinationError:
    """That no column of the rows has a type, since all their values are NULL."""
    return DestinationError(
        f"{table}: none of the columns {', '.join(rows.schema.names)} has a type yet",
        hint="give them types: `convert: {column: string}`",
    )


def _unkept(table: str, field: pa.Field) -> DestinationError:
    return DestinationError(
        f"{table}: column {field.name} has the type {field.type}, which cannot be kept",
        hint=f"convert it: `convert: {{{field.name}: string}}`",
    )
