from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from errors import RuleError
from etl.pipeline import Transform
from etl.rules import Rules
from etl.stream import BadRow, Batch, Transformed

EMAIL = r"[^@ ]+@[^@ ]+\.[^@ ]+"


def apply(transform: Mapping[str, Any], *batches: Mapping[str, Any] | pa.RecordBatch) -> list[Transformed]:
    """Runs the rules over the batches of one run."""
    done, start = [], 0
    with closing(Rules(Transform.model_validate(transform))) as rules:
        for batch in batches:
            rows = batch if isinstance(batch, pa.RecordBatch) else pa.record_batch(dict(batch))
            result = rules.apply(Batch(rows, lambda index, start=start: {"record": start + index}))  # type: ignore[misc]
            assert rows.num_rows == result.good.num_rows + len(result.bad) + result.filtered
            done.append(result)
            start += rows.num_rows
    return done


def good(transform: Mapping[str, Any], rows: Mapping[str, Any] | pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows that follow the rules; all must."""
    (done,) = apply(transform, rows)
    assert not done.bad
    return done.good.to_pylist()  # type: ignore[no-any-return]


def bad(transform: Mapping[str, Any], rows: Mapping[str, Any] | pa.RecordBatch) -> list[list[str]]:
    """For each row that breaks rules: "column: rule: message"."""
    (done,) = apply(transform, rows)
    return [broken(row) for row in done.bad]


def broken(row: BadRow) -> list[str]:
    return [f"{each.column}: {each.rule}: {each.message}" for each in row.broken]


def refused(transform: Mapping[str, Any], rows: Mapping[str, Any] | pa.RecordBatch) -> str:
    """The error of rules that do not fit the data."""
    with pytest.raises(RuleError) as error:
        apply(transform, rows)
    return str(error.value)


# --- map ------------------------------------------------------------------------------------------------------


def test_without_rules_rows_pass_as_they_are() -> None:
    assert good({}, {"a": [1, None], "b": ["x", "y"]}) == [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]


def test_map_renames_and_leaves_the_rest_out() -> None:
    assert good({"map": {"OrderID": "id", "amt": "amount"}}, {"amt": [1], "other": [2], "OrderID": [3]}) == [
        {"id": 3, "amount": 1}
    ]


def test_a_star_keeps_the_rest_in_its_place() -> None:
    (done,) = apply({"map": {"b": "B", "*": "*"}}, {"a": [1], "b": [2], "c": [3]})
    assert done.good.schema.names == ["a", "B", "c"]


def test_columns_that_rules_name_are_kept_beside_the_mapped_ones() -> None:
    transform = {"map": {"a": "A"}, "convert": {"b": "integer"}, "validate": {"c": {"required": True}}}
    assert good(transform, {"a": [1], "b": ["2"], "c": [3], "d": [4]}) == [{"A": 1, "b": 2, "c": 3}]


def test_map_reaches_into_nested_values() -> None:
    rows = {"who": [{"name": "x", "at": {"city": "Rome"}}, {"name": "y", "at": None}, None]}
    assert good({"map": {"who.at.city": "city", "who.name": "name"}}, rows) == [
        {"city": "Rome", "name": "x"},
        {"city": None, "name": "y"},
        {"city": None, "name": None},
    ]


def test_a_column_whose_name_has_a_dot_goes_before_a_field() -> None:
    assert good({"map": {"a.b": "x"}}, {"a": [{"b": 1}], "a.b": [2]}) == [{"x": 2}]


def test_a_nested_value_can_be_converted_and_validated() -> None:
    rows = {"at": [{"zip": "12"}, {"zip": "x"}]}
    transform = {"map": {"at.zip": "zip"}, "convert": {"zip": "integer"}}
    assert bad(transform, rows) == [["zip: convert: integer: 'x' is not an integer of 64 bits"]]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"map": {"amout": "x"}}, "map: there is no column amout\n  hint: did you mean amount? The columns are id"),
        ({"map": {"place.cty": "x"}}, "map: there is no column place.cty\n  hint: did you mean place.city?"),
        ({"convert": {"amuont": "integer"}}, "convert: there is no column amuont\n  hint: did you mean amount?"),
        ({"validate": {"x": {"min": 1}}}, "validate: there is no column x\n  hint: The columns are id, amount, place"),
        ({"map": {"id": "k"}, "convert": {"id": "date"}}, "convert: there is no column id\n  hint: `map` renames it"),
        ({"map": {"id": "amount", "*": "*"}}, "map: two columns get the name amount"),
        ({"derive": {"x": "amuont + 1"}}, "derive: x: there is no column amuont\n  hint: did you mean amount?"),
        ({"map": {"id": "id"}, "filter": ["n > 1"]}, "filter: there is no column n\n  hint: The columns are id"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_column_is_told_with_the_nearest_one(transform: dict[str, Any], message: str) -> None:
    assert refused(transform, {"id": [1], "amount": [2], "place": [{"city": "x"}]}).startswith(message)


def test_data_with_two_columns_of_one_name_is_refused() -> None:
    rows = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert refused({}, rows).startswith("the data has two columns named a")


def test_what_no_rule_touches_is_handed_on_without_a_copy_and_in_its_own_type() -> None:
    rows = pa.record_batch(
        {
            "at": pa.array([1], pa.timestamp("ns", "Europe/Berlin")),
            "kind": pa.array(["x"]).dictionary_encode(),
            "id": pa.array([UUID(int=1).bytes], pa.uuid()),
            "n": pa.array(["1"]),
        }
    )
    (done,) = apply({"convert": {"n": "integer"}}, rows)
    assert done.good.schema.types[:3] == rows.schema.types[:3]
    assert done.good["at"].buffers()[1].address == rows["at"].buffers()[1].address


# --- convert --------------------------------------------------------------------------------------------------

HELD = [
    ("integer", "12", 12),
    ("integer", " -12\t", -12),
    ("integer", "+7", 7),
    ("integer", "007", 7),
    ("integer", "2.0", 2),
    ("integer", "-9223372036854775808", -(2**63)),
    ("bigint", "9223372036854775807", 2**63 - 1),
    ("decimal(18,2)", "1.20", Decimal("1.20")),
    ("decimal(18,2)", "1.2000", Decimal("1.20")),
    ("decimal(18,2)", ".5", Decimal("0.50")),
    ("decimal(38,0)", "9" * 38, Decimal("9" * 38)),
    ("number", "1.239", 1.239),
    ("number", "-1e3", -1000.0),
    ("number", "9007199254740991", 2.0**53 - 1),
    ("boolean", "YES", True),
    ("boolean", " f ", False),
    ("boolean", "on", True),
    ("boolean", "0", False),
    ("date", "2024-02-29", date(2024, 2, 29)),
    ("timestamp", "2024-02-29T10:00:00.5", datetime(2024, 2, 29, 10, 0, 0, 500_000)),  # noqa: DTZ001
    ("timestamp", "2024-02-29 10:00", datetime(2024, 2, 29, 10)),  # noqa: DTZ001
    ("timestamp", "2024-02-29", datetime(2024, 2, 29)),  # noqa: DTZ001
    ("timestamptz", "2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10, tzinfo=UTC)),
    ("timestamptz", "2024-02-29 10:00+0230", datetime(2024, 2, 29, 7, 30, tzinfo=UTC)),
    ("json", '{"a": [1, null]}', '{"a": [1, null]}'),
    ("uuid", "0E37DF36-F698-11E6-8DD4-CB9CED3DF976", UUID("0e37df36-f698-11e6-8dd4-cb9ced3df976")),
    ("string", "007", "007"),
    ("string", "", ""),
]
REFUSED = [
    *(("integer", text) for text in ["", " ", "1.5", "1e3", "1,000", "1_000", "0x1f", "12a", "9223372036854775808"]),
    *(("decimal(18,2)", text) for text in ["1.239", "1e2", "12345678901234567.00", "1,5", "NaN", "", "."]),
    *(("number", text) for text in ["", "NaN", "inf", "1e999", "9007199254740993", "1,5", "0x10"]),
    *(("boolean", text) for text in ["", "maybe", "2", "yess"]),
    *(("date", text) for text in ["2024-02-30", "2024-2-1", "01/02/2024", "2024-02-01 10:00", "0000-01-01"]),
    *(("timestamp", text) for text in ["2024-02-30 10:00", "2024-01-01 24:00", "2024-01-01T10:00:00.1234567", "epoch"]),
    *(("timestamp", text) for text in ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00+02:00"]),
    *(("timestamptz", text) for text in ["2024-01-01T10:00:00", "2024-01-01", "2024-01-01T10:00+25:00"]),
    *(("json", text) for text in ["", "{'a':1}", '{"a":1,"a":2}', "[NaN]", "[1,]", "{", '[{"b":{"a":1,"a":1}}]']),
    *(("uuid", text) for text in ["0e37df36f69811e68dd4cb9ced3df976", "x", "{0e37df36-f698-11e6-8dd4-cb9ced3df976}"]),
]  # fmt: skip


@pytest.mark.parametrize(("target", "text", "value"), HELD)
def test_a_text_converts_exactly(target: str, text: str, value: Any) -> None:
    assert good({"convert": {"a": target}}, {"a": [text, None]}) == [{"a": value}, {"a": None}]


@pytest.mark.parametrize(("target", "text"), REFUSED)
def test_a_value_that_does_not_convert_is_quarantined(target: str, text: str) -> None:
    ((message,),) = bad({"convert": {"a": target}}, {"a": [text]})
    assert message.startswith(f"a: convert: {target}: {text!r} is not ")


def test_converted_columns_have_arrow_types_of_their_own() -> None:
    targets = {
        "string": pa.string(),
        "integer": pa.int64(),
        "bigint": pa.int64(),
        "number": pa.float64(),
        "decimal(12,3)": pa.decimal128(12, 3),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
        "json": pa.json_(),
        "uuid": pa.uuid(),
    }
    (done,) = apply(
        {"convert": {name: name for name in targets}}, {name: pa.array([], pa.string()) for name in targets}
    )
    assert dict(zip(done.good.schema.names, done.good.schema.types, strict=True)) == targets


def test_nested_values_become_json() -> None:
    assert good({"convert": {"a": "json"}}, {"a": [{"b": [1, None]}, None]}) == [{"a": '{"b":[1,null]}'}, {"a": None}]


def test_bytes_become_text_if_they_are_utf8() -> None:
    rows = {"a": [b"\xc3\xa9", b"\xff"]}
    (done,) = apply({"convert": {"a": "string"}}, rows)
    assert done.good.to_pylist() == [{"a": "é"}]
    assert broken(done.bad[0]) == ["a: convert: string: \\xFF is not text"]


@pytest.mark.parametrize(
    ("value", "target", "message"),
    [
        (date(2024, 1, 1), "integer", "convert: a: integer: the column is a DATE, which cannot become an integer"),
        (datetime(2024, 1, 1, tzinfo=UTC), "timestamp", "convert: a: timestamp: the column is a TIMESTAMP WITH"),
        (datetime(2024, 1, 1), "timestamptz", "convert: a: timestamptz: the column is a TIMESTAMP, which"),  # noqa: DTZ001
        ([1], "string", "convert: a: string: the column has nested values, which become json, not text"),
        (1, "json", "convert: a: json: the column is a BIGINT, which cannot become JSON"),
    ],
)  # fmt: skip
def test_a_conversion_that_no_value_can_pass_is_refused(value: Any, target: str, message: str) -> None:
    assert refused({"convert": {"a": target}}, {"a": [value]}).startswith(message)


# --- validate -------------------------------------------------------------------------------------------------

BREAKING = [
    ("x", {"required": True}, None, "x: required: there is no value"),
    ("x", {"min": 0}, -5, "x: min: 0: -5 is less than 0"),
    ("x", {"min": Decimal("0.50")}, 0.25, "x: min: 0.50: 0.25 is less than 0.50"),
    ("x", {"max": 10}, Decimal("10.01"), "x: max: 10: 10.01 is greater than 10"),
    ("x", {"max": 10}, float("nan"), "x: max: 10: nan is greater than 10"),
    ("x", {"min": date(2024, 1, 1)}, date(2023, 12, 31), "x: min: 2024-01-01: 2023-12-31 is less than 2024-01-01"),
    ("x", {"min": "b"}, "a", "x: min: b: 'a' is less than b"),
    ("x", {"min_length": 3}, "ab", "x: min_length: 3: 'ab' has fewer than 3 characters"),
    ("x", {"max_length": 1}, "éé", "x: max_length: 1: 'éé' has more than 1 characters"),
    ("x", {"pattern": "[a-z]+"}, "ab1", "x: pattern: [a-z]+: 'ab1' does not match [a-z]+"),
    ("x", {"in": ["paid", "open"]}, "Paid", "x: in: [paid, open]: 'Paid' is none of paid, open"),
    ("x", {"not_in": [1, 2]}, 2, "x: not_in: [1, 2]: 2 is one of 1, 2"),
    ("x", {"in": [True]}, False, "x: in: [true]: false is none of true"),
]


@pytest.mark.parametrize(("name", "checks", "value", "message"), BREAKING)
def test_a_value_that_fails_a_check_is_quarantined(name: str, checks: dict[str, Any], value: Any, message: str) -> None:
    rows = {name: pa.array([value], pa.int64() if value is None else None)}
    assert bad({"validate": {name: checks}}, rows) == [[message]]


def test_no_value_passes_every_check_but_required() -> None:
    checks = {"min": "a", "max": "b", "in": ["x"], "not_in": ["y"], "pattern": "z", "min_length": 1, "unique": True}
    rows = {"a": pa.array([None, None], pa.string())}
    assert len(good({"validate": {"a": checks}}, rows)) == 2


@pytest.mark.parametrize(("target", "text", "value"), [case for case in HELD if case[0] != "string"])
def test_a_text_may_be_of_a_type_and_stays_as_it_is(target: str, text: str, value: Any) -> None:  # noqa: ARG001
    assert good({"validate": {"a": {"type": target}}}, {"a": [text, None]}) == [{"a": text}, {"a": None}]


@pytest.mark.parametrize(("target", "text"), REFUSED)
def test_a_text_that_is_not_of_a_type_is_quarantined(target: str, text: str) -> None:
    ((message,),) = bad({"validate": {"a": {"type": target}}}, {"a": [text]})
    assert message.startswith(f"a: type: {target}: {text!r} is not ")


def test_a_type_that_no_value_can_be_of_is_refused() -> None:
    message = "validate: a: type: integer: the column is a DATE, which cannot become an integer"
    assert refused({"validate": {"a": {"type": "integer"}}}, {"a": [date(2024, 1, 1)]}).startswith(message)


def test_an_expectation_across_columns_shows_the_values_of_a_row_that_breaks_it() -> None:
    transform = {"convert": {"start": "date", "end": "date"}, "expect": ['start <= "end"', "10 / n > 1"]}
    rows = {"start": ["2024-01-02", "2024-01-02", None, "x"], "end": ["2024-01-01", "2024-01-02", "2024-01-01", "x"]}
    (done,) = apply(transform, {**rows, "n": [0, 1, None, 20]})
    assert [row["n"] for row in done.good.to_pylist()] == [1, None]  # NULL breaks no expectation
    assert [broken(row) for row in done.bad] == [
        [
            ': expect: start <= "end": start <= "end" does not hold with start = 2024-01-02, end = 2024-01-01',
            ": expect: 10 / n > 1: 10 / n > 1 cannot be told with n = 0",
        ],
        [
            "start: convert: date: 'x' is not a date (2024-05-01)",
            "end: convert: date: 'x' is not a date (2024-05-01)",
            ": expect: 10 / n > 1: 10 / n > 1 does not hold with n = 20",
        ],
    ]


def test_an_expectation_is_about_the_row_before_derived_columns() -> None:
    transform = {"expect": ["a > 0"], "derive": {"a": "-a"}}
    assert good(transform, {"a": [5]}) == [{"a": -5}]
    assert refused({"expect": ["b > 0"], "derive": {"b": "a"}}, {"a": [1]}).startswith("expect: there is no column b")
    assert refused({"expect": ["a + 1"]}, {"a": [1]}).startswith("expect: a + 1 is a BIGINT, not a condition")


def test_every_broken_rule_of_a_row_is_told() -> None:
    transform = {
        "convert": {"amount": "decimal(18,2)", "at": "date"},
        "validate": {
            "amount": {"min": 0, "in": [1, 2]},
            "email": {"pattern": EMAIL, "max_length": 3},
            "qty": {"type": "boolean", "not_in": [0]},
        },
        "expect": ["amount > qty"],
        "derive": {"each": "amount / qty"},
        "filter": ["10 // qty > 1"],
    }
    rows = {"amount": ["-5"], "at": ["x"], "email": ["nobody"], "qty": [0]}
    (messages,) = bad(transform, rows)
    assert messages == [
        "at: convert: date: 'x' is not a date (2024-05-01)",
        "amount: min: 0: '-5' is less than 0",
        "amount: in: [1, 2]: '-5' is none of 1, 2",
        "email: max_length: 3: 'nobody' has more than 3 characters",
        f"email: pattern: {EMAIL}: 'nobody' does not match {EMAIL}",
        "qty: not_in: [0]: 0 is one of 0",
        ": expect: amount > qty: amount > qty does not hold with amount = -5.00, qty = 0",
        "each: derive: each: amount / qty cannot be computed with amount = -5.00, qty = 0",
        ": filter: 10 // qty > 1: 10 // qty > 1 cannot be told with qty = 0",
    ]


def test_a_value_that_does_not_convert_breaks_no_other_rule_of_its_column() -> None:
    transform = {"convert": {"a": "integer"}, "validate": {"a": {"required": True, "min": 5, "unique": True}}}
    assert bad(transform, {"a": ["x", "x"]}) == [["a: convert: integer: 'x' is not an integer of 64 bits"]] * 2


def test_bounds_are_compared_in_the_converted_type() -> None:
    transform = {"convert": {"a": "integer"}, "validate": {"a": {"min": 9}}}
    assert good(transform, {"a": ["10"]}) == [{"a": 10}]


@pytest.mark.parametrize(
    ("checks", "value", "message"),
    [
        ({"min": 5}, "x", "validate: a: min: 5 is not text, but the column is VARCHAR\n  hint: write min: '5'"),
        ({"in": [True]}, "x", "validate: a: in: true is not text"),
        ({"min": "x"}, 1, "validate: a: min: x is not an integer of 64 bits, but the column is BIGINT"),
        ({"max": Decimal("1.5")}, 1, "validate: a: max: 1.5 is not an integer"),
        ({"min": Decimal("0.005")}, Decimal("1.00"), "validate: a: min: 0.005 is not a decimal of at most 1 digits"),
        ({"min": "2024-02-30"}, date(2024, 1, 1), "validate: a: min: 2024-02-30 is not a date"),
        ({"max_length": 3}, 1, "validate: a: max_length is for text, the column is BIGINT"),
        ({"pattern": "x"}, 1, "validate: a: pattern is for text, the column is BIGINT"),
        ({"pattern": "(?=x)"}, "x", "validate: a: pattern: '(?=x)' is not a regular expression: invalid perl operator"),
        ({"min": 1}, [1], "validate: a: min cannot compare the column, which is BIGINT[]"),
    ],
)  # fmt: skip
def test_a_check_that_does_not_fit_its_column_is_refused(checks: dict[str, Any], value: Any, message: str) -> None:
    assert refused({"validate": {"a": checks}}, {"a": [value]}).startswith(message)


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint8(), pa.uint64(), pa.int32()])
def test_bounds_may_be_beyond_a_small_integer_type(type_: pa.DataType) -> None:
    assert good({"validate": {"a": {"min": -1000, "max": 1000}}}, {"a": pa.array([7], type_)}) == [{"a": 7}]


# --- unique ---------------------------------------------------------------------------------------------------


def test_the_first_row_of_the_run_takes_a_unique_value() -> None:
    first, second = apply({"validate": {"a": {"unique": True}}}, {"a": ["x", "y", "x", None]}, {"a": ["y", "z", None]})
    assert first.good.to_pylist() == [{"a": "x"}, {"a": "y"}, {"a": None}]
    assert second.good.to_pylist() == [{"a": "z"}, {"a": None}]
    assert broken(second.bad[0]) == ["a: unique: 'y' is a duplicate: an earlier row of the run has it"]
    assert [row.origin["record"] for row in (*first.bad, *second.bad)] == [2, 4]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        [0.5, 0.25],
        ["", "a"],
        [Decimal("1.5"), Decimal("1.6")],
        [date(2024, 1, 1), date(2024, 1, 2)],
        [b"\x00", b"\x00\x00"],
        [True, False],
        [UUID(int=1), UUID(int=2)],
        [[1], [1, 2]],
        [{"a": 1}, {"a": 2}],
    ],
)
def test_values_of_any_type_can_be_unique(values: list[Any]) -> None:
    array = pa.array([value.bytes for value in values], pa.uuid()) if isinstance(values[0], UUID) else pa.array(values)
    first, second = apply({"validate": {"a": {"unique": True}}}, {"a": array}, {"a": array})
    assert (first.good.num_rows, len(second.bad)) == (2, 2)


def test_equal_values_are_duplicates_however_they_were_written() -> None:
    transform = {"convert": {"a": "decimal(5,2)"}, "validate": {"a": {"unique": True}}}
    assert len(bad(transform, {"a": ["1.5", "1.50", " 01.5"]})) == 2
    assert len(bad({"validate": {"a": {"unique": True}}}, {"a": [0.0, -0.0, float("nan"), float("nan")]})) == 2


def test_a_row_that_breaks_another_rule_leaves_its_value_to_a_later_one() -> None:
    transform = {"validate": {"id": {"unique": True}, "n": {"min": 0}}}
    (done,) = apply(transform, {"id": [1, 1, 1], "n": [-1, 5, -1]})
    assert done.good.to_pylist() == [{"id": 1, "n": 5}]
    assert [[each.rule for each in row.broken] for row in done.bad] == [["min: 0"], ["unique", "min: 0"]]


def test_a_row_that_is_filtered_out_has_taken_its_value() -> None:
    (done,) = apply({"validate": {"id": {"unique": True}}, "filter": ["n > 0"]}, {"id": [1, 1], "n": [0, 1]})
    assert (done.good.num_rows, len(done.bad), done.filtered) == (0, 1, 1)


def test_a_duplicate_in_one_column_takes_nothing_in_another() -> None:
    transform = {"validate": {"a": {"unique": True}, "b": {"unique": True}}}
    (done,) = apply(transform, {"a": [1, 1, 2], "b": [1, 2, 2]})
    assert done.good.to_pylist() == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


# --- derive ---------------------------------------------------------------------------------------------------


def test_a_derived_column_may_use_an_earlier_one() -> None:
    transform = {"derive": {"net": "amount - 1", "double": "net * 2"}}
    assert good(transform, {"amount": [5]}) == [{"amount": 5, "net": 4, "double": 8}]


@pytest.mark.parametrize(
    ("clock", "type_"),
    [
        ("now()", pa.timestamp("us", "UTC")),
        ("current_timestamp", pa.timestamp("us", "UTC")),
        ("get_current_timestamp()", pa.timestamp("us", "UTC")),
        ("transaction_timestamp()", pa.timestamp("us", "UTC")),
        ("localtimestamp", pa.timestamp("us")),
        ("current_date", pa.date32()),
        ("today()", pa.date32()),
        ("localtime", pa.time64("us")),
        ("CAST(current_time AS VARCHAR)", pa.string()),
        ("age(DATE '2024-02-29')", pa.month_day_nano_interval()),
    ],
)
def test_the_clock_stands_still_during_a_run(clock: str, type_: pa.DataType) -> None:
    rules = {"derive": {"x": clock}, "filter": [f"{clock} IS NOT NULL", f"x = {clock}"]}
    done = apply(rules, {"a": [1, 2]}, {"a": ["3"]}, {"a": [4]})
    values = [value for each in done for value in each.good["x"].to_pylist()]
    assert (len(values), len(set(values)), done[0].good.schema.field("x").type) == (4, 1, type_)


def test_the_clock_shows_when_the_run_started() -> None:
    before = datetime.now(UTC)
    (row,) = good({"derive": {"at": "now()", "day": "today()", "next": "now() + INTERVAL 1 DAY"}}, {"a": [1]})
    assert before <= row["at"] <= datetime.now(UTC)
    assert (row["day"], row["next"] - row["at"]) == (row["at"].date(), timedelta(days=1))


def test_the_clock_is_read_where_a_condition_is_checked() -> None:
    rules = {"expect": ["made <= now()"], "filter": ["made > now() - INTERVAL 1 HOUR"]}
    now = datetime.now(UTC)
    (done,) = apply(rules, {"made": [now, now + timedelta(days=1), now - timedelta(days=1)]})
    assert (done.good.num_rows, len(done.bad), done.filtered) == (1, 1, 1)


def test_an_age_between_two_times_is_the_engines_own() -> None:
    (row,) = good({"derive": {"x": "CAST(age(DATE '2024-05-31', DATE '2024-02-29') AS VARCHAR)"}}, {"a": [1]})
    assert row["x"] == "3 months 2 days"


def test_a_derived_column_may_take_the_place_of_another() -> None:
    transform = {"derive": {"email": "lower(email)", "domain": "split_part(email, '@', 2)"}}
    assert good(transform, {"email": ["A@B.C"], "n": [1]}) == [{"email": "a@b.c", "n": 1, "domain": "b.c"}]


def test_unique_is_told_before_a_derived_column_takes_the_place() -> None:
    transform = {"validate": {"a": {"unique": True}}, "derive": {"a": "lower(a)"}}
    assert good(transform, {"a": ["X", "x"]}) == [{"a": "x"}, {"a": "x"}]


@pytest.mark.parametrize(
    "expression",
    [
        *("1 / n", "1 // n", "1 % n", "mod(1, n)", "f / n", "f % n", "f / (n - n)", "coalesce(1 / n, 5)", "d + d"),
        *("9223372036854775807 + (n + 1)", "CAST(t AS INTEGER)", "CAST(t AS DATE)", "sqrt(n - 1)", "ln(n)"),
        *("make_date(2024, 13, 1)", "CAST('1e400' AS DECIMAL(5,2)) + n", "strptime(t, '%Y')"),
    ],
)
def test_a_row_whose_expression_fails_is_quarantined(expression: str) -> None:
    rows = {"n": [0, None], "f": [1.5, None], "t": ["x", None], "d": pa.array([Decimal("9" * 38), None])}
    transform = {"derive": {"x": expression}}
    messages = bad(transform, pa.record_batch(rows).slice(0, 1))
    assert messages[0][0].startswith(f"x: derive: x: {expression} cannot be computed")


def test_null_is_a_value_and_no_failure() -> None:
    rows = {"amount": [6.0, None, 6.0], "qty": [2, 0, None]}
    (done,) = apply({"derive": {"each": "amount / qty", "day": "TRY_CAST('x' AS DATE)"}}, rows)
    assert [(row["each"], row["day"]) for row in done.good.to_pylist()] == [(3.0, None), (None, None), (None, None)]


def test_only_the_rows_that_fail_are_quarantined() -> None:
    size = 5000
    (done,) = apply({"derive": {"x": "10 / n"}}, {"n": [index % 100 for index in range(size)]})
    assert (done.good.num_rows, len(done.bad)) == (size - 50, 50)
    assert all(row["x"] == 10 / row["n"] for row in done.good.to_pylist())


def test_an_expression_may_look_into_nested_values() -> None:
    assert good({"map": {"a": "a"}, "derive": {"city": "a['city']"}}, {"a": [{"city": "x"}]})[0]["city"] == "x"


def test_names_in_expressions_are_the_columns_own() -> None:
    rows = {"r0": [1], "v0": [2], "d0": [3], "p0": [4], "rows": [5], "status": [6], 'Weird "name"': [7], "v": [8]}
    transform = {
        "convert": {"v0": "decimal(5,1)"},
        "derive": {"sum": 'r0 + v0 + d0 + p0 + "rows" + status + "Weird ""name""" + v'},
        "filter": ["sum = 36", "R0 = 1"],
    }
    assert good(transform, rows)[0]["sum"] == 36


