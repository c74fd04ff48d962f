"""Every type comes back with the value that went in, read by the database's own client."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DestinationError
from etl.destinations.types import fits
from tests.etl.destinations.backends import SQL, Backend, load, rows

typed = pytest.mark.parametrize("backend", [*SQL, "parquet"], indirect=True)
"""Text files have no types of their own: see `test_files_formats`."""

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001  (a zone is added where it belongs)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    largest = 10**precision - 1
    return st.integers(-largest, largest).map(lambda digits: Decimal(f"{digits}e-{scale}"))


def _integers(kind: pa.DataType) -> st.SearchStrategy[int]:
    signed = pa.types.is_signed_integer(kind)
    bits = kind.bit_width - (1 if signed else 0)
    return st.integers(-(2**bits) if signed else 0, 2**bits - 1)


VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    **{kind: _integers(kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{kind: _integers(kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(18, 2): _decimals(18, 2),
    pa.decimal128(38, 10): _decimals(38, 10),
    pa.decimal128(38, 0): _decimals(38, 0),
    pa.string(): _TEXT | st.sampled_from(["007", "1e5", "NULL", "", " x ", "true", "x" * 100_000]),
    pa.large_string(): _TEXT,
    pa.string_view(): _TEXT,
    pa.dictionary(pa.int8(), pa.string()): _TEXT,
    pa.binary(): st.binary(max_size=20),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    pa.time64("us"): st.times(),
    pa.timestamp("us"): _MOMENTS,
    pa.timestamp("ms"): _MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)),
    pa.timestamp("us", "UTC"): _MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    pa.timestamp("us", "Asia/Kathmandu"): _MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    pa.uuid(): st.uuids(),
    pa.json_(): _JSON,
    pa.list_(pa.int64()): st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3),
    pa.struct({"a": pa.string()}): st.fixed_dictionaries({"a": st.none() | _TEXT}),
}


_MARIADB_MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2038, 1, 19), timezones=st.just(UTC))  # noqa: DTZ001
FEWER: dict[str, dict[pa.DataType, st.SearchStrategy[Any]]] = {
    "mariadb": {
        pa.float32(): st.floats(width=32, allow_nan=False, allow_infinity=False),
        pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
        pa.timestamp("us", "UTC"): _MARIADB_MOMENTS,
        pa.timestamp("us", "Asia/Kathmandu"): _MARIADB_MOMENTS,
        pa.uuid(): st.uuids(version=4),
    }
}
"""What a database cannot keep is refused, see its own tests."""


@st.composite
def _tables(draw: st.DrawFn, values: dict[pa.DataType, st.SearchStrategy[Any]]) -> pa.RecordBatch:
    kinds = draw(st.lists(st.sampled_from(list(values)), min_size=1, max_size=8))
    count = draw(st.integers(1, 5))
    columns = {f"c{number}": _array(draw, kind, count, values[kind]) for number, kind in enumerate(kinds)}
    return pa.record_batch({"id": pa.array(range(count), pa.int64()), **columns})


def _array(draw: st.DrawFn, kind: pa.DataType, count: int, strategy: st.SearchStrategy[Any]) -> pa.Array:
    values = draw(st.lists(st.none() | strategy, min_size=count, max_size=count))
    if kind == pa.json_():
        storage = pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])
        return pa.ExtensionArray.from_storage(kind, storage.cast(pa.string()))
    if kind == pa.uuid():
        return pa.ExtensionArray.from_storage(
            kind, pa.array([value and value.bytes for value in values], pa.binary(16))
        )
    return pa.array(values, kind)


@typed
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_of_any_type_comes_back_as_it_was(backend: Backend, data: st.DataObject) -> None:
    table = data.draw(_tables(VALUES | FEWER.get(backend.kind, {})))
    destination = backend.destination("replace")
    if backend.kind != "parquet" and backend.has():
        backend.query("DROP TABLE orders")

    load(destination, table.slice(0, 1), table.slice(1))

    found = backend.rows()
    for expected, row in zip(table.to_pylist(), found, strict=True):
        for field in table.schema:
            value = expected[field.name]
            assert (value is None) == (field.name not in row)
            assert value is None or _same(value, row[field.name], field.type)


def _same(value: Any, found: Any, kind: pa.DataType) -> bool:
    """Whether a value that a client found is the one that went in; databases without a type for it keep text."""
    if isinstance(kind, pa.JsonType) or pa.types.is_nested(kind):
        value = json.loads(value) if isinstance(kind, pa.JsonType) else value
        return bool(value == (json.loads(found) if isinstance(found, str) else found)) or value == found
    if pa.types.is_float32(kind):
        found = pa.scalar(
            float(found), kind
        ).as_py()  # clients show the shortest digits, which a double reads otherwise
    if isinstance(value, float):
        return (math.isnan(value) and math.isnan(float(found))) or value == found
    if isinstance(found, str) and not isinstance(value, str):
        parse = {Decimal: Decimal, int: int, UUID: UUID}.get(type(value)) or type(value).fromisoformat
        return bool(parse(found) == value)
    return bool(found == value) and (
        not isinstance(value, datetime) or (found.tzinfo is None) == (value.tzinfo is None)
    )


@typed
def test_a_huge_integer_of_the_engine_is_kept_as_a_number(backend: Backend) -> None:
    with duckdb.connect(config={"arrow_lossless_conversion": True}) as engine:
        table = engine.sql("SELECT 1 AS id, 12345678901234567890123456789012345678::HUGEINT AS n").to_arrow_table()

    load(backend.destination(), *table.to_batches())

    (row,) = backend.rows()
    assert int(row["n"]) == 12345678901234567890123456789012345678


def test_an_interval_is_kept_or_refused_by_name(database: Backend) -> None:
    interval = pa.array([(1, 2, 3_000_000_000)], pa.month_day_nano_interval())

    if database.kind in {"sqlite", "mariadb"}:
        with pytest.raises(DestinationError, match="column span has the type"):
            load(database.destination(), rows(id=[1], span=interval))
    else:
        load(database.destination(), rows(id=[1], span=interval))
        (row,) = database.query("SELECT span = INTERVAL '1 month 2 days 3 seconds' AS same FROM orders")
        assert row["same"] is True


@pytest.mark.parametrize("database", ["duckdb", "postgres"], indirect=True)
def test_a_month_does_not_pass_for_thirty_days(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])
    load(destination, rows(id=[1], span=pa.array([(1, 0, 0)], pa.month_day_nano_interval())))

    thirty = rows(id=[1], span=pa.array([(0, 30, 0)], pa.month_day_nano_interval()))

    assert load(destination, thirty, run_id="run-2").updated == 1


def test_a_moment_finer_than_the_database_keeps_is_refused(database: Backend) -> None:
    nanoseconds = pa.array([1], pa.timestamp("ns"))

    with pytest.raises(DestinationError, match="column at: a value does not fit"):
        load(database.destination(), rows(id=[1], at=nanoseconds))


def test_a_duration_is_refused_with_the_way_out(database: Backend) -> None:
    with pytest.raises(DestinationError) as error:
        load(database.destination(), rows(id=[1], span=pa.array([timedelta(1)])))

    assert "column span has the type duration" in error.value.message
    assert error.value.hint == "convert it: `convert: {span: string}`"


def test_lists_and_structs_that_grow_new_fields_still_fit(database: Backend) -> None:
    destination = database.destination()

    load(
        destination,
        rows(id=[1], items=[[{"a": 1}]]),
        rows(id=[2], items=[[{"a": 1, "b": "x"}]]),
        rows(id=[3], items=[[]]),
    )

    found = [row["items"] for row in database.rows()]
    assert [json.loads(text) if isinstance(text, str) else text for text in found] == [
        [{"a": 1}],
        [{"a": 1, "b": "x"}],
        [],
    ]


@pytest.mark.parametrize(
    ("value", "column", "fitting"),
    [
        (pa.int32(), pa.int64(), True),
        (pa.int64(), pa.int32(), False),
        (pa.uint32(), pa.int32(), False),
        (pa.int32(), pa.float64(), True),
        (pa.int64(), pa.float64(), False),
        (pa.int16(), pa.float32(), True),
        (pa.int64(), pa.decimal128(20, 2), False),
        (pa.int64(), pa.decimal128(21, 2), True),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), True),
        (pa.decimal128(10, 2), pa.decimal128(12, 1), False),
        (pa.decimal128(10, 2), pa.decimal128(11, 4), False),
        (pa.decimal128(10, 2), pa.float64(), False),
        (pa.float64(), pa.float32(), False),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), False),
        (pa.string(), pa.json_(), False),
        (pa.json_(), pa.string(), True),
        (pa.string(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.date32(), pa.timestamp("us"), False),
        (pa.null(), pa.int64(), True),
    ],
)
def test_a_type_fits_only_if_no_value_would_change(value: pa.DataType, column: pa.DataType, *, fitting: bool) -> None:
    assert fits(value, column) is fitting
