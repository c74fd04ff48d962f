"""A warehouse as projections use it: several tables, the quarantine and the state in one transaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from errors import DestinationError
from etl.destinations.warehouse import Target, open_warehouse
from etl.stream import Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, bad, load, rows

CUSTOMERS = Target("crm.customers", "merge", key=["id"], version="seen")
INVOICES = Target("billing.invoices", "merge", key=["id"])
LOG = Target("log", "append")


def test_several_tables_and_the_state_change_together(database: Backend) -> None:
    with database.warehouse.transaction() as transaction:
        customers, invoices, log = map(transaction.writer, [CUSTOMERS, INVOICES, LOG])
        customers.write(rows(id=["a"], seen=[1]))
        invoices.write(rows(id=[1, 2]))
        log.write(rows(what=["x"]))
        customers.write(rows(id=["a", "b"], seen=[2, 1]))
        transaction.quarantine("projections/stripe", "run-1", [bad("x", 1)])
        assert customers.finish() == Loaded(inserted=2, deduplicated=1)
        assert invoices.finish() == Loaded(inserted=2)
        assert log.finish() == Loaded(inserted=1)
        transaction.save_state("projections/stripe", "run-1", {"sequence": 3})
        transaction.commit()

    assert database.rows("crm.customers") == [{"id": "a", "seen": 2}, {"id": "b", "seen": 1}]
    assert database.rows("billing.invoices") == [{"id": 1}, {"id": 2}]
    assert database.rows("log", order="what") == [{"what": "x"}]
    assert database.warehouse.state("projections/stripe") == {"sequence": 3}
    assert len(database.warehouse.quarantined("projections/stripe")) == 1


def test_an_error_undoes_every_table(database: Backend) -> None:
    def change() -> None:
        with database.warehouse.transaction() as transaction:
            customers, invoices = map(transaction.writer, [CUSTOMERS, INVOICES])
            customers.write(rows(id=["a"], seen=[1]))
            customers.finish()
            transaction.save_state("projections/stripe", "run-1", {"sequence": 3})
            invoices.write(rows(id=[1, None]))
            invoices.finish()
            transaction.commit()

    with pytest.raises(DestinationError, match="column id of the key is NULL"):
        change()

    assert database.untouched("crm.customers")
    assert database.warehouse.state("projections/stripe") is None


def test_a_transaction_may_have_any_number_of_writers_one_after_the_other(database: Backend) -> None:
    with database.warehouse.transaction() as transaction:
        for number in range(20):
            writer = transaction.writer(INVOICES)
            writer.write(rows(id=[number]))
            assert writer.finish() == Loaded(inserted=1)
            del writer
        transaction.commit()


def test_who_reads_a_state_in_a_transaction_is_the_only_one_to_change_it(database: Backend) -> None:
    def count(_: int) -> None:
        with database.warehouse.transaction() as transaction:
            state = transaction.state("counter") or {"times": 0}
            transaction.save_state("counter", "run", {"times": int(str(state["times"])) + 1})
            transaction.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(12)))

    assert database.warehouse.state("counter") == {"times": 12}


def test_whose_rows_wait_in_the_quarantine_is_told(database: Backend) -> None:
    assert database.warehouse.waiting() == {}
    for name, records in {"orders": [1, 2], "import_codes": [1]}.items():
        load(database.destination(name=name), quarantine=[bad("x", record) for record in records])

    assert database.warehouse.waiting() == {"import_codes": 1, "orders": 2}


def test_a_transaction_that_did_nothing_makes_nothing(database: Backend, tmp_path: Path) -> None:
    with database.warehouse.transaction() as transaction:
        transaction.commit()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("database", ["duckdb", "sqlite", "postgres"], indirect=True)
def test_one_table_may_be_written_twice_in_a_transaction(database: Backend) -> None:
    with database.warehouse.transaction() as transaction:
        for name in ("first", "second"):
            writer = transaction.writer(INVOICES)
            writer.write(pa.record_batch({"id": [1], name: ["x"]}))
            writer.finish()
        transaction.commit()

    assert database.rows("billing.invoices") == [{"id": 1, "first": "x", "second": "x"}]


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_relative_path_starts_from_the_projects_root(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_ROOT", str(tmp_path))
    get_settings.cache_clear()

    with open_warehouse(f"{kind}:///data/new/w.db").transaction() as transaction:
        transaction.save_state("x", "run-1", {"a": 1})
        transaction.commit()

    assert (tmp_path / "data/new/w.db").is_file()
    assert [path.name for path in (tmp_path / "data/new").iterdir()] == ["w.db"]


@pytest.mark.parametrize("url", ["duckdb://", "sqlite:///", "sqlite:///:memory:", "oracle://host/db", "nonsense"])
def test_a_url_that_names_no_database_says_what_to_write(url: str) -> None:
    with pytest.raises(DestinationError) as error:
        open_warehouse(url)

    assert ":///" in str(error.value.hint)


@pytest.mark.parametrize("table", ["a.b.c", "orders.", ""])
def test_a_name_that_is_no_tables_is_refused(table: str, tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="is not the name of a table"):
        open_warehouse(f"duckdb:///{tmp_path}/w.duckdb").transaction().writer(Target(table, "append"))


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_folder_that_cannot_be_made_is_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(DestinationError, match="/file: ") as error:
        open_warehouse(f"{kind}:///{tmp_path}/file/w.db").transaction().save_state("x", "run-1", {})

    assert error.value.hint == "a part of the path is a file, not a folder"
