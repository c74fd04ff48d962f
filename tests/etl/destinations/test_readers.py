"""Tables are replaced while others read them without a pause: they see the old or the new rows, never neither."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import duckdb
import pyarrow as pa
import pytest

from tests.etl.destinations.backends import Backend, Row, load, make_backend, rows

LOADS = range(1, 4)
_SEEN = "SELECT count(*) AS n, min(run) AS low, max(run) AS high FROM orders"
_READER = """
import sys
from pathlib import Path
from errors import SourceError
from etl.embedded import open_duckdb
last = False
while not last:
    last = Path(sys.argv[2]).exists()
    with open_duckdb(Path(sys.argv[1]), "warehouse", SourceError, read_only=True) as reader:
        print(*reader.execute(sys.argv[3]).fetchone(), flush=True)
"""


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_readers_on_other_connections_see_one_load_whole(kind: str, request: pytest.FixtureRequest) -> None:
    database = make_backend(kind, request)
    _replace(database, 0)

    with _reading(database) as seen:
        for run in LOADS:
            _replace(database, run)
            found = seen()
            assert found[-1] == _whole(run)
            assert all(row in (_whole(run - 1), _whole(run)) for row in found)


def test_a_column_that_a_load_adds_does_not_part_old_rows_from_new(request: pytest.FixtureRequest) -> None:
    """MariaDB commits when a table is widened: rows that were deleted before would be missing."""
    database = make_backend("mariadb", request)
    _replace(database, 0)

    with _reading(database) as seen:
        with database.destination("replace").begin("run-1") as running:
            running.write(_rows(1))
            running.write(rows(id=[2001], run=[1], note=["new"]))
            running.loaded()
            assert {tuple(row.values()) for row in seen()} == {tuple(_whole(0).values())}
            running.commit(None)
        assert seen()[-1] == {"n": 2002, "low": 1, "high": 1}


def test_readers_of_duckdb_in_the_same_process_see_one_load_whole(request: pytest.FixtureRequest) -> None:
    database = make_backend("duckdb", request)
    _replace(database, 0)

    with duckdb.connect(_file(database)) as connection:
        for run in LOADS:
            with database.destination("replace").begin(f"run-{run}") as running:
                running.write(_rows(run))
                running.loaded()
                assert connection.execute(_SEEN).fetchall() == [tuple(_whole(run - 1).values())]
                running.commit(None)
            assert connection.execute(_SEEN).fetchall() == [tuple(_whole(run).values())]


def test_readers_of_duckdb_in_another_process_wait_their_turn_and_see_one_load_whole(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database, enough = make_backend("duckdb", request), tmp_path / "enough"
    _replace(database, 0)
    command = [sys.executable, "-c", _READER, _file(database), str(enough), _SEEN]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        found = [reader.stdout.readline()]
        for run in LOADS:
            _replace(database, run)
            found.append(reader.stdout.readline())
        enough.touch()
        found += reader.stdout.readlines()

    assert reader.returncode == 0
    assert set(found) <= {" ".join(map(str, _whole(run).values())) + "\n" for run in (0, *LOADS)}
    assert found[-1].split()[1] == str(LOADS[-1])


def _rows(run: int) -> pa.RecordBatch:
    count = 2000 + run
    return rows(id=list(range(count)), run=[run] * count)


def _whole(run: int) -> Row:
    """What a reader sees of a load."""
    return {"n": 2000 + run, "low": run, "high": run}


def _replace(database: Backend, run: int) -> None:
    batch = _rows(run)
    load(database.destination("replace"), batch.slice(0, 1000), batch.slice(1000), run_id=f"run-{run}")


def _file(database: Backend) -> str:
    return database.url.removeprefix("duckdb:///")


@contextmanager
def _reading(database: Backend) -> Iterator[Callable[[], list[Row]]]:
    """A thread reads all the time; what it has seen since it was last asked, up to a reading that began since then."""
    found: SimpleQueue[list[Row] | Exception] = SimpleQueue()
    enough = threading.Event()

    def read() -> None:
        while not enough.is_set():
            try:
                found.put(database.query(_SEEN))
            except Exception as error:  # noqa: BLE001  (whatever a reader meets)
                found.put(error)

    def seen() -> list[Row]:
        answers = [found.get() for _ in range(found.qsize() + 2)]
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        return [row for answer in answers if isinstance(answer, list) for row in answer]

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        enough.set()
        thread.join()
