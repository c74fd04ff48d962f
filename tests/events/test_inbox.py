from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from events.envelope import Event
from events.inbox import TABLE, once
from tests.events.samples import event


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine of a database that has a table `sent`."""
    url = f"sqlite:///{tmp_path}/mine.db"
    if request.param != "sqlite":
        url = str(request.getfixturevalue(f"{request.param}_url"))
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE sent (mail INTEGER)"))
    yield engine
    engine.dispose()


def send(engine: sa.Engine, told: Event, *, name: str = "mail", fails: bool = False) -> bool:
    """A handler's transaction."""
    with engine.begin() as connection:
        first = once(connection, name, told)
        if first:
            connection.execute(sa.text("INSERT INTO sent VALUES (1)"))
        if fails:
            raise ValueError("the mail server is away")
        return first


def sent(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM sent")).scalar_one())


def test_an_event_has_its_effect_once_for_each_subscription(engine: sa.Engine) -> None:
    one, another = event("1"), event("1", source="another")

    assert [send(engine, one), send(engine, one), send(engine, one, name="sms"), send(engine, another)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert sent(engine) == 3


def test_what_was_rolled_back_was_not_done(engine: sa.Engine) -> None:
    one = event("1")
    for _ in range(2):
        with pytest.raises(ValueError, match="the mail server"):
            send(engine, one, fails=True)

    assert sent(engine) == 0
    assert send(engine, one)
    assert sent(engine) == 1


def test_of_many_who_handle_one_event_at_once_one_has_the_effect(engine: sa.Engine) -> None:
    one = event("1")
    with ThreadPoolExecutor(8) as threads:
        first = list(threads.map(lambda _: send(engine, one), range(8)))

    assert sorted(first) == [False] * 7 + [True]
    assert sent(engine) == 1


def test_a_pool_of_one_connection_is_enough(engine: sa.Engine) -> None:
    alone = sa.create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.1)

    assert [send(alone, event("1")), send(alone, event("2"))] == [True, True]
    alone.dispose()


def test_it_says_when_an_event_was_handled(engine: sa.Engine) -> None:
    send(engine, event("1"))

    with engine.connect() as connection:
        [(name, key, at)] = connection.execute(sa.text(f"SELECT subscription, event, handled_at FROM {TABLE}"))
    assert (name, len(key), bool(at)) == ("mail", 64, True)