def test_names_that_differ_by_case_only_are_told_apart_where_they_are_exact() -> None:
    rows = {"ID": [1], "id": [2]}
    assert good({"derive": {"x": "id * 10", "y": "ID * 10"}}, rows) == [{"ID": 1, "id": 2, "x": 20, "y": 10}]
    assert refused({"derive": {"x": "Id"}}, rows).startswith("derive: x: there is no column Id")
    assert refused({"derive": {"x": "ID + id"}}, rows).startswith(
        "derive: x: (ID + id): the engine cannot tell ID from id"
    )


def test_a_column_may_be_spelled_in_any_case() -> None:
    assert good({"derive": {"x": "N + n"}}, {"n": [2]}) == [{"n": 2, "x": 4}]


def test_a_lambdas_own_names_stay_its_own() -> None:
    transform = {"derive": {"x": "list_transform(l, lambda n: n * 10)[1] + n"}}
    assert good(transform, {"l": [[1, 2]], "n": [5]})[0]["x"] == 15


def test_derived_numbers_that_are_very_large_are_decimals() -> None:
    (done,) = apply({"derive": {"x": "CAST(n AS HUGEINT) * n"}}, {"n": [10**15, 10**18 * 9]})
    assert done.good.schema.field("x").type == pa.decimal128(38, 0)
    assert done.good["x"].to_pylist() == [Decimal(10**30), Decimal(81 * 10**36)]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("CAST(n AS BIT)", "derive: x: the result is a BIT, which is kept nowhere"),
        ("upper(n) || nope(n)", "derive: x: upper(n) || nope(n): "),
        ("n + 'a' * t", "derive: x: n + 'a' * t: "),
        ("(SELECT 1)", "derive: x: (SELECT 1): it has a subquery"),
    ],
)
def test_an_expression_that_cannot_be_is_refused(expression: str, message: str) -> None:
    assert refused({"derive": {"x": expression}}, {"n": [1], "t": [date(2024, 1, 1)]}).startswith(message)


