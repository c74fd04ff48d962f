from __future__ import annotations

from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.casts import cast
from etl.convert import conversion, engine_type
from etl.session import ROWS, Session

TARGETS = ["integer", "number", "boolean", "date", "timestamp", "decimal(12,2)", "decimal(38,10)", "decimal(4,4)"]

NEARLY = st.one_of(
    st.from_regex(r"[ \t]?[+-]?[0-9]{0,20}(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,3})?[ \n]?", fullmatch=True),
    st.from_regex(r"[0-9]{3,5}-[0-9]{1,2}-[0-9]{1,2}([ T]?[0-9]{1,2}(:?[0-9]{2}(:?[0-9]{2}(\.[0-9]{0,7})?)?)?Z?)?", fullmatch=True),  # noqa: E501
    st.sampled_from(["true", "False", "t", "yes", "1", "0", "TRUE", "nan", "inf", "-Infinity"]),
    st.sampled_from(["0x1F", "1_000", "1,5", "24:00"]),
    st.sampled_from(["", " ", " 1", "1 "]),
    st.datetimes().map(str),
    st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M")),
    st.dates().map(str),
    st.integers(-(2**64), 2**64).map(str),
    st.floats().map(str),
    st.decimals(allow_nan=True).map(str),
)  # fmt: skip


def by_the_rules(texts: list[str | None], target: str) -> list[Any]:
    kind = engine_type(target)
    rows = pa.record_batch({"text": pa.array(texts, pa.string())})
    with closing(Session()) as session:
        converted = session.prepare(f"SELECT {conversion('r0', 'VARCHAR', kind)} AS v FROM {ROWS}", rows.schema)
        values: list[Any] = converted.table(rows)["v"].to_pylist()
    return values


@settings(deadline=None)  # the first one imports and starts the engine
@pytest.mark.parametrize("target", TARGETS)
@given(texts=st.lists(st.one_of(st.none(), NEARLY), min_size=1, max_size=3))
def test_a_column_that_is_cast_has_the_values_that_the_rules_give(target: str, texts: list[str | None]) -> None:
    values = cast(pa.array(texts, pa.string()), target)
    if values is not None:
        assert values.to_pylist() == by_the_rules(texts, target)


@pytest.mark.parametrize(
    ("target", "texts", "values"),
    [
        ("integer", ["1", "-20", None], [1, -20, None]),
        ("number", ["1.5", "-2"], [1.5, -2.0]),
        ("boolean", ["true", "FALSE", "0"], [True, False, False]),
        ("date", ["2024-02-29"], [date(2024, 2, 29)]),
        ("timestamp", ["2024-05-01 12:00:01"], [datetime.fromisoformat("2024-05-01 12:00:01")]),
        ("timestamp", ["2024-05-01T12:00", None], [datetime.fromisoformat("2024-05-01 12:00"), None]),
        ("decimal(12,2)", ["1.20", "-3", "1234567890.12"], [Decimal("1.20"), Decimal(-3), Decimal("1234567890.12")]),
    ],
)  # fmt: skip
def test_plain_texts_are_cast(target: str, texts: list[str | None], values: list[object]) -> None:
    assert cast(pa.array(texts, pa.string()), target).to_pylist() == values  # type: ignore[union-attr]
    around = pa.array(["x", *texts, "y"], pa.string()).slice(1, len(texts))
    assert cast(around, target).to_pylist() == values  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("integer", "0x1F"),
        ("integer", "1.5"),
        ("number", "nan"),
        ("number", "9007199254740993"),
        ("decimal(12,2)", "1.239"),
        ("decimal(12,2)", "1e2"),
        ("date", "0000-01-01"),
        ("timestamp", "2024-05-01 1200"),
        ("timestamp", "2024-05-01 12"),
        ("timestamp", "2024-05-01 12:00:00Z"),
        ("uuid", "2f1c6c0e-6c3e-4f0e-9d2f-3a3f5a1c1e11"),
    ],
)
def test_a_column_with_a_text_that_arrow_may_take_for_something_else_is_left_to_the_rules(
    target: str, text: str
) -> None:
    assert cast(pa.array([text]), target) is None


def test_other_columns_than_texts_are_left_to_the_rules() -> None:
    assert cast(pa.array([1.0]), "integer") is None
