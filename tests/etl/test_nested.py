from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jiter
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import RuleError
from etl.nested import Shape, flatten


def parsed(text: str) -> Any:
    return jiter.from_json(text.encode(), float_mode="decimal")


def test_numbers_stay_exact() -> None:
    texts = ["12345678901234567890", "0.1", "1.10", "-7", "123456789.123456789"]
    rows = Shape().records([{"n": parsed(text)} for text in texts])
    assert rows["n"].to_pylist() == [Decimal(text) for text in texts]


def test_integers_stay_integers_and_booleans_are_no_numbers() -> None:
    rows = Shape().records([{"i": 2**63 - 1, "b": True}, {"i": None, "b": None}])
    assert rows.schema.types == [pa.int64(), pa.bool_()]
    assert rows.to_pylist() == [{"i": 2**63 - 1, "b": True}, {"i": None, "b": None}]


@pytest.mark.parametrize("text", ["1e300", "123456789012345678901234567890123456789012345678901", "1e-60"])
def test_a_number_beyond_38_digits_is_text(text: str) -> None:
    rows = Shape().records([{"n": 1}, {"n": parsed(text)}])
    assert rows.schema.types == [pa.string()]
    assert [Decimal(value) for value in rows["n"].to_pylist()] == [1, Decimal(text)]


def test_a_long_fraction_gets_the_digits_that_it_needs() -> None:
    rows = Shape().records([{"n": Decimal("0.30000000000000004")}, {"n": 5}])
    assert rows["n"].to_pylist() == [Decimal("0.30000000000000004"), 5]


def test_the_type_of_a_field_only_grows() -> None:
    shape = Shape()
    types = [
        shape.records([{"n": value}]).schema.field("n").type for value in (None, 1, Decimal("1.5"), 2, None, "x", 3)
    ]
    decimal, text = pa.decimal128(38, 9), pa.string()
    assert types == [pa.null(), pa.int64(), decimal, decimal, decimal, text, text]


def test_a_field_that_a_later_record_lacks_is_null() -> None:
    shape = Shape()
    shape.records([{"a": 1, "b": {"c": 1}}])
    assert shape.records([{"a": 2}]).to_pylist() == [{"a": 2, "b": None}]


def test_a_field_of_several_kinds_is_text() -> None:
    rows = Shape().records([{"v": 1}, {"v": "x"}, {"v": [Decimal("1.10")]}, {"v": True}, {"v": None}])
    assert rows["v"].to_pylist() == ["1", "x", "[1.10]", "true", None]


def test_lists_are_json_with_their_numbers_as_written() -> None:
    rows = Shape().records([{"v": parsed('[1.10,{"id":12345678901234567890,"ok":true}]')}, {"v": None}])
    assert rows.schema.types == [pa.json_()]
    assert rows["v"].to_pylist() == ['[1.10,{"id":12345678901234567890,"ok":true}]', None]


def test_objects_are_structs_and_a_missing_object_is_null() -> None:
    rows = Shape().records([{"a": {"b": {"c": 1}}}, {"a": None}, {}])
    assert rows["a"].to_pylist() == [{"b": {"c": 1}}, None, None]


def test_an_object_without_fields_is_json() -> None:
    assert Shape().records([{"a": {}}])["a"].to_pylist() == ["{}"]


def test_records_without_fields_are_rows() -> None:
    assert Shape().records([{}, {}]).num_rows == 2


def test_flatten_lays_structs_flat_and_keeps_the_order() -> None:
    rows = Shape().records([{"id": 1, "address": {"city": "Bonn", "geo": {"lat": 1}}, "z": 2}, {"id": 2}])
    assert flatten(rows).to_pylist() == [
        {"id": 1, "address_city": "Bonn", "address_geo_lat": 1, "z": 2},
        {"id": 2, "address_city": None, "address_geo_lat": None, "z": None},
    ]


def test_flatten_refuses_two_columns_of_one_name() -> None:
    rows = Shape().records([{"address_city": "x", "address": {"city": "y"}}])
    with pytest.raises(RuleError, match="address_city"):
        flatten(rows)


_NUMBERS = st.integers() | st.builds(
    lambda number, scale: Decimal(number).scaleb(-scale), st.integers(), st.integers(0, 45)
)
_SCALARS = st.none() | st.booleans() | st.text('ab"1{', max_size=3) | _NUMBERS
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)


def canonical(value: Any) -> Any:
    """A JSON value as `Shape` may show it: null, missing and empty are told apart by nobody downstream."""
    if isinstance(value, dict):
        return {name: shown for name, item in value.items() if (shown := canonical(item)) is not None}
    if isinstance(value, str):
        try:
            return canonical(json.loads(value, parse_float=Decimal, parse_int=Decimal))
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(st.lists(st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3), max_size=6), st.integers(1, 6))
def test_no_value_is_lost_however_the_records_are_chopped(records: list[dict[str, Any]], size: int) -> None:
    shape = Shape()
    rows = [row for at in range(0, len(records), size) for row in shape.records(records[at : at + size]).to_pylist()]
    assert [canonical(row) for row in rows] == [canonical(record) for record in records]
