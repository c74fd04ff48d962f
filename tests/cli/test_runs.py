"""`pivotal list | preview | run | quarantine`, over a real database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.cli.conftest import Pivotal
from tests.shop import change

ORDERS = """\
description: Shop orders
owners: ["team:data"]
source:
  type: database
  connection: sqlite:///shop.db
  table: orders
transform:
  map: {id: order_id, amt: amount, status: status}
  convert: {amount: "decimal(18,2)"}
  validate: {amount: {min: 0}, status: {in: [paid, test]}}
  filter: ["status <> 'test'"]
destination:
  type: database
  connection: ${PIVOTAL_WAREHOUSE_URL}
  table: orders
  write: merge
  key: [order_id]
schedule: "0 6 * * *"
"""

FILES = """\
description: Files, each loaded once
source: {type: file, path: "*.csv", incremental: true}
destination: {type: file, path: lake, write: append}
"""

ROWS = [(1, "10.50", "paid"), (2, "x", "paid"), (3, "-1", "open\x1b[31m"), (4, "2", "test"), (5, "7", "paid")]


@pytest.fixture
def shop(project: Path) -> Path:
    """A project with one pipeline and its source."""
    (project / "pipelines/orders.yaml").write_text(ORDERS)
    change(project, "CREATE TABLE orders (id INTEGER PRIMARY KEY, amt TEXT, status TEXT)")
    change(project, "INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    return project


def loaded(project: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(str(project / "data/warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.execute("SELECT order_id, amount::VARCHAR FROM orders ORDER BY 1").fetchall()


# --- list -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shop")
def test_pipelines_are_listed_for_people_and_programs(pivotal: Pivotal) -> None:
    assert pivotal("list").out.splitlines() == [
        "name    source           destination      write  schedule   description",
        "orders  database orders  database orders  merge  0 6 * * *  Shop orders",
    ]
    assert pivotal("list", "--json").json == [
        {
            "name": "orders",
            "description": "Shop orders",
            "group": "pipelines",
            "owners": ["team:data"],
            "source": "database orders",
            "destination": "database orders",
            "write": "merge",
            "schedule": "0 6 * * *",
        }
    ]


def test_a_secret_in_an_address_is_not_listed(shop: Path, pivotal: Pivotal) -> None:
    source = "type: api\n  url: https://user:hunter2@api.example.com/v1?key=hunter2"
    database = "type: database\n  connection: sqlite:///shop.db\n  table: orders"
    (shop / "pipelines/orders.yaml").write_text(ORDERS.replace(database, source))
    answer = pivotal("list")
    assert "api https://api.example.com/v1 " in answer.out
    assert "hunter2" not in answer.out


def test_rows_into_an_api_are_listed_by_their_method(project: Path, pivotal: Pivotal) -> None:
    api = FILES.replace("{type: file, path: lake, write: append}", "{type: api, url: https://a.example, method: PUT}")
    (project / "pipelines/files.yaml").write_text(api)
    assert [row["write"] for row in pivotal("list", "--json").json] == ["PUT"]


@pytest.mark.usefixtures("project")
def test_an_empty_project_says_what_to_do(pivotal: Pivotal) -> None:
    answer = pivotal("list")
    assert answer.code == 0
    assert "Write one: docs/pipelines.md" in answer.out


def test_listing_tells_the_mistakes_of_all_files_on_stderr(shop: Path, pivotal: Pivotal) -> None:
    (shop / "pipelines/bad.yaml").write_text("a: [")
    answer = pivotal("list")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("pipelines/bad.yaml:2:1: not YAML")


# --- check against the source ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change_in_file", "told"),
    [
        (("amt: amount", "amtt: amount"), "8:23: there is no such column: 'amtt'\n  hint: did you mean `amt`?"),
        (("map: {id: order_id, amt: amount, status: status}", 'map: {id: order_id, "*": "*"}'), "'amount'"),
        (
            ("table: orders\ntransform", "table: orders\n  incremental: {cursor: at}\ntransform"),
            "7:25: there is no such",
        ),
    ],
)
def test_a_local_source_is_asked_for_its_columns(
    shop: Path, pivotal: Pivotal, change_in_file: tuple[str, str], told: str
) -> None:
    (shop / "pipelines/orders.yaml").write_text(ORDERS.replace(*change_in_file))
    answer = pivotal("check")
    assert answer.code == 1
    assert told in answer.out


def test_a_source_that_is_not_there_is_no_mistake_of_the_file(shop: Path, pivotal: Pivotal) -> None:
    change(shop, "DROP TABLE orders")
    assert pivotal("check").code == 0
    (shop / "shop.db").unlink()
    assert pivotal("check").code == 0
    assert not (shop / "shop.db").exists()


# --- run ------------------------------------------------------------------------------------------------------


def test_a_run_tells_where_every_row_went(shop: Path, pivotal: Pivotal) -> None:
    answer = pivotal("run", "orders")
    *counts, speed, result, hint = answer.out.splitlines()
    assert answer.code == 0
    assert [line.split() for line in counts] == [
        ["orders", "rows"], ["extracted", "5"], ["loaded", "2"], ["inserted", "2"], ["updated", "0"], ["filtered", "1"],
        ["quarantined", "2"], ["deduplicated", "0"],
    ]  # fmt: skip
    assert re.fullmatch(
        r"\d+\.\d\d s, [\d,]+ rows/s, \d.*B read, \d.*B of memory at most\.", speed.replace("bytes", "B")
    )
    assert result.startswith("The result is in orders in duckdb:///")
    assert hint.endswith("pivotal quarantine show orders")
    assert loaded(shop) == [(1, "10.50"), (5, "7.00")]


def test_a_run_says_where_it_started_and_where_the_next_one_does(shop: Path, pivotal: Pivotal) -> None:
    incremental = ORDERS.replace("table: orders\nt", "table: orders\n  incremental: {cursor: id}\nt")
    (shop / "pipelines/orders.yaml").write_text(incremental)
    assert "\ncursor: none -> 5\n" in pivotal("run", "orders").out
    change(shop, "INSERT INTO orders VALUES (6, '8', 'paid')")
    assert "\ncursor: 5 -> 6\n" in pivotal("run", "orders").out
    (shop / "a.csv").write_text("id\n1\n")
    (shop / "pipelines/files.yaml").write_text(FILES)
    assert "\nfiles: 0 -> 1 known\n" in pivotal("run", "files").out


@pytest.mark.usefixtures("shop")
def test_a_runs_report_has_stable_keys_for_programs(pivotal: Pivotal) -> None:
    answer = pivotal("run", "orders", "--json")
    assert answer.err == ""
    assert list(answer.json) == [
        "pipeline", "run_id", "source", "destination", "partition", "extracted", "loaded", "inserted", "updated",
        "filtered", "quarantined", "deduplicated", "tombstones", "deleted", "expired", "missed", "children",
        "bytes_read", "seconds", "peak_memory", "state_before", "state_after", "schema", "rows_per_second",
    ]  # fmt: skip
    assert answer.json["schema"] == {"order_id": "int64", "amount": "decimal128(18, 2)", "status": "string"}


def test_a_failed_run_ends_with_1_and_its_hint(shop: Path, pivotal: Pivotal) -> None:
    change(shop, "DROP TABLE orders")
    answer = pivotal("run", "orders")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: ")
    assert "orders" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.usefixtures("shop")
def test_a_mistyped_name_gets_the_nearest(pivotal: Pivotal) -> None:
    for command in (("run",), ("preview",), ("quarantine", "show")):
        answer = pivotal(*command, "order")
        assert answer.code == 2
        assert "there is no pipeline 'order'; did you mean 'orders'?" in answer.err


def test_a_mistake_in_another_file_does_not_stop_a_run(shop: Path, pivotal: Pivotal) -> None:
    (shop / "pipelines/bad.yaml").write_text("a: [")
    assert pivotal("run", "orders").code == 0
    assert pivotal("run", "bad").err.startswith("pipelines/bad.yaml:2:1: not YAML")
    assert "some files have mistakes" in pivotal("run", "nosuch").err


def signalled(shop: Path, number: int) -> subprocess.CompletedProcess[str]:
    """What becomes of a run that gets a signal after its first rows."""
    change(shop, "DELETE FROM orders")
    many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)"
    change(shop, f"INSERT INTO orders {many} SELECT i, '10.5', 'paid' FROM n")
    code = (
        "import os, sys\nimport cli.output\n"
        f"def so_far(report): os.kill(os.getpid(), {number}); return 'x'\n"
        "cli.output.EVERY, cli.output._so_far = 0.0, so_far\n"
        "from cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "run", "orders"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=shop, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_does_so_with_130_one_line_and_nothing_published(
    shop: Path, pivotal: Pivotal, number: int
) -> None:
    done = signalled(shop, number)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in done.stderr
    with pytest.raises(duckdb.Error):
        loaded(shop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (event,) = pivotal("events", "list", "--json").json
    assert event["type"] == "pivotal.pipeline.canceled"


def test_a_run_that_is_killed_keeps_nobody_from_running_again(shop: Path, pivotal: Pivotal) -> None:
    assert signalled(shop, signal.SIGKILL).returncode == -signal.SIGKILL
    change(shop, "DELETE FROM orders WHERE id > 2")
    assert pivotal("run", "orders", "--json").json["loaded"] == 2


def test_partitions_are_run_one_by_one_or_as_a_range(shop: Path, pivotal: Pivotal) -> None:
    days = "partitions: {by: day, every: day, start: 2024-01-01}\n"
    text = ORDERS.replace("status: status}", "status: status, day: day}") + days
    (shop / "pipelines/orders.yaml").write_text(text.replace('"decimal(18,2)"', '"decimal(18,2)", day: date'))
    change(shop, "ALTER TABLE orders ADD COLUMN day DATE")
    change(shop, "UPDATE orders SET amt = '1', day = '2024-01-0' || id, status = 'paid'")
    report = pivotal("run", "orders", "--partition", "2024-01-02", "--json").json
    assert (report["loaded"], report["partition"]) == (1, "2024-01-02")
    assert pivotal("run", "orders", "--partition", "2024-01-02").out.startswith("orders 2024-01-02  rows\n")
    assert [event["data"]["partition"] for event in pivotal("events", "list", "--json").json] == ["2024-01-02"] * 2
    assert pivotal("run", "orders", "--from", "2024-01-04", "--to", "2024-01-06", "--json").json["loaded"] == 2
    assert [order for order, _ in loaded(shop)] == [2, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--partition", "2024-01-01"], 1, "has no partitions"),
        (["--from", "2024-01-01"], 2, "both --from and --to"),
        (["--partition", "2024-01-01", "--from", "2024-01-01", "--to", "2024-01-02"], 2, "say either --partition"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_partitions_that_are_not_there_are_refused(
    pivotal: Pivotal, arguments: list[str], code: int, told: str
) -> None:
    answer = pivotal("run", "orders", *arguments)
    assert (answer.code, told in answer.err) == (code, True)


# --- preview --------------------------------------------------------------------------------------------------


def test_a_preview_shows_source_beside_result_and_writes_nothing(shop: Path, pivotal: Pivotal) -> None:
    answer = pivotal("preview", "orders", "--json")
    assert [row["outcome"] for row in answer.json] == ["inserted", "broken", "broken", "filtered", "inserted"]
    assert answer.json[0]["source"] == {"id": 1, "amt": "10.50", "status": "paid"}
    assert answer.json[0]["result"] == {"order_id": 1, "amount": "10.50", "status": "paid"}
    assert answer.json[1]["broken"][0]["rule"] == "convert: decimal(18,2)"
    assert not (shop / "data/warehouse.duckdb").exists()


@pytest.mark.usefixtures("shop")
def test_a_preview_for_people_escapes_what_a_terminal_would_obey(pivotal: Pivotal) -> None:
    answer = pivotal("preview", "orders", "--limit", "3")
    assert "\x1b" not in answer.out
    assert "status = open\\x1b[31m" in answer.out
    assert "amount: '-1' is less than 0 (min: 0)" in answer.out
    assert "id = 4" not in answer.out


def test_a_preview_tells_which_rows_the_destination_has(shop: Path, pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    change(shop, "INSERT INTO orders VALUES (6, '8', 'paid')")
    answer = pivotal("preview", "orders", "--json")
    outcomes = ["updated", "broken", "broken", "filtered", "updated", "inserted"]
    assert [row["outcome"] for row in answer.json] == outcomes
    assert loaded(shop) == [(1, "10.50"), (5, "7.00")]


def test_a_preview_starts_where_a_run_would_or_at_the_beginning(shop: Path, pivotal: Pivotal) -> None:
    incremental = "table: orders\n  incremental: {cursor: id}"
    (shop / "pipelines/orders.yaml").write_text(ORDERS.replace("table: orders\nt", incremental + "\nt"))
    pivotal("run", "orders")
    for arguments, expected in (([], [5]), (["--full-refresh"], [1, 2, 3, 4, 5])):
        shown = pivotal("preview", "orders", "--json", *arguments).json
        assert [row["source"]["id"] for row in shown] == expected


def test_a_preview_without_rows_says_how_to_see_some(shop: Path, pivotal: Pivotal) -> None:
    (shop / "a.csv").write_text("id\n1\n")
    (shop / "pipelines/files.yaml").write_text(FILES)
    pivotal("run", "files")
    assert pivotal("preview", "files").out == "There is nothing new to read; --full-refresh looks from the start.\n"
    assert "id = 1" in pivotal("preview", "files", "--full-refresh").out
    change(shop, "DELETE FROM orders")
    assert pivotal("preview", "orders").out == "There is nothing to read.\n"


# --- quarantine -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shop")
def test_the_quarantine_is_counted_and_shown(pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    assert pivotal("quarantine", "list").out.splitlines() == ["pipeline  rows", "orders       2"]
    assert pivotal("quarantine", "list", "--json").json == [{"pipeline": "orders", "rows": 2}]
    shown = {row["row"]["id"]: row for row in pivotal("quarantine", "show", "orders", "--json").json}
    assert shown["3"]["row"] == {"id": "3", "amt": "-1", "status": "open\x1b[31m"}
    assert [broken["rule"] for broken in shown["3"]["broken"]] == ["min: 0", "in: [paid, test]"]
    assert shown["3"]["origin"]["table"] == "orders"
    one = pivotal("quarantine", "show", "orders", shown["3"]["id"][:8])
    assert "amt = -1" in one.out
    assert "amt = x" not in one.out


def test_rows_are_replayed_after_a_fix(shop: Path, pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    (shop / "pipelines/orders.yaml").write_text(
        ORDERS.replace("amount: {min: 0}, status: {in: [paid, test]}", "amount: {min: -5}")
    )
    answer = pivotal("quarantine", "replay", "orders", "--json")
    assert (answer.json["extracted"], answer.json["loaded"], answer.json["quarantined"]) == (2, 1, 1)
    assert loaded(shop) == [(1, "10.50"), (3, "-1.00"), (5, "7.00")]
    assert [row["row"]["id"] for row in pivotal("quarantine", "show", "orders", "--json").json] == ["2"]


@pytest.mark.usefixtures("shop")
def test_rows_are_dropped_by_id_or_all_after_a_yes(pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    first, _ = pivotal("quarantine", "show", "orders", "--json").json
    assert "say which rows" in pivotal("quarantine", "drop", "orders").err
    assert "say which rows" in pivotal("quarantine", "drop", "orders", "--all", "--older-than", "1d").err
    assert "--older-than: '30' is not a duration" in pivotal("quarantine", "drop", "orders", "--older-than", "30").err
    assert pivotal("quarantine", "drop", "orders", "--older-than", "1d", "--yes").out == "Dropped 0 rows.\n"
    assert "is not the beginning of an id" in pivotal("quarantine", "drop", "orders", "no", "--yes").err
    assert pivotal("quarantine", "drop", "orders", first["id"][:12], "--yes").out == "Dropped 1 row.\n"
    assert "there is nobody to ask; add --yes" in pivotal("quarantine", "drop", "orders", "--all").err
    assert pivotal("quarantine", "drop", "orders", "--all", "--yes", "--json").json == {
        "pipeline": "orders",
        "dropped": 1,
    }
    assert pivotal("quarantine", "show", "orders").out == "The quarantine is empty.\n"
    pivotal("run", "orders")
    assert pivotal("quarantine", "drop", "orders", "--older-than", "0s", "--yes").out == "Dropped 2 rows.\n"


def test_a_run_says_that_rows_left_the_quarantine_by_their_age(shop: Path, pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    change(shop, "UPDATE orders SET amt = '1', status = 'paid'")
    (shop / "pipelines/orders.yaml").write_text(ORDERS + "quarantine_retention: 0s\n")
    assert "2 old rows left the quarantine (`quarantine_retention`)." in pivotal("run", "orders").out
