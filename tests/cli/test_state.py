"""`pivotal state`: shown, set, reset; what the next run makes of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cli.conftest import Pivotal

ORDERS = """\
description: Shop orders
source:
  type: database
  connection: sqlite:///shop.db
  table: orders
  incremental: {cursor: at, lag: 1h}
destination: {type: database, connection: "${PIVOTAL_WAREHOUSE_URL}", table: orders, write: append}
"""
FILES = """\
description: Payments
source: {type: file, path: "inbox/*.csv", incremental: true}
destination: {type: file, path: lake/payments, write: append}
"""


@pytest.fixture
def shop(project: Path) -> Path:
    """A project with an incremental pipeline that has run."""
    (project / "pipelines/orders.yaml").write_text(ORDERS)
    with closing(sqlite3.connect(project / "shop.db")) as source:
        source.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, at TEXT)")
        source.executemany("INSERT INTO orders VALUES (?, ?)", [(day, f"2024-01-0{day}") for day in (1, 2, 3)])
        source.commit()
    return project


@pytest.mark.usefixtures("shop")
def test_a_state_is_shown_for_people_and_programs(pivotal: Pivotal) -> None:
    assert "its next run starts at the beginning" in pivotal("state", "show", "orders").out
    assert pivotal("state", "show", "orders", "--json").json == {"pipeline": "orders", "state": None}
    pivotal("run", "orders")
    shown = pivotal("state", "show", "orders").out
    assert "cursor  2024-01-03" in shown
    assert "2 rows were read at the cursor's edge" in shown
    assert pivotal("state", "show", "orders", "--json").json["state"]["cursor"] == "2024-01-03"


@pytest.mark.usefixtures("shop")
def test_the_next_run_starts_from_a_cursor_that_was_set(pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    answer = pivotal("state", "set", "orders", "cursor=2024-01-03", "--json")
    assert answer.json["before"]["cursor"] == "2024-01-03"
    assert answer.json["after"] == {"cursor": "2024-01-03"}, "the edge of the old cursor is not the new one's"
    assert pivotal("run", "orders", "--json").json["loaded"] == 2


@pytest.mark.usefixtures("shop")
def test_a_reset_lets_the_next_run_read_everything(pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    refused = pivotal("state", "reset", "orders")
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    assert pivotal("state", "reset", "orders", "--yes").out.splitlines()[1].split() == ["cursor", "2024-01-03"]
    assert pivotal("run", "orders", "--json").json["loaded"] == 3


def test_the_files_of_a_state_are_listed_and_can_be_set(project: Path, pivotal: Pivotal) -> None:
    (project / "pipelines/payments.yaml").write_text(FILES)
    (project / "inbox").mkdir()
    for number in range(22):
        (project / f"inbox/{number:02}.csv").write_text("id\n1\n")
    pivotal("run", "payments")
    shown = pivotal("state", "show", "payments").out
    assert "inbox/19.csv" in shown
    assert "... and 2 more" in shown
    assert pivotal("state", "set", "payments", "--state", '{"files": {}}').code == 0
    assert pivotal("run", "payments", "--json").json["extracted"] == 22


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["orders", "curser=1"], "'curser' is not in the state"),
        (["orders", "edge=1"], "'edge' is no single value"),
        (["orders", "cursor"], "'cursor' is not KEY=VALUE"),
        (["orders"], "say either KEY=VALUE"),
        (["orders", "cursor=yesterday"], "`lag` needs a cursor that is a time"),
        (["orders", "--state", "{"], "--state: not JSON"),
        (["orders", "--state", "[]"], "--state: not a JSON object"),
        (["orders", "--state", '{"files": {}}'], "its state has no 'files'"),
        (["orders", "--state", '{"cursor": 1}'], "'cursor' is not a text"),
        (["order", "cursor=1"], "there is no pipeline 'order'; did you mean 'orders'?"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_a_state_that_no_run_could_start_from_is_refused(pivotal: Pivotal, arguments: list[str], told: str) -> None:
    pivotal("run", "orders")
    answer = pivotal("state", "set", *arguments)
    assert answer.code in {1, 2}
    assert told in answer.err
    assert pivotal("state", "show", "orders", "--json").json["state"]["cursor"] == "2024-01-03"


def test_a_state_is_not_changed_while_the_pipeline_runs(shop: Path, pivotal: Pivotal) -> None:
    pivotal("run", "orders")
    with FileLock(shop / "data/locks/orders.lock"):
        answer = pivotal("state", "reset", "orders", "--yes")
    assert answer.code == 1
    assert "another run is in progress" in answer.err


def test_a_pipeline_that_reads_everything_has_no_state_to_change(shop: Path, pivotal: Pivotal) -> None:
    (shop / "pipelines/orders.yaml").write_text(ORDERS.replace("  incremental: {cursor: at, lag: 1h}\n", ""))
    assert "keeps no state" in pivotal("state", "set", "orders", "cursor=1").err
