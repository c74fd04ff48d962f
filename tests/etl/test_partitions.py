"""Runs for a part of the rows: what is read, what is replaced, what stays as it is."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from pydantic import ValidationError

from errors import PivotalError
from etl.partitions import partition_of, partition_of_values, partition_range
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from tests.shop import change

DATES = {"created_at": "date"}
DAILY = {"by": "created_at", "every": "day", "start": "2024-01-01"}
REGIONS = {"by": "region", "values": ["eu", "us", "it's"]}
ROWS = [
    (1, "2024-01-04 23:59:59", "eu", 10),
    (2, "2024-01-05", "us", 20),
    (3, "2024-01-05T23:59:59.999999", "eu", 30),
    (4, "2024-01-06 00:00:00", "it's", 40),
    (5, None, None, 50),
]


def pipeline(**parts: Any) -> Pipeline:
    declared: dict[str, Any] = {
        "name": "orders",
        "description": "Shop orders",
        "source": {"type": "database", "connection": "sqlite:///shop.db", "table": "orders"},
        "transform": {"map": {"made": "created_at", "*": "*"}, "convert": {"created_at": "timestamp"}},
        "destination": {
            "type": "database",
            "connection": "duckdb:///warehouse.duckdb",
            "table": "orders",
            "write": "replace",
        },
        "partitions": DAILY,
    }
    return Pipeline.model_validate(declared | parts)


@pytest.fixture
def shop(project: Path) -> Path:
    """A project with a database of orders."""
    change(project, "CREATE TABLE orders (id INTEGER PRIMARY KEY, made TEXT, region TEXT, amount INTEGER)")
    change(project, "INSERT INTO orders VALUES (?, ?, ?, ?)", ROWS)
    return project


def loaded(project: Path, columns: str = "id, amount") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project / "warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.execute(f"SELECT {columns} FROM orders ORDER BY ALL").fetchall()


# --- what a run does --------------------------------------------------------------------------------------------


def test_a_run_for_a_day_reads_and_replaces_that_day_only(shop: Path) -> None:
    run_pipeline(pipeline())
    change(shop, "UPDATE orders SET amount = amount + 1")
    change(shop, "DELETE FROM orders WHERE id = 2")
    report = run_pipeline(pipeline(), partition=partition_of(pipeline(), "2024-01-05"))
    assert (report.inserted, report.balanced) == (1, True)
    assert loaded(shop) == [(1, 10), (3, 31), (4, 40), (5, 50)]


def test_a_run_for_a_range_leaves_its_end_out(shop: Path) -> None:
    run_pipeline(pipeline(), partition=partition_range(pipeline(), "2024-01-04", "2024-01-06"))
    assert loaded(shop) == [(1, 10), (2, 20), (3, 30)]


def test_a_run_for_a_value_replaces_the_rows_with_this_value(shop: Path) -> None:
    regions = pipeline(partitions=REGIONS)
    run_pipeline(regions)
    change(shop, "UPDATE orders SET amount = amount + 1")
    report = run_pipeline(regions, partition=partition_of(regions, "it's"))
    assert (report.extracted, report.inserted) == (1, 1)
    run_pipeline(regions, partition=partition_of_values(regions, ["eu", "us"]))
    assert loaded(shop) == [(1, 11), (2, 21), (3, 31), (4, 41), (5, 50)]


@pytest.mark.parametrize("write", ["append", "merge"])
def test_a_partition_that_is_run_again_is_there_once(shop: Path, write: str) -> None:
    destination = {**pipeline().destination.model_dump(), "write": write, "key": ["id"] if write == "merge" else []}
    orders = pipeline(destination=destination)
    for amount in (1, 2):
        change(shop, f"UPDATE orders SET amount = {amount}")
        run_pipeline(orders, partition=partition_of(orders, "2024-01-05"))
    assert loaded(shop) == [(2, 2), (3, 2)]


def test_a_cursor_stays_where_it_is(shop: Path) -> None:
    source = {**pipeline().source.model_dump(), "incremental": {"cursor": "made"}}
    destination = {**pipeline().destination.model_dump(), "write": "merge", "key": ["id"]}
    orders = pipeline(source=source, destination=destination)
    before = run_pipeline(orders).state_after
    change(shop, "UPDATE orders SET amount = 0 WHERE id < 3")
    report = run_pipeline(orders, partition=partition_of(orders, "2024-01-05"))
    assert (report.state_before, report.state_after) == (before, before)
    assert loaded(shop) == [(1, 10), (2, 0), (3, 30), (4, 40), (5, 50)]


def test_rows_of_a_file_that_are_outside_are_counted_as_filtered(shop: Path) -> None:
    (shop / "orders.csv").write_text("id,made\n1,2024-01-04\n2,2024-01-05\n3,\n4,2024-01-06\n")
    destination = {**pipeline().destination.model_dump(), "write": "append"}
    files = pipeline(source={"type": "file", "path": "orders.csv", "incremental": True}, destination=destination)
    report = run_pipeline(files, partition=partition_of(files, "2024-01-05"))
    assert (report.extracted, report.filtered, report.inserted) == (4, 3, 1)
    assert run_pipeline(files, partition=partition_of(files, "2024-01-04")).inserted == 1
    assert loaded(shop, "id") == [("1",), ("2",)]


def test_a_moment_belongs_to_its_day_in_utc(shop: Path) -> None:
    change(
        shop, "INSERT INTO orders VALUES (6, '2024-01-06T01:00:00+02:00', 'eu', 0), (7, ' 2024-01-05T12:00Z', 'eu', 0)"
    )
    change(shop, "UPDATE orders SET made = '2024-01-06T00:30:00+01:00' WHERE id = 3")
    change(shop, "UPDATE orders SET made = '2024-01-05T23:30:00-01:00' WHERE id = 2")
    zoned = pipeline(transform={"map": {"made": "created_at", "*": "*"}, "convert": {"created_at": "timestamptz"}})
    report = run_pipeline(zoned, partition=partition_of(zoned, "2024-01-05"))
    assert loaded(shop, "id") == [(3,), (6,), (7,)]
    assert report.quarantined == 2, "what is no moment can be in any partition"


def test_runs_for_other_partitions_go_on_at_the_same_time_but_not_for_the_same(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    from settings import get_settings

    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()
    (shop / "data/locks").mkdir(parents=True)
    with FileLock(shop / "data/locks/orders@2024-01-05.lock"):
        run_pipeline(pipeline(), partition=partition_of(pipeline(), "2024-01-04"))
        with pytest.raises(PivotalError, match="another run"):
            run_pipeline(pipeline(), partition=partition_of(pipeline(), "2024-01-05"))


# --- files ------------------------------------------------------------------------------------------------------


def lake(path: str, write: str, **parts: Any) -> Pipeline:
    return pipeline(destination={"type": "file", "path": path, "format": "ndjson", "write": write}, **parts)


def files(folder: Path) -> dict[str, list[int]]:
    """The ids in each folder."""
    found: dict[str, list[int]] = {}
    for file in sorted(folder.resolve().rglob("*.ndjson")):
        if "_pivotal" not in file.parts:
            ids = [orjson.loads(line)["id"] for line in file.read_text().splitlines()]
            found.setdefault(str(file.parent.relative_to(folder.resolve())), []).extend(ids)
    return found


@pytest.mark.parametrize("write", ["append", "replace"])
def test_a_run_for_a_day_replaces_the_files_of_that_day_only(shop: Path, write: str) -> None:
    days = lake("lake/day={created_at}", write, transform={"map": {"made": "created_at", "*": "*"}, "convert": DATES})
    change(shop, "UPDATE orders SET made = substr(made, 1, 10)")
    run_pipeline(days)
    before = files(shop / "lake")
    change(shop, "UPDATE orders SET id = id + 10")
    change(shop, "INSERT INTO orders VALUES (3, '2024-01-05', 'eu', 0)")

    for _ in range(2):
        assert run_pipeline(days, partition=partition_of(days, "2024-01-05")).inserted == 3

    assert files(shop / "lake") == before | {"day=2024-01-05": [3, 12, 13]}
    change(shop, "DELETE FROM orders WHERE made < '2024-01-06'")
    run_pipeline(days, partition=partition_range(days, "2024-01-04", "2024-01-06"))
    others = {day: ids for day, ids in before.items() if day not in {"day=2024-01-04", "day=2024-01-05"}}
    assert files(shop / "lake") == others
    assert len(others) == 2


def test_folders_of_moments_and_of_values_belong_to_partitions_too(shop: Path) -> None:
    moments = lake("lake/{created_at}/{region}", "append")
    run_pipeline(moments)
    change(shop, "DELETE FROM orders WHERE id = 3")
    change(shop, "UPDATE orders SET id = 9 WHERE id = 4")
    run_pipeline(moments, partition=partition_of(moments, "2024-01-05"))
    assert sorted(chain.from_iterable(files(shop / "lake").values())) == [1, 2, 4, 5]

    regions = lake("regions/{region}", "append", partitions=REGIONS)
    for _ in range(2):
        run_pipeline(regions, partition=partition_of(regions, "it's"))
    assert files(shop / "regions") == {"it%27s": [9]}


def test_files_from_before_there_were_folders_stay(shop: Path) -> None:
    run_pipeline(lake("lake", "append", partitions=None))
    before = files(shop / "lake")
    deeper = lake("lake/{region}/days/{created_at}", "append")

    for _ in range(2):
        run_pipeline(deeper, partition=partition_of(deeper, "2024-01-05"))

    assert files(shop / "lake")["."] == before["."]


def test_the_folder_that_tells_the_partition_alone_counts(shop: Path) -> None:
    both = lake("lake/{created_at}-{region}/{created_at}", "append")

    for _ in range(2):
        run_pipeline(both, partition=partition_of(both, "2024-01-05"))

    assert sorted(chain.from_iterable(files(shop / "lake").values())) == [2, 3]


def test_rows_whose_folder_does_not_tell_the_partition_are_refused(shop: Path) -> None:
    (shop / "a.ndjson").write_text('{"id": 1, "day": "2024-01-05"}\n')
    source = {"type": "file", "path": "a.ndjson"}
    noon, rules = "2024-01-05 12:00:00", {"derive": {"at": "CAST(day AS DATE) + INTERVAL 12 HOUR"}}
    moments = lake("lake/{at}", "append", source=source, transform=rules, partitions={"by": "at", "values": [noon]})
    with pytest.raises(PivotalError, match="the folder 2024-01-05T12%3A00%3A00 is of no value of the partition"):
        run_pipeline(moments, partition=partition_of(moments, noon))
    assert not (shop / "lake").exists()


# --- what is pushed down ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "key", "ends"),
    [
        ("hour", "2024-01-05T13:00", "2024-01-05 14:00:00"),
        ("day", "2024-02-29", "2024-03-01 00:00:00"),
        ("week", "2024-01-29", "2024-02-05 00:00:00"),
        ("month", "2024-12-01", "2025-01-01 00:00:00"),
    ],
)
def test_a_partition_ends_where_the_next_one_begins(every: str, key: str, ends: str) -> None:
    declared = pipeline(partitions={"by": "created_at", "every": every, "start": "2024-01-01"})
    partition = partition_of(declared, key)
    assert (partition.name, str(partition.until)) == (key, ends)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("timestamptz", ("between", ["2024-01-05 13:00:00+00:00", "2024-01-05 14:00:00+00:00"])),
        ("date32[day]", ("between", ["2024-01-05", "2024-01-06"])),
        ("text", ("between_text", ["2024-01-04", "2024-01-07"])),
    ],
)
def test_a_database_is_asked_for_no_less_than_the_partition(kind: str, asked: tuple[str, list[str]]) -> None:
    hourly = pipeline(partitions={"by": "created_at", "every": "hour", "start": "2024-01-01"})
    partition = partition_of(hourly, "2024-01-05T13:00")
    assert partition.column == "made"
    assert partition.asked(kind) == asked


def test_a_database_is_asked_for_a_day_more_where_a_zone_moves_what_it_has() -> None:
    zoned = {"type": "timestamptz", "timezone": "America/New_York"}
    moved = partition_of(pipeline(transform={"convert": {"created_at": zoned}}), "2024-01-05")
    assert moved.asked("timestamp") == ("between", ["2024-01-04", "2024-01-07"])


# --- what cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partitions", "key", "told"),
    [
        (None, "2024-01-05", "has no partitions"),
        (DAILY, "2024-01-05T13:00", "no day begins at '2024-01-05T13:00'"),
        (DAILY, "2024-01-05T00:00:00Z", "no day begins"),
        (DAILY, "yesterday", "no day begins at 'yesterday'"),
        (DAILY, "2023-12-31", "before the first partition"),
        (DAILY | {"every": "week"}, "2024-01-02", "no week begins"),
        (DAILY | {"every": "month"}, "2024-01-02", "no month begins"),
        (REGIONS, "asia", "there is no partition 'asia'"),
    ],
)
def test_a_partition_that_is_not_there_is_refused(partitions: Any, key: str, told: str) -> None:
    with pytest.raises(PivotalError, match=told):
        partition_of(pipeline(partitions=partitions), key)


def test_a_range_that_is_empty_or_of_values_is_refused() -> None:
    with pytest.raises(PivotalError, match="nothing is between"):
        partition_range(pipeline(), "2024-01-05", "2024-01-05")
    with pytest.raises(PivotalError, match="which have no order"):
        partition_range(pipeline(partitions=REGIONS), "eu", "us")
    with pytest.raises(PivotalError, match="has no partitions"):
        partition_range(pipeline(partitions=None), "2024-01-05", "2024-01-06")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"partitions": {"by": "created_at"}}, "neither by time nor by value"),
        ({"partitions": {"by": "created_at", "every": "day"}}, "neither by time nor by value"),
        ({"partitions": REGIONS | {"every": "day"}}, "`values` beside `every`"),
        ({"partitions": {"by": "region", "values": ["eu", "eu"]}}, "one value twice"),
        ({"partitions": DAILY | {"every": "week", "start": "2024-01-03"}}, "write 2024-01-01"),
        ({"partitions": DAILY | {"every": "month", "start": "2024-01-03"}}, "write 2024-01-01"),
        ({"partitions": DAILY | {"by": "day"}, "transform": {"derive": {"day": "made"}}}, "`day` is derived"),
        ({"partitions": DAILY | {"by": "day"}, "transform": {"map": {"id": "id"}}}, "`day` is not in the result"),
        ({"partitions": REGIONS, "transform": {"convert": {"region": "string"}}}, "`region` is converted"),
        ({"transform": {"map": {"made": "created_at"}, "convert": {"created_at": "string"}}}, "converted to string"),
        ({"transform": {"convert": {"created_at": {"type": "date", "format": "%Y-%d-%m"}}}}, "has a format"),
        ({"destination": {"type": "file", "path": "lake/{id}", "write": "append"}}, "need a folder of their own"),
        (
            {"destination": {"type": "file", "path": "lake/{created_at}{id}", "write": "append"}},
            "a folder of their own",
        ),
        ({"destination": {"type": "api", "url": "https://api.example.com/orders"}}, "load into a table or files"),
    ],
)
def test_partitions_that_cannot_work_are_refused_before_anything_runs(parts: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        pipeline(**parts)


@pytest.mark.usefixtures("shop")
def test_a_column_that_is_no_moment_cannot_be_a_partition_by_time() -> None:
    by_id = pipeline(partitions=DAILY | {"by": "id"})
    with pytest.raises(PivotalError, match="id"):
        run_pipeline(by_id, partition=partition_of(by_id, "2024-01-05"))


@pytest.mark.usefixtures("shop")
def test_text_must_be_converted_to_be_a_partition_by_time() -> None:
    as_text = pipeline(transform={"map": {"made": "created_at", "*": "*"}})
    with pytest.raises(PivotalError, match="Cannot compare values of type VARCHAR") as caught:
        run_pipeline(as_text, partition=partition_of(as_text, "2024-01-05"))
    assert "`convert`" in (caught.value.hint or "")