def test_derived_json_and_uuid_have_their_arrow_types() -> None:
    transform = {"derive": {"j": "to_json(n)", "u": "CAST(t AS UUID)", "b": "n > 0"}}
    (done,) = apply(transform, {"n": [1], "t": [str(UUID(int=5))]})
    assert done.good.schema.types[2:] == [pa.json_(), pa.uuid(), pa.bool_()]
    assert done.good.to_pylist()[0]["u"] == UUID(int=5)


# --- filter ---------------------------------------------------------------------------------------------------


def test_a_row_stays_if_every_predicate_is_true() -> None:
    (done,) = apply({"filter": ["a > 1", "b <> 'x'"]}, {"a": [1, 2, 3, None], "b": ["y", "x", "y", "y"]})
    assert done.good.to_pylist() == [{"a": 3, "b": "y"}]
    assert done.filtered == 3


def test_a_row_whose_predicate_fails_is_quarantined() -> None:
    assert bad({"filter": ["10 / a > 1"]}, {"a": [0, 5]}) == [
        [": filter: 10 / a > 1: 10 / a > 1 cannot be told with a = 0"]
    ]


def test_a_broken_row_is_quarantined_even_if_it_would_be_filtered_out() -> None:
    (done,) = apply({"validate": {"a": {"min": 0}}, "filter": ["a > 5"]}, {"a": [-1, 1]})
    assert (len(done.bad), done.filtered) == (1, 1)


