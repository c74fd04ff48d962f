from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import EventLogError
from events.envelope import Event
from events.sqlite import SqliteEventLog
from tests.events.samples import event
from tests.events.strategies import EVENTS

ROOT = Path(__file__).parents[2]


# --- publish and read ------------------------------------------------------------------------------------------------


def test_what_was_published_is_read_in_order(log: SqliteEventLog) -> None:
    made = [event(n=n) for n in range(5)]
    log.publish(made[:2])
    log.publish(made[2:])

    read = log.read(0, 100)

    assert [recorded.event for recorded in read] == made
    assert [recorded.sequence for recorded in read] == [1, 2, 3, 4, 5]
    assert log.head() == 5


def test_it_is_still_there_after_the_log_was_closed(log: SqliteEventLog, path: Path) -> None:
    made = event()
    log.publish([made])
    log.close()

    with closing(SqliteEventLog(path)) as again:
        assert [recorded.event for recorded in again.read(0, 10)] == [made]


def test_an_empty_log_has_nothing(log: SqliteEventLog) -> None:
    assert (log.head(), log.read(0, 10), log.counts(), log.dead(), log.publish([])) == (0, [], {}, [], [])


def test_reading_goes_on_after_a_sequence_and_ends_at_another(log: SqliteEventLog) -> None:
    log.publish([event() for _ in range(10)])

    assert [recorded.sequence for recorded in log.read(3, 4)] == [4, 5, 6, 7]
    assert [recorded.sequence for recorded in log.read(3, 100, until=5)] == [4, 5]


@pytest.mark.parametrize(
    ("types", "found"),
    [
        (["*"], ["a.b", "a.b.c", "ab.c", "b.c"]),
        (["a.b"], ["a.b"]),
        (["a.*"], ["a.b", "a.b.c"]),
        (["*.c"], ["a.b.c", "ab.c", "b.c"]),
        (["a.b", "b.*"], ["a.b", "b.c"]),
        ([], []),
    ],
)
def test_patterns_pick_types(log: SqliteEventLog, types: Sequence[str], found: Sequence[str]) -> None:
    log.publish([event(kind=name) for name in ("a.b", "a.b.c", "ab.c", "b.c")])

    assert [recorded.event.type for recorded in log.read(0, 10, types=types)] == found


def test_a_producers_event_is_taken_once(log: SqliteEventLog) -> None:
    assert log.publish([event("1"), event("1"), event("2")]) == [True, False, True]
    assert log.publish([event("2"), event("3"), event("1", source="another")]) == [False, True, True]
    assert [(one.event.metadata.source, one.event.metadata.dedupe_key) for one in log.read(0, 10)] == [
        ("test", "1"), ("test", "2"), ("test", "3"), ("another", "1"),
    ]  # fmt: skip


def test_all_events_of_a_call_are_taken_or_none(log: SqliteEventLog) -> None:
    with pytest.raises(EventLogError, match="cannot be written as JSON") as raised:
        log.publish([event("1"), event("2", broken="\ud800")])

    assert (log.head(), raised.value.retryable) == (0, False)


def test_an_event_is_found_by_its_id_and_by_its_producers_id(log: SqliteEventLog) -> None:
    one, same_key = event("evt_1"), event("evt_1", source="another")
    log.publish([one, event("evt_2"), same_key])

    assert [recorded.event for recorded in log.find(one.id)] == [one]
    assert [recorded.event for recorded in log.find("evt_1")] == [one, same_key]
    assert log.find("evt_") == []


def test_events_are_counted_by_type(log: SqliteEventLog) -> None:
    log.publish([event(kind="a"), event(kind="b"), event(kind="a")])

    assert log.counts() == {"a": 2, "b": 1}


CALLS = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123456")), max_size=5), max_size=10)


