"""`schema`: a pandera schema beside the pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from errors import ConfigError, RuleError
from etl.loader import check
from etl.pipeline import Pipeline, Transform
from etl.rules import Rules
from etl.run import run_pipeline
from etl.stream import Batch, Transformed

ORDERS = """
from __future__ import annotations
import datetime, decimal
import pandas
import pandera.pandas as pa
from pandera.typing.pandas import Series

class Orders(pa.DataFrameModel):
    id: int = pa.Field(ge=1)
    name: str = pa.Field(str_length={"max_value": 3})
    paid: bool = pa.Field(nullable=True)
    limit: int = pa.Field(nullable=True, le=10)

    @pa.check("name", name="lower case")
    def is_lower(cls, names):
        return names.str.islower()

    @pa.dataframe_check
    def paid_has_a_limit(cls, frame):
        return ~frame["paid"].fillna(False) | frame["limit"].notna()
"""


@pytest.fixture
def schema(project: Path) -> Path:
    """The schema's file."""
    path = project / "pipelines/schemas/orders.py"
    path.parent.mkdir(parents=True)
    path.write_text(ORDERS)
    return path


def apply(transform: Mapping[str, Any], rows: Mapping[str, Any]) -> Transformed:
    declared = {"schema": "pipelines/schemas/orders.py:Orders", **transform}
    with closing(Rules(Transform.model_validate(declared))) as rules:
        return rules.apply(Batch(pa.record_batch(dict(rows)), lambda index: {"record": index}))


def told(done: Transformed) -> list[list[str]]:
    return [[f"{each.column}: {each.rule}: {each.message}" for each in bad.broken] for bad in done.bad]


@pytest.mark.usefixtures("schema")
def test_rows_that_break_the_schema_are_set_apart_with_every_failure() -> None:
    rows = {"id": [1, 0, None, 4], "name": ["a", "LONG", "b", None], "paid": [True, True, False, None]}
    done = apply({}, rows | {"limit": pa.array([5, None, 11, None], pa.int64())})
    assert done.good.to_pylist() == [{"id": 1, "name": "a", "paid": True, "limit": 5}]
    assert [bad.origin["record"] for bad in done.bad] == [1, 2, 3]
    whole = ": schema: paid_has_a_limit: the row fails paid_has_a_limit with "
    assert [sorted(each) for each in told(done)] == [
        [
            f"{whole}id = 0, name = 'LONG', paid = True, limit = NULL",
            "id: schema: greater_than_or_equal_to(1): 0 fails greater_than_or_equal_to(1)",
            "name: schema: lower case: 'LONG' fails lower case",
            "name: schema: str_length(None, 3): 'LONG' fails str_length(None, 3)",
        ],
        [
            "id: schema: not_nullable: there is no value",
            "limit: schema: less_than_or_equal_to(10): 11 fails less_than_or_equal_to(10)",
        ],
        ["name: schema: not_nullable: there is no value"],
    ]


@pytest.mark.usefixtures("schema")
def test_the_schema_sees_converted_values_before_derived_ones_beside_the_other_rules() -> None:
    transform = {
        "map": {"ID": "id", "*": "*"},
        "convert": {"id": "integer"},
        "validate": {"id": {"unique": True, "max": 5}},
        "derive": {"name": "upper(name)"},
        "filter": ["id <> 2"],
    }
    rows = {"ID": ["1", "x", "9", "1", "2"], "name": ["a", "B", "C", "d", "e"], "paid": [False] * 5, "limit": [1] * 5}
    done = apply(transform, rows)
    assert (done.good.to_pylist(), done.filtered) == ([{"id": 1, "name": "A", "paid": False, "limit": 1}], 1)
    assert [[each.rule for each in bad.broken] for bad in done.bad] == [
        ["convert: integer", "schema: lower case"],  # `id` has no value now, but that is told already
        ["max: 5", "schema: lower case"],
        ["unique"],
    ]


@pytest.mark.usefixtures("schema")
def test_a_schema_counts_in_a_run(project: Path) -> None:
    (project / "orders.csv").write_text("id,name,paid,limit\n1,a,true,5\n2,TOO LONG,false,\n3,b,,\n")
    pipeline = Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"type": "file", "path": "orders.csv"},
            "transform": {
                "convert": {"id": "integer", "paid": "boolean", "limit": "integer"},
                "schema": "pipelines/schemas/orders.py:Orders",
            },
            "destination": {"type": "file", "path": "lake", "write": "append"},
        }
    )
    report = run_pipeline(pipeline)
    assert (report.extracted, report.loaded, report.quarantined) == (3, 2, 1)


def with_schema(schema: Path, *lines: str) -> None:
    schema.write_text("import pandera.pandas as pa\nimport datetime, decimal, pandas\n" + "\n".join(lines))


TYPES = [
    ("'Int64'", pa.array([1, None])),
    ("'int32'", pa.array([1, None], pa.int32())),
    ("float", pa.array([1.5, None])),
    ("bool", pa.array([True, None])),
    ("'string'", pa.array(["x", None])),
    ("pandas.Timestamp", pa.array([datetime(2024, 1, 1), None])),  # noqa: DTZ001
    ("pandas.DatetimeTZDtype('ns', 'UTC')", pa.array([datetime(2024, 1, 1, tzinfo=UTC), None])),
    ("datetime.date", pa.array([date(2024, 1, 1), None])),
    ("pa.Decimal(10, 2)", pa.array([Decimal("1.50"), None])),
    ("object", pa.array([[1], None])),
]