def test_a_filter_that_is_no_condition_is_refused() -> None:
    assert refused({"filter": ["a + 1"]}, {"a": [1]}).startswith("filter: a + 1 is a BIGINT, not a condition")


# --- the quarantine -------------------------------------------------------------------------------------------


def test_a_bad_row_is_kept_as_it_was_read() -> None:
    rows = pa.record_batch(
        {
            "amt": pa.array(["x"]),
            "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)]),
            "n": pa.array([Decimal("1.50")]),
            "tags": pa.array([["a", None]]),
            "none": pa.nulls(1, pa.int32()),
        }
    )
    (done,) = apply({"map": {"amt": "amount"}, "convert": {"amount": "integer"}}, rows)
    (row,) = done.bad
    assert row.row == {"amt": "x", "at": "2024-01-01 00:00:00+00", "n": "1.50", "tags": "[a, NULL]", "none": None}
    assert row.types == {
        "amt": "VARCHAR",
        "at": "TIMESTAMP WITH TIME ZONE",
        "n": "DECIMAL(3,2)",
        "tags": "VARCHAR[]",
        "none": "INTEGER",
    }
    assert row.origin == {"record": 0}


def test_json_inside_nested_values_is_kept_as_json() -> None:
    lists = pa.array([['{"a": "b, c"}', "null"], None]).cast(pa.list_(pa.json_()))
    (done,) = apply({"validate": {"n": {"min": 1}}}, {"n": [0, 0], "a": lists})
    assert [row.row["a"] for row in done.bad] == ['[{"a":"b, c"},null]', None]
    assert done.bad[0].types["a"] == "JSON"


