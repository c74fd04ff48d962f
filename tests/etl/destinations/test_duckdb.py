"""What DuckDB asks for besides the contract: one process has the file at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from errors import DestinationError
from etl.stream import Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, load, make_backend, rows

_HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    return make_backend("duckdb", request)


@contextmanager
def _held(backend: Backend) -> Iterator[subprocess.Popen[bytes]]:
    """Another process has the file open until its stdin is closed."""
    command = [sys.executable, "-c", _HOLDER, backend.url.removeprefix("duckdb:///")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == b"open\n"
        yield process
        process.stdin.close()


def test_a_run_waits_until_another_process_closes_the_file(backend: Backend) -> None:
    results: list[Loaded] = []
    thread = threading.Thread(target=lambda: results.append(load(backend.destination(), rows(id=[1]))))

    with _held(backend):
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
    thread.join()

    assert results == [Loaded(inserted=1)]


def test_waiting_too_long_says_who_has_the_file(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()

    with _held(backend) as holder, pytest.raises(DestinationError) as error:
        backend.destination().begin("run-1").loaded()

    assert f"PID {holder.pid}" in error.value.message
    assert error.value.retryable
    assert "PIVOTAL_LOCK_TIMEOUT" in str(error.value.hint)


def test_a_slow_source_keeps_nobody_waiting(backend: Backend) -> None:
    with backend.destination().begin("run-1") as slow:
        slow.write(rows(id=[1]))
        with _held(backend):
            slow.write(rows(id=[2]))
        slow.loaded()
        slow.commit(None)

    assert backend.rows() == [{"id": 1}, {"id": 2}]


def test_threads_of_one_process_take_turns(backend: Backend) -> None:
    problems: list[Exception] = []

    def merge(number: int) -> None:
        try:
            load(backend.destination("merge", key=["id"]), rows(id=[0, number], n=[number, number]), run_id=str(number))
        except DestinationError as error:
            problems.append(error)

    threads = [threading.Thread(target=merge, args=[number]) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert [row["id"] for row in backend.rows()] == [0, 1, 2, 3, 4, 5]


def test_a_reader_in_the_same_process_sees_the_old_or_the_new_table(backend: Backend) -> None:
    destination = backend.destination("replace")
    load(destination, rows(id=[1, 2]))

    with duckdb.connect(backend.url.removeprefix("duckdb:///")) as reader:
        with destination.begin("run-2") as running:
            running.write(rows(id=[3, 4, 5]))
            running.loaded()
            assert reader.sql("SELECT sum(id) FROM orders").fetchall() == [(3,)]
            running.commit(None)
        assert reader.sql("SELECT sum(id) FROM orders").fetchall() == [(12,)]


def test_replacing_rows_by_rows_with_the_same_keys_works(backend: Backend) -> None:
    destination = backend.destination("replace", key=["id"])
    load(destination, rows(id=list(range(5000))))

    assert load(destination, rows(id=list(range(5000)), n=list(range(5000))), run_id="run-2") == Loaded(inserted=5000)
    assert backend.query("SELECT count(*) AS c, sum(n) AS s FROM orders") == [{"c": 5000, "s": 12497500}]


def test_a_schema_may_have_the_name_of_the_file(backend: Backend) -> None:
    load(backend.destination(table="warehouse.orders"), rows(id=[1]))

    assert backend.query('SELECT id FROM "warehouse"."warehouse"."orders"') == [{"id": 1}]


def test_a_table_with_other_makers_types_takes_what_fits(backend: Backend) -> None:
    backend.query("""CREATE TABLE Orders (ID HUGEINT PRIMARY KEY, mood ENUM('good', 'bad'), "at" TIMESTAMP_S)""")
    destination = backend.destination("merge", key=["id"])
    batch = rows(id=[1], mood=["good"], at=pa.array([1_000_000], pa.timestamp("us")))

    assert load(destination, batch) == Loaded(inserted=1)
    assert load(destination, batch, run_id="run-2") == Loaded(inserted=0, deduplicated=1)


def test_a_file_of_something_else_is_named(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"PK something else" * 1000)

    with pytest.raises(DestinationError) as error:
        backend.destination().state()

    assert "is not a DuckDB database" in error.value.message
    assert error.value.hint == "the file is something else: name another one"
