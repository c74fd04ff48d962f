"""Partitioned paths: `{column}` in the path makes a folder of each of the column's values."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from errors import DestinationError
from etl.destinations import open_destination
from etl.loader import check
from etl.pipeline import Pipeline
from etl.stream import Destination
from tests.etl.destinations.backends import bad, load, rows


@pytest.fixture
def destination(tmp_path: Path) -> Callable[..., Destination]:
    """Makes destinations under a path in this test's folder."""

    def make(path: str, write: str = "append", **more: object) -> Destination:
        where = {"type": "file", "path": f"{tmp_path}/{path}", "write": write, **more}
        source = {"type": "file", "path": "orders.csv"}
        declared = {"name": "orders", "description": "A test.", "source": source, "destination": where}
        return open_destination(Pipeline.model_validate(declared))

    return make


def _files(folder: Path) -> list[str]:
    """The data files, by their paths inside."""
    found = (path.relative_to(folder.resolve()) for path in folder.resolve().rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "_pivotal")


def test_each_value_has_its_folder_and_rows_keep_their_order(destination: Any, tmp_path: Path) -> None:
    days = [date(2024, 1, 2), date(2024, 1, 1), date(2024, 1, 2)]

    loaded = load(destination("orders/{day}", format="csv"), rows(id=[3, 2, 1], day=days), rows(id=[0], day=days[:1]))

    assert loaded.inserted == 4
    assert _files(tmp_path / "orders") == ["2024-01-01/orders-run-1.csv", "2024-01-02/orders-run-1.csv"]
    assert (tmp_path / "orders/2024-01-02/orders-run-1.csv").read_text() == (
        "id,day\n3,2024-01-02\n1,2024-01-02\n0,2024-01-02\n"
    )


def test_several_columns_and_text_between_them_make_folders_as_hive_has_them(destination: Any, tmp_path: Path) -> None:
    load(
        destination("lake/orders/year={year}/shop={shop}"),
        rows(id=[1, 2, 3], year=[2023, 2024, 2024], shop=["north", "south", None]),
    )

    assert _files(tmp_path / "lake/orders") == [
        "year=2023/shop=north/orders-run-1.parquet",
        "year=2024/shop=__HIVE_DEFAULT_PARTITION__/orders-run-1.parquet",
        "year=2024/shop=south/orders-run-1.parquet",
    ]
    read = f"read_parquet('{tmp_path}/lake/orders/*/*/*.parquet', hive_partitioning = true)"
    assert duckdb.execute(f"SELECT id, year, shop FROM {read} ORDER BY id").fetchall() == [
        (1, 2023, "north"),
        (2, 2024, "south"),
        (3, 2024, None),
    ]