def test_a_message_shows_the_beginning_of_a_long_value() -> None:
    ((message,),) = bad({"convert": {"a": "integer"}}, {"a": ["x" * 500]})
    assert len(message) < 150
    assert "xxx...'" in message


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1.5], pa.float16()),
        pa.array([Decimal(1)], pa.decimal256(50, 2)),
        pa.array([Decimal(100)], pa.decimal128(5, -2)),
        pa.array([1], pa.duration("ns")),
        pa.array(["x"], pa.string_view()),
        pa.array([[1]], pa.list_(pa.duration("ns"))),
    ],
    ids=lambda array: str(array.type),
)
def test_a_type_that_the_quarantine_could_not_give_back_is_refused_by_name(array: pa.Array) -> None:
    assert refused({}, {"n": [1], "strange": array}).startswith(f"column strange has the type {array.type}, which")


# --- batches --------------------------------------------------------------------------------------------------


def test_a_column_that_a_batch_lacks_is_null_if_an_earlier_one_had_it() -> None:
    transform = {"convert": {"n": "integer"}}
    first, second, third = apply(
        transform, {"n": ["1"], "t": ["x"]}, {"t": ["y"]}, {"t": pa.nulls(1), "extra": [True], "n": ["2"]}
    )
    assert second.good.to_pylist() == [{"n": None, "t": "y"}]
    assert third.good.to_pylist() == [{"n": 2, "t": None, "extra": True}]
    assert first.good.schema == second.good.schema
    assert third.good.schema.types[:2] == first.good.schema.types


