from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from errors import EventLogError, PivotalError
from events import outbox
from events.envelope import Event
from events.log import EventLog, open_log
from events.outbox import TABLE, follow, put, relay
from tests.events.samples import event
from tests.services.process import ServerProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The publisher's database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def shop(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (id INTEGER)"))
    yield engine
    engine.dispose()


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def log(log_url: str) -> Iterator[EventLog]:
    with closing(open_log(log_url)) as log:
        yield log


def order(shop: sa.Engine, *events: Event, fails: bool = False) -> None:
    """A publisher's transaction."""
    with shop.begin() as connection:
        connection.execute(sa.text("INSERT INTO orders VALUES (1)"))
        put(connection, *events)
        if fails:
            raise KeyError


def waiting(shop: sa.Engine, table: str = TABLE) -> int:
    with shop.connect() as connection:
        return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())


def keys(log: EventLog) -> list[str]:
    return [one.event.metadata.dedupe_key for one in log.read(0, 10_000)]


def test_events_reach_the_log_in_order_and_leave_the_outbox(
    shop: sa.Engine, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PORTION", 3)
    made = [event(str(n), text="a\0\U0001f600", large="x" * 70_000) for n in range(8)]
    order(shop, *made[:5])
    order(shop, *made[5:])

    assert log.head() == 0
    assert relay(shop, log) == 8
    assert [one.event for one in log.read(0, 10)] == made
    assert (waiting(shop), relay(shop, log)) == (0, 0)


def test_what_is_moved_at_once_is_bounded_by_its_size_but_never_nothing(
    shop: sa.Engine, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SIZE", 3500)
    portions, publish = list[int](), log.publish

    def counted(events: Sequence[Event]) -> list[bool]:
        portions.append(len(events))
        return publish(events)

    monkeypatch.setattr(log, "publish", counted)
    order(shop, *(event(str(n), filler="x" * size) for n, size in enumerate((1000, 1000, 1000, 5000, 10))))

    assert relay(shop, log) == 5
    assert portions == [2, 1, 1, 1]
    assert keys(log) == ["0", "1", "2", "3", "4"]


def test_a_row_that_is_no_event_holds_back_those_behind_it_only_and_is_told_without_its_values(
    shop: sa.Engine, log: EventLog
) -> None:
    order(shop, event("1"))
    with shop.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO {TABLE} (event) VALUES (:event)"), {"event": '{"type": "of Anna"}'})
    order(shop, event("2"))

    with pytest.raises(PivotalError, match=r"row 2 of the outbox in .* is no event: type: String should") as raised:
        relay(shop, log)
    assert "Anna" not in str(raised.value)
    assert (keys(log), waiting(shop)) == (["1"], 2)

    with shop.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM {TABLE} WHERE id = 2"))
    relay(shop, log)
    assert keys(log) == ["1", "2"]


def test_what_is_rolled_back_is_never_published(shop: sa.Engine, log: EventLog) -> None:
    with pytest.raises(KeyError):
        order(shop, event("1"), fails=True)
    order(shop, event("2"))
    relay(shop, log)

    assert (keys(log), waiting(shop, "orders")) == (["2"], 1)


def test_an_event_that_cannot_be_kept_ends_the_publishers_transaction(shop: sa.Engine) -> None:
    with pytest.raises(EventLogError, match="cannot be written as JSON"):
        order(shop, event("1"), event("2", broken="\ud800"))

    assert waiting(shop, "orders") == 0


def test_what_the_log_does_not_take_waits(shop: sa.Engine, log: EventLog) -> None:
    order(shop, event("1"))
    log.close()

    with pytest.raises(EventLogError):
        relay(shop, log)

    assert waiting(shop) == 1


def test_many_publish_and_relay_at_once(shop: sa.Engine, log: EventLog) -> None:
    def publish(name: int) -> None:
        for n in range(5):
            order(shop, event(f"{name}-{n}"))
            relay(shop, log)

    order(shop)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(publish, range(4)))

    assert sorted(keys(log)) == sorted(f"{name}-{n}" for name in range(4) for n in range(5))
    assert waiting(shop) == 0
    for name in range(4):
        assert [key for key in keys(log) if key.startswith(f"{name}-")] == [f"{name}-{n}" for n in range(5)]


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from events.log import open_log
from events.outbox import relay

log = open_log(sys.argv[2])
publish = log.publish

def publish_and_die(events):
    publish(events)
    os.kill(os.getpid(), signal.SIGKILL)

log.publish = publish_and_die
relay(sa.create_engine(sys.argv[1]), log)
"""


def test_killed_between_the_log_and_the_outbox_each_event_is_published_once(
    url: str, shop: sa.Engine, log_url: str, log: EventLog
) -> None:
    order(shop, event("1"), event("2"))

    killed = subprocess.run([sys.executable, "-c", KILLED, url, log_url], cwd=ROOT, check=False)

    assert (killed.returncode, keys(log), waiting(shop)) == (-9, ["1", "2"], 2)
    order(shop, event("3"))
    relay(shop, log)
    assert (keys(log), waiting(shop)) == (["1", "2", "3"], 0)


def test_a_server_that_is_restarted_is_relayed_from_again(
    postgres_url: str, postgres_process: ServerProcess, log_url: str, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    shop, stop = sa.create_engine(postgres_url, pool_pre_ping=True), threading.Event()
    with ThreadPoolExecutor() as threads:
        relaying = threads.submit(follow, postgres_url, partial(open_log, log_url), stop)
        try:
            with shop.begin() as connection:
                put(connection, event("1"))
            assert log.wait(0, 20) == 1
            postgres_process.stop()
            while "the outbox cannot be relayed" not in caplog.text:
                stop.wait(0.01)
            postgres_process.start()
            with shop.begin() as connection:
                put(connection, event("2"))
            assert log.wait(1, 40) == 2
        finally:
            stop.set()
    shop.dispose()
    relaying.result()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_server_that_never_answers_is_given_up(
    scheme: str, log_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE", 0.2)
    monkeypatch.setattr("events.postgres_server.CONNECTION", {"connect_timeout": 2})  # libpq takes no less
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        url = f"{scheme}://me@127.0.0.1:{server.getsockname()[1]}/shop"
        relaying = thread.submit(follow, url, partial(open_log, log_url), stop)
        try:
            while "the outbox cannot be relayed" not in caplog.text:
                assert not relaying.done()
                stop.wait(0.01)
        finally:
            stop.set()
    relaying.result()


def test_a_database_that_is_not_there_is_told_without_its_password(log: EventLog) -> None:
    nowhere = sa.create_engine("postgresql+psycopg://me:correct-horse@127.0.0.1:1/shop")

    with pytest.raises(
        PivotalError, match=r"the outbox in postgresql://127.0.0.1/shop cannot be used: .*refused"
    ) as raised:
        relay(nowhere, log)

    assert raised.value.retryable
    assert "horse" not in str(raised.value)


@pytest.mark.parametrize("url", ["shop.db", "oracle9://me:correct-horse@host/db", ""])
def test_a_url_of_nothing_known_is_refused(url: str, log_url: str) -> None:
    with pytest.raises(PivotalError, match="the outbox's URL cannot be read") as raised:
        follow(url, partial(open_log, log_url), threading.Event())

    assert "horse" not in str(raised.value)