def test_no_value_leads_out_of_the_folder_or_into_ours(destination: Any, tmp_path: Path) -> None:
    values = ["../../away", "..", "/etc", "_pivotal", ".hidden", "", None, "a\0b", "ü 1", "50%", "C:\\x"]

    load(destination("orders/{shop}", format="ndjson"), rows(id=list(range(len(values))), shop=values))

    assert {file.rpartition("/")[0] for file in _files(tmp_path / "orders")} == {
        "%2E.%2F..%2Faway", "%2E.", "%2Fetc", "%5Fpivotal", "%2Ehidden", "__HIVE_DEFAULT_PARTITION__", "a%00b", "ü 1",
        "50%25", "C%3A%5Cx",
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [".orders", "orders"]


def test_state_and_quarantine_stand_in_the_folder_above(destination: Any, tmp_path: Path) -> None:
    orders = destination("orders/{shop}")

    load(orders, rows(id=[1], shop=["a"]), quarantine=[bad("x", 1)], state={"cursor": 1})

    assert (tmp_path / "orders/_pivotal/state.json").exists()
    assert orders.state() == {"cursor": 1}
    assert len(destination("orders/{shop}").quarantined()) == 1


def test_the_same_run_again_replaces_what_it_wrote_in_every_folder(destination: Any, tmp_path: Path) -> None:
    orders = destination("orders/{shop}")
    load(orders, rows(id=[1, 2], shop=["a", "b"]), run_id="run-1")
    load(orders, rows(id=[3, 4], shop=["b", "c"]), run_id="run-2")

    load(orders, rows(id=[5], shop=["a"]), run_id="run-2")

    assert _files(tmp_path / "orders") == [
        "a/orders-run-1.parquet",
        "a/orders-run-2.parquet",
        "b/orders-run-1.parquet",
    ]


def test_replace_replaces_all_folders(destination: Any, tmp_path: Path) -> None:
    orders = destination("orders/{shop}", "replace")
    load(orders, rows(id=[1, 2], shop=["a", "b"]), run_id="run-1")

    load(orders, rows(id=[3], shop=["c"]), run_id="run-2")

    assert _files(tmp_path / "orders") == ["c/data.parquet"]


def test_date_and_run_id_are_of_the_run_unless_they_are_columns(destination: Any, tmp_path: Path) -> None:
    today = datetime.now(UTC).date()

    load(destination("runs/{date}/{run_id}"), rows(id=[1]))
    load(destination("days/{date}"), rows(id=[1], date=["1999-12-31"]))

    assert _files(tmp_path / "runs") in (
        [f"{day}/run-1/orders-run-1.parquet"] for day in (today, datetime.now(UTC).date())
    )
    assert _files(tmp_path / "days") == ["1999-12-31/orders-run-1.parquet"]


def test_a_column_that_later_rows_lack_is_null_there(destination: Any, tmp_path: Path) -> None:
    load(destination("orders/{date}"), rows(id=[1], date=["x"]), rows(id=[2]))

    assert [file.partition("/")[0] for file in _files(tmp_path / "orders")] == ["__HIVE_DEFAULT_PARTITION__", "x"]


def test_a_placeholder_that_names_nothing_says_what_there_is(destination: Any) -> None:
    with pytest.raises(DestinationError, match=r"the path names \{regoin\}, but the rows have no such column") as error:
        load(destination("orders/{regoin}"), rows(id=[1], region=["x"]))

    assert "id, region; of the run there are {date} and {run_id}" in str(error.value.hint)


def test_a_value_that_is_too_long_for_a_folder_is_refused_by_name(destination: Any) -> None:
    with pytest.raises(DestinationError, match="a value of shop is too long for a folder's name: xxx"):
        load(destination("orders/{shop}"), rows(id=[1], shop=["x" * 256]))


@pytest.mark.parametrize("path", ["{shop}/x", "orders/{}", "orders/{shop", "s3://{bucket}/orders"])
def test_a_path_that_cannot_be_partitioned_is_refused_before_the_run(path: str, tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(
        "description: A test.\nsource: {type: file, path: orders.csv}\n"
        f'destination: {{type: file, path: "{path}", write: append}}\n'
    )

    (problem,) = check([file])

    assert problem.line == 3
    assert "{co" in problem.hint


def test_thousands_of_folders_need_neither_as_many_open_files_nor_more_memory(
    destination: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the disk's time is not what is tested
    most_files = most_bytes = 0
    before = pa.total_allocated_bytes()

    with destination("orders/{shop}", format="csv").begin("run-1") as running:
        for number in range(20):
            shops = [str(shop) for shop in range(number * 125, number * 125 + 125)] * 8
            running.write(pa.record_batch({"shop": shops, "text": ["x" * 3000] * 1000}))
            most_files = max(most_files, len(list(Path("/proc/self/fd").iterdir())))
            most_bytes = max(most_bytes, pa.total_allocated_bytes() - before)
        assert running.loaded().inserted == 20_000
        running.commit(None)

    assert most_files < 400
    assert most_bytes < 100 * 1024 * 1024
    assert len(_files(tmp_path / "orders")) >= 2_500
