"""Lists of objects become rows of child tables, in every kind of database, in the transaction of their parents."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.report import metadata
from cli.main import answer
from cli.pipelines import show_report
from errors import DestinationError, InvalidRowsError, RuleError
from etl.children import ChildTables
from etl.loader import check
from etl.partitions import partition_of
from etl.pipeline import Pipeline
from etl.preview import preview
from etl.run import run_pipeline
from etl.sources import open_source
from etl.stream import RunReport
from events.log import open_log
from settings import get_settings
from tests.etl.destinations.backends import SQL, Backend, make_backend


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """Each kind of database."""
    return make_backend(request.param, request)


@pytest.fixture
def duckdb_file(request: pytest.FixtureRequest, project: Path) -> Backend:  # noqa: ARG001  (paths start there)
    """One of them."""
    return make_backend("duckdb", request)


LINES = {"order_lines": {"from": "items", "keys": {"id": "order_id"}}}


def pipeline(database: Backend, write: str = "merge", **parts: Any) -> Pipeline:
    transform = {"children": LINES} | parts.pop("transform", {})
    destination: dict[str, Any] = {"type": "database", "connection": database.url, "table": "orders", "write": write}
    destination |= {"key": ["id"]} if write == "merge" else {}
    return Pipeline.model_validate(
        {
            "name": "orders",
            "description": "Orders",
            "source": {"type": "file", "path": "orders.ndjson"},
            "transform": transform,
            "destination": destination | parts.pop("destination", {}),
        }
        | parts
    )


def run(declared: Pipeline, *records: dict[str, Any], **how: Any) -> RunReport:
    get_settings().path("orders.ndjson").write_bytes(b"\n".join(map(orjson.dumps, records)))
    return run_pipeline(declared, **how)


def order(id_: int, *skus: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, **more, "items": [{"sku": sku} for sku in skus]}


def lines(database: Backend, table: str = "order_lines") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in database.rows(table, order="order_id, position")]


def test_a_list_of_objects_becomes_rows_with_the_parents_key_and_their_place(database: Backend) -> None:
    report = run(pipeline(database), order(1, "a", "b", note="x"), order(2), order(3, "c"), {"id": 4})

    assert (report.extracted, report.loaded, report.children) == (4, 4, {"order_lines": 3})
    assert database.rows() == [{"id": 1, "note": "x"}, {"id": 2}, {"id": 3}, {"id": 4}]
    assert lines(database) == [(1, 1, "a"), (1, 2, "b"), (3, 1, "c")]


def test_a_merge_replaces_the_rows_of_the_parents_that_come_and_leaves_the_others_alone(database: Backend) -> None:
    declared = pipeline(database)
    run(declared, order(1, "a", "b"), order(2, "c"), order(3, "d"))

    report = run(declared, order(1, "b"), order(2), order(4, "e"))

    assert report.children == {"order_lines": 2}
    assert lines(database) == [(1, 1, "b"), (3, 1, "d"), (4, 1, "e")]


def test_only_the_last_row_of_a_key_counts_within_a_run(database: Backend) -> None:
    report = run(pipeline(database), order(1, "old", "older"), order(2, "x"), order(1, "new"), order(2))

    assert (report.inserted, report.deduplicated, report.children) == (2, 2, {"order_lines": 1})
    assert lines(database) == [(1, 1, "new")]


def test_a_row_that_is_older_than_the_tables_replaces_no_children(database: Backend) -> None:
    low, middle, high = "9.50", "10", "11.25"  # as text, they would have another order
    declared = pipeline(database, transform={"convert": {"v": "decimal(9,2)"}}, destination={"version": "v"})
    run(declared, *(order(id_, f"old {id_}", v=middle) for id_ in (1, 2, 3)), order(4, "unknown", v=None))

    report = run(
        declared,
        order(1, "late", "later", v=low),
        order(2, "corrected", v=middle),
        order(3, "newest", v=high),
        order(3, "newer", v=middle),
        order(4, "known", v=low),
        order(1, v=None),
    )

    assert (report.updated, report.deduplicated, report.children) == (2, 4, {"order_lines": 3})
    assert lines(database) == [(1, 1, "old 1"), (2, 1, "corrected"), (3, 1, "newest"), (4, 1, "known")]


def test_children_go_with_the_rows_that_are_deleted_and_stay_with_those_that_are_marked(database: Backend) -> None:
    gone = pipeline(database, destination={"delete_missing": True})
    marked = pipeline(database, destination={"delete_missing": True, "soft_delete": "gone_at", "table": "marked"})
    marked = marked.model_copy(update={"name": "marked"})
    kept = {"marked_lines": LINES["order_lines"]}
    marked = Pipeline.model_validate(marked.model_dump(by_alias=True) | {"transform": {"children": kept}})
    for declared in (gone, marked):
        run(declared, order(1, "a"), order(2, "b"), order(3, "c"))
        assert run(declared, order(2, "B")).deleted == 2

    assert lines(database) == [(2, 1, "B")]
    assert lines(database, "marked_lines") == [(1, 1, "a"), (2, 1, "B"), (3, 1, "c")]


def test_append_adds_and_replace_leaves_only_what_the_run_brings(database: Backend) -> None:
    run(pipeline(database, "append"), order(1, "a"))
    run(pipeline(database, "append"), order(1, "b"))
    assert sorted(lines(database)) == [(1, 1, "a"), (1, 1, "b")]

    report = run(pipeline(database, "replace"), order(1, "c"), order(2))
    assert (report.children, lines(database)) == ({"order_lines": 1}, [(1, 1, "c")])

    report = run(pipeline(database, "replace"), order(1))
    assert (report.children, lines(database)) == ({"order_lines": 0}, [])


def test_a_partition_replaces_its_own_children(database: Backend) -> None:
    keyed = {"order_lines": {"from": "items", "keys": {"id": "order_id", "day": "day"}}}
    declared = pipeline(
        database,
        "replace",
        transform={"convert": {"day": "date"}, "children": keyed},
        partitions={"by": "day", "every": "day", "start": "2024-01-01"},
    )
    run(declared, order(1, "a", day="2024-01-01"), order(2, "b", day="2024-01-02"))

    again = [order(3, "c", "d", day="2024-01-02"), order(4, "x", day="2024-01-01")]
    report = run(declared, *again, partition=partition_of(declared, "2024-01-02"))

    assert (report.filtered, report.children) == (1, {"order_lines": 2})
    assert [row["sku"] for row in database.rows("order_lines", order="order_id, position")] == ["a", "c", "d"]


def test_what_a_partition_lacks_is_deleted_with_its_children_only(database: Backend) -> None:
    declared = pipeline(
        database,
        destination={"delete_missing": True},
        partitions={"by": "region", "values": ["eu", "us"]},
    )
    run(declared, order(1, "a", region="eu"), order(2, "b", region="eu"), order(3, "c", region="us"))

    report = run(declared, order(2, "B", region="eu"), partition=partition_of(declared, "eu"))
    assert (report.deleted, lines(database)) == (1, [(2, 1, "B"), (3, 1, "c")])
    report = run(declared, order(4, region="us"), partition=partition_of(declared, "eu"))
    assert (report.filtered, report.deleted, lines(database)) == (1, 1, [(3, 1, "c")])


def test_columns_that_come_later_are_added_without_a_gap_in_the_transaction(database: Backend, project: Path) -> None:
    declared = pipeline(database, source={"type": "file", "path": "part-*.ndjson"})
    parts = [
        [{"id": 1, "items": [{"sku": "a"}]}],
        [{"id": 2, "items": [{"sku": "b", "price": {"net": 2}}], "note": "n"}],
        [{"id": 1, "items": [{"sku": "c", "gift": True}]}, {"id": 3, "items": []}],
    ]
    for number, records in enumerate(parts):
        (project / f"part-{number}.ndjson").write_bytes(b"\n".join(map(orjson.dumps, records)))

    assert run_pipeline(declared).children == {"order_lines": 2}

    found = database.rows("order_lines", order="order_id")
    assert [(row["order_id"], row["sku"], row.get("price_net"), row.get("gift")) for row in found] == [
        (1, "c", None, True),
        (2, "b", 2, None),
    ]


def test_nothing_is_loaded_if_the_children_cannot_be(database: Backend) -> None:
    run(pipeline(database), {"id": 1, "items": [{"sku": "a", "qty": 1}]})
    rows, children = database.rows(), lines(database)

    with pytest.raises(DestinationError, match=r"order_lines: column qty is .*, the data has string"):
        run(pipeline(database), order(1, "b", note="new"), {"id": 2, "items": [{"sku": "c", "qty": "many"}]})

    assert (database.rows(), lines(database)) == (rows, children)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("write", ["append", "merge"])
def test_a_table_that_swallows_child_rows_fails_the_run(database: Backend, write: str) -> None:
    run(pipeline(database, write), order(1, "a"))
    database.query("CREATE TRIGGER t BEFORE INSERT ON order_lines WHEN new.sku = 'b' BEGIN SELECT raise(IGNORE); END")

    with pytest.raises(DestinationError, match="order_lines: 2 child rows were to be inserted, but 1 were"):
        run(pipeline(database, write), order(2, "a", "b"))

    assert (database.rows(), lines(database)) == ([{"id": 1}], [(1, 1, "a")])


# --- whatever comes -------------------------------------------------------------------------------------------

_ITEM = {"sku": st.text("ab'\\ é", max_size=3), "qty": st.integers(-9, 2**40)}
_ITEMS = st.lists(st.fixed_dictionaries({}, optional=_ITEM), max_size=4)
_ORDERS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(0, 4), "v": st.none() | st.integers(0, 3)}, optional={"items": st.none() | _ITEMS}
    ),
    max_size=6,
)
_TYPED = {"id": 99, "v": 0, "items": [{"sku": "-", "qty": 0}]}
"""Gives every column a type in every run."""


@pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"], indirect=True)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(_ORDERS, min_size=2, max_size=2), versioned=st.booleans())
def test_merges_leave_what_a_row_by_row_reference_leaves(
    database: Backend, runs: list[list[dict[str, Any]]], versioned: bool
) -> None:
    for table in ("orders", "order_lines", "_pivotal_state"):
        database.query(f"DROP TABLE IF EXISTS {table}")
    declared = pipeline(database, destination={"version": "v"} if versioned else {})
    newest: dict[int, dict[str, Any]] = {}
    for records in runs:
        run(declared, _TYPED, *records)
        for record in [_TYPED, *records]:
            before = newest.get(record["id"])
            if not versioned or before is None or _version(record) >= _version(before):
                newest[record["id"]] = record

    found = [(row["order_id"], row["position"], row.get("sku"), row.get("qty")) for row in
             database.rows("order_lines", order="order_id, position")]  # fmt: skip
    assert found == [
        (id_, position, item.get("sku"), item.get("qty"))
        for id_, record in sorted(newest.items())
        for position, item in enumerate(record.get("items") or (), 1)
    ]


def _version(record: dict[str, Any]) -> int:
    return -1 if record["v"] is None else record["v"]


# --- which rows have children ---------------------------------------------------------------------------------


def test_a_list_with_anything_but_objects_breaks_its_row_which_replay_brings_back_whole(duckdb_file: Backend) -> None:
    tables = {**LINES, "order_notes": {"from": "notes", "keys": {"id": "order_id"}}}
    declared = pipeline(duckdb_file, transform={"children": tables})
    notes = [{"text": "n"}]
    broken = [{"id": 2, "items": [{"sku": "b"}, 5], "notes": notes}, {"id": 3, "items": {"sku": "c"}, "notes": [None]}]

    report = run(declared, order(1, "a", notes=notes), *broken)

    assert (report.loaded, report.quarantined) == (1, 2)
    assert report.children == {"order_lines": 1, "order_notes": 1}
    assert [[(each.column, each.rule, each.message) for each in bad.broken] for bad in report.rejected] == [
        [("items", "children: order_lines", "item 2 of the list is 5, not an object")],
        [
            ("items", "children: order_lines", """'{"sku":"c"}' is not a list"""),
            ("notes", "children: order_notes", "item 1 of the list is null, not an object"),
        ],
    ]
    assert lines(duckdb_file) == [(1, 1, "a")]
    assert [row["order_id"] for row in duckdb_file.rows("order_notes", order="1")] == [1]

    mended = {**tables, "order_lines": {**LINES["order_lines"], "from": "fine"}}
    fine = 'CASE WHEN id = 2 THEN json(\'[{"sku": "B"}, {"sku": "5"}]\') ELSE items END'
    transform = {"map": {"id": "id", "items": "items", "notes": "notes"}, "derive": {"fine": fine}}
    mending = pipeline(duckdb_file, transform={**transform, "children": mended})
    again = run_pipeline(mending, replay=True)

    assert (again.loaded, again.quarantined) == (1, 1)
    assert again.children == {"order_lines": 2, "order_notes": 1}
    assert lines(duckdb_file) == [(1, 1, "a"), (2, 1, "B"), (2, 2, "5")]


def test_a_row_that_breaks_a_rule_or_is_filtered_out_has_no_children(duckdb_file: Backend) -> None:
    rules = {"validate": {"total": {"min": 0}}, "filter": ["status <> 'test'"]}
    declared = pipeline(duckdb_file, transform=rules)

    report = run(
        declared,
        order(1, "a", total=-1, status="paid"),
        order(2, "b", total=1, status="test"),
        order(3, "c", total=1, status="paid"),
    )

    assert (report.quarantined, report.filtered, report.children) == (1, 1, {"order_lines": 1})
    assert lines(duckdb_file) == [(3, 1, "c")]


def test_on_invalid_fail_names_the_place_in_the_list(duckdb_file: Backend) -> None:
    with pytest.raises(InvalidRowsError, match=r"record 2.*item 1 of the list is \"x\", not an object"):
        run(pipeline(duckdb_file, on_invalid="fail"), order(1, "a"), {"id": 2, "items": ["x"]})


# --- where lists come from ------------------------------------------------------------------------------------


def test_structs_are_laid_flat_and_lists_within_are_json(duckdb_file: Backend) -> None:
    item = {"sku": {"code": "a", "of": {"year": 24}}, "tags": ["x", {"y": 1.50}]}
    run(pipeline(duckdb_file), {"id": 1, "items": [item]})

    (row,) = duckdb_file.rows("order_lines", order="1")
    assert row == {"order_id": 1, "position": 1, "sku_code": "a", "sku_of_year": 24, "tags": '["x",{"y":1.5}]'}


@pytest.mark.parametrize("batch", [1, 100])
def test_lists_of_structs_in_parquet_files_keep_their_types(duckdb_file: Backend, project: Path, batch: int) -> None:
    item = pa.struct({"sku": pa.string(), "at": pa.timestamp("us", "UTC"), "price": pa.decimal128(9, 2)})
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    lists = [[{"sku": "a", "at": noon, "price": Decimal("1.50")}, {"sku": "b"}], None, [], [{"sku": "c"}, None]]
    table = pa.table({"id": [1, 2, 3, 4], "box": [{"items": each} for each in lists]}, pa.schema(
        {"id": pa.int64(), "box": pa.struct({"items": pa.list_(item)})}
    ))  # fmt: skip
    pq.write_table(table, project / "orders.parquet", row_group_size=batch)
    nested = {"order_lines": {"from": "box.items", "keys": {"id": "order_id"}}}
    source = {"type": "file", "path": "orders.parquet"}

    report = run_pipeline(pipeline(duckdb_file, source=source, transform={"children": nested}))

    assert (report.loaded, report.quarantined, report.children) == (3, 1, {"order_lines": 2})
    assert list(report.schema) == ["id"]
    assert duckdb_file.rows("order_lines", order="position") == [
        {"order_id": 1, "position": 1, "sku": "a", "at": noon, "price": Decimal("1.50")},
        {"order_id": 1, "position": 2, "sku": "b"},
    ]


def test_text_and_json_of_a_database_may_be_lists(duckdb_file: Backend, project: Path) -> None:
    with duckdb.connect(project / "shop.duckdb") as shop:
        shop.execute(
            "CREATE TABLE orders AS SELECT 1::BIGINT AS id, '[{\"sku\": \"a\"}]'::JSON AS items, [{'n': 1}] AS parts"
        )
        shop.execute("INSERT INTO orders VALUES (2, 'null', NULL)")
    tables = {**LINES, "order_parts": {"from": "parts", "keys": {"id": "order_id"}}}
    source = {"type": "database", "connection": "duckdb:///shop.duckdb", "table": "orders"}
    report = run_pipeline(pipeline(duckdb_file, source=source, transform={"children": tables}))
    assert report.children == {"order_lines": 1, "order_parts": 1}

    (project / "orders.csv").write_text('id,items\n1,"[{""sku"": ""b""}]"\n2,none\n3,\n')
    file = {"type": "file", "path": "orders.csv"}
    report = run_pipeline(pipeline(duckdb_file, "replace", source=file, transform={"convert": {"id": "integer"}}))
    assert (report.loaded, report.quarantined) == (2, 1)
    assert report.rejected[0].broken[0].message.startswith("'none' is not JSON: ")
    assert lines(duckdb_file) == [(1, 1, "b")]


def test_a_column_that_is_missing_is_an_error_unless_it_may_be(duckdb_file: Backend) -> None:
    with pytest.raises(RuleError, match="children: order_lines: from: there is no column items"):
        run(pipeline(duckdb_file), {"id": 1, "item": []})
    with pytest.raises(RuleError, match="children: order_lines: keys: there is no column id"):
        run(pipeline(duckdb_file, "append", transform={"map": {"items": "items"}}), order(1, "a"))

    report = run(pipeline(duckdb_file, transform={"on_missing_column": None}), {"id": 1})

    assert (report.loaded, report.children) == (1, {"order_lines": 0})


def test_a_field_with_the_name_of_a_column_that_we_add_is_an_error_that_says_the_way_out(duckdb_file: Backend) -> None:
    with pytest.raises(RuleError, match="order_lines: the objects have a field position of their own") as error:
        run(pipeline(duckdb_file), {"id": 1, "items": [{"position": 7}]})
    assert error.value.hint == "give the column that we add another name: `position: list_position`"
    with pytest.raises(RuleError, match="order_lines: the objects have a field order_id of their own") as error:
        run(pipeline(duckdb_file), {"id": 1, "items": [{"order_id": 7}]})
    assert "parent_order_id" in str(error.value.hint)

    tables = {"order_lines": {"from": "items", "keys": {"id": "parent"}, "position": "place"}}
    run(pipeline(duckdb_file, transform={"children": tables}), {"id": 1, "items": [{"position": 7, "order_id": 8}]})

    assert duckdb_file.rows("order_lines", order="1") == [{"parent": 1, "place": 1, "position": 7, "order_id": 8}]


def test_the_contract_holds_for_child_tables_too(duckdb_file: Backend, caplog: pytest.LogCaptureFixture) -> None:
    run(pipeline(duckdb_file), order(1, "a"))
    new = {"id": 2, "items": [{"sku": "b", "colour": {"name": "red"}}]}

    with pytest.raises(RuleError, match="a new column, colour_name, which order_lines does not have"):
        run(pipeline(duckdb_file, transform={"on_new_column": "fail"}), new)
    run(pipeline(duckdb_file, transform={"on_new_column": "ignore"}), new)

    assert lines(duckdb_file) == [(1, 1, "a"), (2, 1, "b")]
    assert caplog.messages == ["the new column colour_name is left out: order_lines does not have it"]


def test_very_long_lists_are_taken_apart_piece_by_piece(duckdb_file: Backend, project: Path) -> None:
    with duckdb.connect() as engine:
        engine.execute(
            "COPY (SELECT id, [{'n': i} for i in range(200_000)] AS items FROM range(2) AS r(id)) "
            f"TO '{project}/orders.parquet'"
        )
    source = {"type": "file", "path": "orders.parquet"}
    declared = pipeline(duckdb_file, source=source)
    with closing(open_source(declared).open(None)) as extraction:
        (batch,) = extraction
    parted = ChildTables(declared.transform, duckdb_file.destination()).part(batch.rows)
    assert max(part.rows.num_rows for part in parted.children) == 65_536

    assert run_pipeline(declared).children == {"order_lines": 400_000}

    found = duckdb_file.query("SELECT order_id, sum(n) AS n, bool_and(n = position - 1) AS placed FROM order_lines "
                              "GROUP BY order_id ORDER BY 1")  # fmt: skip
    assert [tuple(row.values()) for row in found] == [(0, 19_999_900_000, True), (1, 19_999_900_000, True)]


# --- what is shown --------------------------------------------------------------------------------------------


def test_a_preview_tells_how_many_rows_a_child_table_would_get(duckdb_file: Backend) -> None:
    run(pipeline(duckdb_file), order(1, "a"))

    rows = preview(pipeline(duckdb_file), 5)
    assert [(row.outcome, row.result, row.children) for row in rows] == [("updated", {"id": 1}, {"order_lines": 1})]

    get_settings().path("orders.ndjson").write_text('{"id": 1, "items": []}\n{"id": 2, "items": [1]}\n')
    empty, broken = preview(pipeline(duckdb_file), 5)
    assert (empty.outcome, empty.children) == ("updated", {})
    assert (broken.outcome, broken.broken[0].message) == ("broken", "item 1 of the list is 1, not an object")


def test_the_report_the_event_and_the_command_line_say_how_many_rows_a_child_table_got(
    duckdb_file: Backend, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(pipeline(duckdb_file), order(1, "a", "b"))
    with closing(open_log(get_settings().events_url)) as log:
        (event,) = [recorded.event for recorded in log.read(0, 10)]
    assert event.data["children"] == report.children == {"order_lines": 2}
    assert metadata(pipeline(duckdb_file), dg.AssetKey("shop"), report)["rows_of_order_lines"] == 2

    show_report(report, as_json=False)
    assert "\nchildren: order_lines     2\n" in capsys.readouterr().out
    (project / "pipelines").mkdir()
    written = pipeline(duckdb_file).model_dump(mode="json", by_alias=True, exclude_unset=True)
    (project / "pipelines/orders.yaml").write_text(yaml.safe_dump(written))
    assert answer(["preview", "orders"]) == 0
    assert "order_lines: 2 rows" in capsys.readouterr().out


# --- what a file may say --------------------------------------------------------------------------------------


def child(column: str = "items", **more: Any) -> dict[str, Any]:
    return {"from": column, "keys": {"id": "order_id"}} | more


MERGE = {"write": "merge", "key": ["id"]}


@pytest.mark.parametrize(
    ("tables", "parts", "told"),
    [
        ({"orders": child()}, {}, "`orders` is a child table, too: 'orders'\n  hint: give one of them another name"),
        ({"a": child(), "A": child("other")}, {}, "`a` is two child tables, but for upper and lower case"),
        ({"a": child(), "b": child()}, {}, "`items` is the list of two child tables\n  hint: name one table"),
        ({"a": child(keys={})}, {}, "`keys` is empty"),
        ({"a": child(keys={"items": "x"})}, {}, "`items` is the list itself, so it cannot be one of `keys`"),
        ({"a": child(keys={"id": "a", "b": "a"})}, {}, "`keys` is a mapping that names two columns 'a'"),
        ({"a": child(position="order_id")}, {}, "`position` is 'order_id', which is one of `keys`, too"),
        ({"a": child(keys={"id": "position"})}, {}, "`position` is 'position', which is one of `keys`, too"),
        ({"a": {"from": "items"}}, {}, "`keys` is missing in `a`"),
        ({"a": child()}, {"convert": {"items": "integer"}}, "`items` is converted to integer, which is no list"),
        (
            {"a": child()},
            {"validate": {"items": {"required": True, "max_length": 9}}},
            "`items` is a list, for which `validate` has only `required`\n  hint: leave out `max_length`",
        ),
        ({"a": child()}, {"destination": MERGE | {"history": True}}, "`history` with the child table a"),
        (
            {"a": child(keys={"customer": "customer"})},
            {"destination": MERGE},
            "`id` identifies a row, but the child table a does not have it\n  hint: add it to `keys` of a",
        ),
        (
            {"a": child()},
            {"destination": {"type": "file", "path": "lake/orders", "write": "append"}},
            "`children` need a database, for the table a: 'file'\n  hint: leave them out, and the list stays JSON",
        ),
        (
            {"a": child()},
            {"partitions": {"by": "day", "every": "day", "start": "2024-01-01"}},
            "a run replaces a partition, but a cannot tell its rows: 'day'\n  hint: add `day` to its `keys`",
        ),
        ({"a": child("itms")}, {}, "there is no such column: 'itms'\n  hint: did you mean `items`?"),
        ({"a": child(keys={"ident": "order_id"})}, {}, "there is no such column: 'ident'"),
    ],
)
def test_what_cannot_work_is_told_before_anything_runs(
    project: Path, tables: dict[str, Any], parts: dict[str, Any], told: str
) -> None:
    destination = {"type": "database", "connection": "duckdb:///w.duckdb", "table": "orders", "write": "append"}
    other = parts.get("destination", {})
    rules = {name: parts[name] for name in ("convert", "validate") if name in parts}
    columns = ["id", "customer", "day", "items", "other", "b"]
    source = {"type": "database", "connection": "sqlite:///shop.db", "table": "orders", "columns": columns}
    declared: dict[str, Any] = {
        "description": "Orders",
        "source": source,
        "transform": {**rules, "children": tables},
        "destination": other if "type" in other else destination | other,
    }
    if "partitions" in parts:
        declared["partitions"] = parts["partitions"]
    file = project / "orders.yaml"
    file.write_text(yaml.safe_dump(declared, sort_keys=False))

    assert [told in str(problem) for problem in check([file])] == [True]


def test_what_can_work_is_no_mistake(project: Path) -> None:
    file = project / "orders.yaml"
    file.write_text(
        """
        description: Orders
        source:
          {type: database, connection: "sqlite:///shop.db", table: orders, columns: [id, day, box, notes, raw]}
        transform:
          convert: {raw: json}
          validate: {notes: {required: true, type: json}}
          derive: {extra: notes}
          children:
            lines: {from: box.items, keys: {id: order_id, extra: note}}
            shop.notes: {from: notes, keys: {id: order_id}}
            raws: {from: raw, keys: {id: order_id}}
        destination: {type: database, connection: "duckdb:///w.duckdb", table: orders, write: merge, key: [id]}
        """.replace("\n        ", "\n")
    )
    assert [str(problem) for problem in check([file])] == []
