from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from urllib.parse import quote

import psycopg
import pytest

from errors import EventLogError
from events import postgres, postgres_server
from events.log import open_log
from events.postgres import PostgresEventLog, append
from tests.events.samples import event
from tests.services.process import ServerProcess

LONG = 20.0
"""Seconds: for what ends by itself long before that."""


@pytest.fixture
def log(postgres_url: str) -> Iterator[PostgresEventLog]:
    with closing(PostgresEventLog(postgres_url)) as log:
        yield log


@pytest.fixture
def admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def only_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "LOOK_EVERY", LONG)


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.01)


def sessions(admin: psycopg.Connection, column: str, value: str) -> list[int]:
    """The ids of the database's sessions with such a value in a column of pg_stat_activity."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {column} LIKE %s"
    return [pid for (pid,) in admin.execute(query.encode(), [value])]


def cut(admin: psycopg.Connection, column: str, value: str) -> None:
    """Ends such sessions."""
    for pid in sessions(admin, column, value):
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


# --- a place of its own ----------------------------------------------------------------------------------------------


def test_it_leaves_the_databases_own_tables_alone(log: PostgresEventLog, admin: psycopg.Connection) -> None:
    admin.execute("CREATE TABLE events (mine text)")
    log.publish([event()])

    with admin.transaction():
        admin.execute("DROP TABLE events")
    assert log.head() == 1
    found = admin.execute("SELECT DISTINCT schemaname FROM pg_stat_user_tables").fetchall()
    assert found == [("pivotal_events",)]


def test_a_log_that_several_open_at_once_is_made_once(postgres_url: str) -> None:
    together = threading.Barrier(8)

    def opened(_: int) -> int:
        together.wait()
        with closing(open_log(postgres_url)) as log:
            return log.head()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(opened, range(8))) == [0] * 8


def test_a_log_of_a_newer_version_is_refused(postgres_url: str, log: PostgresEventLog) -> None:
    with log.writing() as connection:
        connection.execute("UPDATE version SET version = 99")

    with pytest.raises(EventLogError, match=r"written by a newer version of this project \(schema 99\)") as raised:
        open_log(postgres_url)

    assert raised.value.hint
    assert not raised.value.retryable


def test_a_log_of_the_first_schema_is_brought_up_to_date(postgres_url: str, log: PostgresEventLog) -> None:
    log.publish([event("1")])
    with log.writing() as connection:
        connection.execute("DROP TABLE deliveries, durable_subscriptions")
        connection.execute("UPDATE version SET version = 1")

    with closing(PostgresEventLog(postgres_url)) as again:
        assert again.publish([event("1"), event("2")]) == [False, True]
        assert again.prune(1) == 1


@pytest.fixture
def somebody(admin: psycopg.Connection, postgres_url: str) -> Iterator[str]:
    """A URL of a user who may connect, and nothing else."""
    admin.execute("CREATE ROLE somebody LOGIN PASSWORD 'whatever-it-takes'")
    yield f"postgresql://somebody:whatever-it-takes@{postgres_url.partition('@')[2]}"
    admin.execute("DROP OWNED BY somebody CASCADE")
    admin.execute("DROP ROLE somebody")


def test_a_user_may_use_the_schema_that_an_administrator_made(admin: psycopg.Connection, somebody: str) -> None:
    with pytest.raises(EventLogError, match="permission denied") as raised:
        open_log(somebody)
    assert "CREATE SCHEMA pivotal_events AUTHORIZATION" in str(raised.value)

    admin.execute("CREATE SCHEMA pivotal_events AUTHORIZATION somebody")

    with closing(open_log(somebody)) as log:
        assert log.publish([event()]) == [True]


# --- in order and on the disk ----------------------------------------------------------------------------------------


def test_who_waits_for_its_turn_sees_what_came_before(
    postgres_url: str, log: PostgresEventLog, admin: psycopg.Connection
) -> None:
    """Whatever isolation the database has by default."""
    name = admin.info.dbname
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode())
    with closing(PostgresEventLog(postgres_url)) as another, ThreadPoolExecutor() as threads:
        with log.writing() as transaction:
            assert append(transaction, [event("1"), event("2")]) == [True, True]
            publishing = threads.submit(another.publish, [event("2"), event("3")])
            until(lambda: bool(sessions(admin, "wait_event", "advisory")))
            assert another_head(postgres_url) == 0, "what is not committed is not seen, and readers do not wait"

        assert publishing.result() == [False, True]
        assert [one.event.metadata.dedupe_key for one in log.read(0, 10)] == ["1", "2", "3"]


def _fail_after_publishing(log: PostgresEventLog) -> None:
    with log.writing() as transaction:
        append(transaction, [event("1")])
        raise KeyError


def another_head(url: str) -> int:
    with closing(PostgresEventLog(url)) as log:
        return log.head()


@pytest.mark.usefixtures("only_notifications")
def test_a_publication_that_is_rolled_back_is_not_there_and_wakes_nobody(
    postgres_url: str, log: PostgresEventLog
) -> None:
    with closing(PostgresEventLog(postgres_url)) as another, ThreadPoolExecutor() as threads:
        waiting = threads.submit(another.wait, 0, LONG)
        with pytest.raises(KeyError):
            _fail_after_publishing(log)

        assert log.head() == 0
        assert not waiting.done()
        assert log.publish([event("1")]) == [True]
        assert waiting.result() == log.head()


def test_who_waits_for_longer_than_the_timeout_can_try_again(
    postgres_url: str, log: PostgresEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "LOCK_TIMEOUT", 0.05)
    with closing(PostgresEventLog(postgres_url)) as another:
        with log.writing() as transaction:
            append(transaction, [event()])
            with pytest.raises(EventLogError, match="lock timeout") as raised:
                another.publish([event("1")])

        assert raised.value.retryable
        assert another.publish([event("1")]) == [True]


@pytest.mark.parametrize(("default", "used"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_is_on_the_disk_whatever_the_server_does_by_default(
    postgres_url: str, admin: psycopg.Connection, default: str, used: str
) -> None:
    admin.execute(f"ALTER DATABASE {admin.info.dbname} SET synchronous_commit = {default}".encode())

    with closing(PostgresEventLog(postgres_url)) as log:
        assert log.select("SHOW synchronous_commit") == [(used,)]


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_notifications")
def test_notifications_wake_every_thread_that_waits(
    postgres_url: str, log: PostgresEventLog, admin: psycopg.Connection
) -> None:
    with closing(PostgresEventLog(postgres_url)) as another, ThreadPoolExecutor() as threads:
        for head in range(1, 6):
            waiting = [threads.submit(log.wait, head - 1, LONG) for _ in range(4)]
            another.publish([event()])
            assert [one.result() for one in waiting] == [head] * 4

    assert len(sessions(admin, "query", "LISTEN%")) == 1, "one connection listens for all of them"


@pytest.mark.usefixtures("only_notifications")
def test_waiting_goes_on_after_its_connection_was_lost(log: PostgresEventLog, admin: psycopg.Connection) -> None:
    with ThreadPoolExecutor() as threads:
        waiting: Future[int] = threads.submit(log.wait, 0, LONG)
        until(lambda: bool(sessions(admin, "query", "LISTEN%")))
        cut(admin, "query", "LISTEN%")
        with pytest.raises(EventLogError, match="cannot be waited for") as raised:
            waiting.result()
        waiting = threads.submit(log.wait, 0, LONG)
        log.publish([event()])

        assert raised.value.retryable
        assert waiting.result() == 1


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_told_and_the_next_call_has_another(
    log: PostgresEventLog, admin: psycopg.Connection
) -> None:
    for use in (lambda: log.publish([event("2")]), log.head):
        log.publish([event("1")])
        cut(admin, "application_name", "pivotal")
        with pytest.raises(EventLogError, match=r"the event log postgresql://pivotal@127.0.0.1:\d+/test_") as raised:
            use()
        assert raised.value.retryable
        assert "correct-horse" not in str(raised.value)

    assert log.publish([event("1"), event("2")]) == [False, True]


def test_a_server_that_is_killed_and_started_again_has_all_that_was_acknowledged(
    log: PostgresEventLog, postgres_process: ServerProcess
) -> None:
    acknowledged = [str(n) for n in range(20)]
    for key in acknowledged:
        assert log.publish([event(key)]) == [True]
    postgres_process.kill()
    for _ in range(2):
        with pytest.raises(EventLogError) as raised:
            log.publish([event("new")])
        assert raised.value.retryable
        assert raised.value.hint
    while not postgres_process.running:  # what is left of the killed one goes in its own time
        with suppress(RuntimeError):
            postgres_process.start()

    assert log.publish([event("new")]) == [True]
    assert [one.event.metadata.dedupe_key for one in log.read(0, 100)] == [*acknowledged, "new"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:correct%horse@127.0.0.1/db", "cannot be read"),
        ("postgresql://me:correct-horse@127.0.0.1:correct-horse/db", "cannot be (read|opened)"),
        ("postgresql://me:correct-horse@127.0.0.1:1/db", "cannot be opened: .*refused"),
        ("postgresql://me:correct-horse@nowhere.invalid/db", "cannot be opened"),
        ("postgresql://me:correct/horse@127.0.0.1/db", "cannot be"),
        ("postgresql://me@127.0.0.1/db?correct-horse=1", "cannot be read"),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(url: str, message: str) -> None:
    with pytest.raises(EventLogError, match=message) as raised:
        open_log(url)

    assert raised.value.hint
    assert "horse" not in str(raised.value)


def test_a_wrong_password_is_told_and_not_shown(postgres_url: str) -> None:
    with pytest.raises(EventLogError, match="password authentication failed") as raised:
        open_log(postgres_url.replace("correct-horse", quote("wr@ng")))

    assert not raised.value.retryable
    assert "ng-battery" not in str(raised.value)


def test_a_database_that_is_not_there_is_named(postgres_url: str) -> None:
    with pytest.raises(EventLogError, match='database "nowhere" does not exist'):
        open_log(postgres_url.rpartition("/")[0] + "/nowhere")