@pytest.mark.parametrize(("kind", "values"), TYPES, ids=[kind for kind, _ in TYPES])
def test_a_type_is_the_same_with_and_without_nulls(schema: Path, kind: str, values: pa.Array) -> None:
    with_schema(schema, f"Orders = pa.DataFrameSchema({{'x': pa.Column({kind}, nullable=True)}}, coerce=True)")
    for rows in (values, values.slice(0, 1), values.slice(1)):
        done = apply({}, {"x": rows})
        assert (done.good["x"].to_pylist(), done.good["x"].type) == (rows.to_pylist(), values.type)


def test_a_decimal_of_more_digits_is_a_broken_rule(schema: Path) -> None:
    with_schema(schema, "Orders = pa.DataFrameSchema({'x': pa.Column(pa.Decimal(3, 2), nullable=True)})")
    done = apply({}, {"x": [Decimal("1.50"), Decimal("100.55"), None]})
    assert told(done) == [["x: schema: Decimal(3, 2): 100.55 is not Decimal(3, 2)"]]


def test_coerce_changes_nothing_another_type_is_an_error_that_says_what_to_do(schema: Path) -> None:
    with_schema(schema, "Orders = pa.DataFrameSchema({'x': pa.Column(int, coerce=True)}, coerce=True)")
    message = r"column x is str, but it wants int64\n  hint: give the column its type in `convert` \(x: \.\.\.\)"
    with pytest.raises(RuleError, match=message):
        apply({}, {"x": ["1"]})


@pytest.mark.parametrize(
    ("schema_text", "message"),
    [
        ("pa.DataFrameSchema({'y': pa.Column(int)})", "schema: .*: column_in_dataframe fails as a whole: 'y'"),
        ("pa.DataFrameSchema({}, strict=True)", "schema: .*: column_in_schema fails as a whole: 'x'"),
        ("pa.DataFrameSchema({'x': pa.Column(int, pa.Check(lambda s: sum(s) > 9, name='big'))})", "column x: big"),
        ("pa.DataFrameSchema({'x': pa.Column(int, pa.Check(lambda s: 1 // 0, name='no'))})", "column x: .*Zero"),
    ],
)  # fmt: skip
def test_what_is_not_told_of_each_row_is_an_error(schema: Path, schema_text: str, message: str) -> None:
    with_schema(schema, f"Orders = {schema_text}")
    with pytest.raises(RuleError, match=message):
        apply({}, {"x": [1, 2]})


def test_a_column_that_is_missing_is_null_if_the_pipeline_says_so(schema: Path) -> None:
    with_schema(schema, "Orders = pa.DataFrameSchema({'x': pa.Column(int), 'y': pa.Column(str, nullable=True)})")
    assert told(apply({"on_missing_column": None}, {"z": [1]})) == [["x: schema: not_nullable: there is no value"]]


@pytest.mark.usefixtures("schema")
def test_nothing_switches_the_schema_off() -> None:
    from pandera.config import ValidationDepth, config_context

    rows = {"id": [0], "name": ["a"], "paid": [False], "limit": [1]}
    with config_context(validation_enabled=False):
        assert len(apply({}, rows).bad) == 1
    with config_context(validation_depth=ValidationDepth.SCHEMA_ONLY):
        assert len(apply({}, rows).bad) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Other = 1"], "there is no Orders"),
        (["Orders = 1"], "no pandera schema: Orders"),
        (["", "import nothing_of_that_name"], "py:4:1: it cannot be imported: ModuleNotFoundError: No module named"),
        (["", "", "def x(:"], "py:5:1: it cannot be imported: SyntaxError"),
        (["Orders = pa.DataFrameSchema({'x': pa.Column(int, unique=True)})"], "Orders has `unique`"),
        (["Orders = pa.DataFrameSchema({'x': pa.Column(int, default=1)})"], "Orders has a default, which changes"),
        (["Orders = pa.DataFrameSchema({}, parsers=pa.Parser(lambda f: f))"], "Orders has a parser, which changes"),
        (["Orders = pa.DataFrameSchema({}, index=pa.Index(int))"], "Orders has an index"),
        (
            ["class Orders(pa.DataFrameModel):", "    @pa.check('y')", "    def good(cls, ys): return ys > 0"],
            "Orders is no schema: Check good is assigned to a non-existing field 'y'",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_told(schema: Path, lines: list[str], message: str) -> None:
    with_schema(schema, *lines)
    with pytest.raises(ConfigError, match=message):
        apply({}, {"x": [1]})


def test_a_check_of_the_file_loads_the_schema(project: Path) -> None:
    file = project / "orders.yaml"
    text = (
        "description: Orders\nsource: {type: file, path: orders.csv}\n"
        "transform: {schema: %s}\ndestination: {type: file, path: lake, write: append}\n"
    )
    file.write_text(text % "schemas/orders.py:Orders")
    assert [(each.text, each.message) for each in check([file])] == [
        ("schemas/orders.py:Orders", "`schema`: there is no such file")
    ]
    file.write_text(text % "orders")
    assert [each.text for each in check([file])] == ["orders"]
    file.write_text(text % "no_such_module:Orders")
    assert "ModuleNotFoundError" in check([file])[0].message
