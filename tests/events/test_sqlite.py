from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from errors import EventLogError
from events.sqlite import SqliteEventLog
from tests.events.samples import event

ROOT = Path(__file__).parents[2]


def test_a_sequence_is_not_given_twice_even_if_the_last_event_was_removed(log: SqliteEventLog, path: Path) -> None:
    log.publish([event(), event()])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE sequence = 2")

    log.publish([event()])

    assert [recorded.sequence for recorded in log.read(0, 10)] == [1, 3]


# --- trouble ---------------------------------------------------------------------------------------------------------


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_a_log_that_another_process_holds_can_be_tried_again(path: Path) -> None:
    with closing(SqliteEventLog(path, busy_timeout=0.05)) as log:
        with write_lock(path), pytest.raises(EventLogError, match=r"cannot be written: database is locked") as raised:
            log.publish([event("1")])

        assert raised.value.retryable
        assert log.publish([event("1")]) == [True]


def test_readers_do_not_wait_for_a_writer(log: SqliteEventLog, path: Path) -> None:
    log.publish([event()])

    with write_lock(path):
        assert log.head() == len(log.read(0, 10)) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from errors import EventLogError
from events.sqlite import SqliteEventLog
from tests.events.samples import event
log = SqliteEventLog(Path(sys.argv[1]))
log.publish([event("before")])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    log.publish([event("during", filler="x" * 300_000)])
except EventLogError as error:
    print(error.retryable, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(log.publish([event("during"), event("before")]))
"""


def test_a_disk_that_takes_no_more_can_be_tried_again_and_nothing_is_half_written(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.startswith("True the event log")
    assert done.stdout.endswith("[True, False]\n")


def test_a_log_that_was_removed_takes_no_more_events(log: SqliteEventLog, path: Path) -> None:
    log.publish([event()])
    path.unlink()

    for use in (lambda: log.publish([event()]), log.head):
        with pytest.raises(EventLogError, match="was removed while it was in use"):
            use()


def test_a_log_that_another_file_took_the_place_of_takes_no_more_events(log: SqliteEventLog, path: Path) -> None:
    path.rename(path.with_name("old.db"))
    SqliteEventLog(path).close()

    with pytest.raises(EventLogError, match="was removed while it was in use"):
        log.publish([event()])


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"sequence,type\n" * 100)


def _newer_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_not_a_database, "cannot be opened: file is not a database"),
        (_newer_schema, r"written by a newer version of this project \(schema 99\)"),
        (Path.mkdir, "cannot be opened: unable to open database file"),
    ],
)
def test_a_file_that_is_no_log_of_ours_is_refused(path: Path, spoil: Callable[[Path], None], message: str) -> None:
    path.parent.mkdir()
    spoil(path)

    with pytest.raises(EventLogError, match=message) as raised:
        SqliteEventLog(path)

    assert raised.value.hint
    assert not raised.value.retryable


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")

    with pytest.raises(EventLogError, match="cannot be opened") as raised:
        SqliteEventLog(tmp_path / "data" / "events.db")

    assert "let this user write" in str(raised.value)


def test_every_commit_is_forced_to_the_disk(log: SqliteEventLog, path: Path) -> None:
    """What SQLite promises for WAL and FULL; losing power cannot be tested here."""
    connection = log._connection

    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert path.with_name("events.db-wal").exists()


def test_a_log_of_the_first_schema_is_brought_up_to_date_and_keeps_its_events(log: SqliteEventLog, path: Path) -> None:
    made = event("1")
    log.publish([made])
    log.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE deliveries; DROP TABLE durable_subscriptions; PRAGMA user_version = 1")

    with closing(SqliteEventLog(path)) as again:
        assert again.prune(1) == 0
        assert [recorded.event for recorded in again.read(0, 10)] == [made]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