@settings(max_examples=50, deadline=None)
@given(CALLS)
def test_any_publications_and_repetitions_are_kept_once_and_in_order(
    calls: Sequence[Sequence[tuple[str, str]]],
) -> None:
    """Against a model: a dict, which keeps its keys once and in order."""
    kept: dict[tuple[str, str], None] = {}
    with TemporaryDirectory() as folder, closing(SqliteEventLog(Path(folder) / "events.db")) as log:
        for call in calls:
            new = [key not in kept and key not in call[:at] for at, key in enumerate(call)]
            assert log.publish([event(key, source=source) for source, key in call]) == new
            kept |= dict.fromkeys(call)
        read = log.read(0, 1000)

    assert [(one.event.metadata.source, one.event.metadata.dedupe_key) for one in read] == list(kept)
    assert [one.sequence for one in read] == sorted({one.sequence for one in read})


@settings(max_examples=50, deadline=None)
@given(EVENTS)
def test_any_event_is_read_as_it_was_published(made: Event) -> None:
    with TemporaryDirectory() as folder, closing(SqliteEventLog(Path(folder) / "events.db")) as log:
        log.publish([made])

        assert (
            [recorded.event for recorded in log.read(0, 1)]
            == [recorded.event for recorded in log.find(made.id)]
            == [made]
        )


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_listed_once_with_its_latest_error(log: SqliteEventLog) -> None:
    log.publish([event("1"), event("2")])
    one, two = log.read(0, 10)
    log.bury("mail", two, "no such mailbox", 1)
    log.bury("mail", one, "timeout", 1)
    log.bury("mail", one, "timeout again", 2)
    log.bury("tables", one, "no such column", 1)

    assert [(one.subscription, one.recorded, one.error, one.attempts) for one in log.dead()] == [
        ("mail", one, "timeout again", 2), ("tables", one, "no such column", 1), ("mail", two, "no such mailbox", 1),
    ]  # fmt: skip
    assert [letter.recorded.sequence for letter in log.dead("mail")] == [1, 2]


def test_a_revived_event_leaves_the_list_of_its_subscription_only(log: SqliteEventLog) -> None:
    log.publish([event()])
    [one] = log.read(0, 1)
    log.bury("mail", one, "timeout", 1)
    log.bury("tables", one, "no such column", 1)

    log.revive("mail", [one.sequence, 99])

    assert [letter.subscription for letter in log.dead()] == ["tables"]


# --- many at once ----------------------------------------------------------------------------------------------------

PUBLISHER = """
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from events.sqlite import SqliteEventLog
from tests.events.samples import event
log = SqliteEventLog(Path(sys.argv[1]))
for n in range(40):
    log.publish([event(f"own-{sys.argv[2]}-{n}"), event(f"shared-{n}")])
"""


def test_processes_that_open_and_publish_at_once_lose_nothing_and_repeat_nothing(path: Path) -> None:
    publishers = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, path, str(number)], cwd=ROOT) for number in range(5)
    ]

    assert [publisher.wait() for publisher in publishers] == [0] * 5
    with closing(SqliteEventLog(path)) as log:
        keys = [recorded.event.metadata.dedupe_key for recorded in log.read(0, 1000)]
    assert len(keys) == len(set(keys)) == 5 * 40 + 40


def test_who_reads_on_from_the_last_event_misses_none_while_others_publish(log: SqliteEventLog, path: Path) -> None:
    publishers = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, path, str(number)], cwd=ROOT) for number in range(3)
    ]
    seen: list[int] = []
    while any(publisher.poll() is None for publisher in publishers) or seen[-1] < log.head():
        seen += [recorded.sequence for recorded in log.read(seen[-1] if seen else 0, 7)]

    assert seen == [recorded.sequence for recorded in log.read(0, 1000)]
    assert len(seen) == 3 * 40 + 40


def test_threads_may_share_a_log(log: SqliteEventLog) -> None:
    def publish(name: int) -> None:
        for n in range(20):
            assert log.publish([event(f"{name}-{n}")]) == [True]
            log.read(0, 5)

    threads = [threading.Thread(target=publish, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert log.head() == 160


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