def test_a_converted_column_keeps_its_type_when_the_source_changes_its_own() -> None:
    transform = {"convert": {"n": "decimal(10,2)"}, "validate": {"n": {"unique": True}}}
    batches = [{"n": ["1.50"]}, {"n": [2]}, {"n": [2.5]}, {"n": pa.nulls(1)}, {"n": [Decimal("1.5")]}]
    done = apply(transform, *batches)
    assert {result.good.schema.field("n").type for result in done} == {pa.decimal128(10, 2)}
    assert [row["n"] for result in done for row in result.good.to_pylist()] == [Decimal("1.5"), 2, Decimal("2.5"), None]
    assert len(done[-1].bad) == 1


def test_an_empty_batch_has_the_columns_of_the_result() -> None:
    (done,) = apply({"map": {"a": "A"}, "derive": {"B": "A + 1"}}, {"a": pa.array([], pa.int64())})
    assert done.good.schema.names == ["A", "B"]
    (done,) = apply({"convert": {"a": "integer"}}, pa.RecordBatch.from_struct_array(pa.array([], pa.struct([]))))
    assert done.good.num_rows == 0


def test_the_rules_do_not_depend_on_the_machines_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    transform = {"derive": {"day": "CAST(moment AS DATE)"}}
    rows = {"moment": [datetime(2024, 1, 1, 1, tzinfo=UTC)]}
    assert good(transform, rows)[0]["day"] == date(2024, 1, 1)
