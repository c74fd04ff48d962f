"""The outbox: events are published inside the publisher's own transaction, and moved to the log afterwards.

They wait in a table of the publisher's database, so they are there if and only if his transaction was committed.
`relay` puts them on the log and then deletes them: killed between the two, it puts them there again, and the log knows
them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from threading import Event as Signal
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from errors import PivotalError
from events.envelope import Event, reasons
from events.inbox import make
from events.log import EventLog, encode
from events.retry import keep_on

if TYPE_CHECKING:
    import sqlalchemy as sa

TABLE = "_pivotal_outbox"

PORTION = 500
"""Events that are moved at once, at most."""

SIZE = 4 << 20
"""Characters that they have as JSON, at most; a longer event is moved alone."""

CONNECT_SECONDS, PATIENCE = 10, 60
"""Seconds to wait for a MariaDB or MySQL server: for a connection, and for anything else. Locks take up to 50."""

LOOK_EVERY = 0.2
"""Seconds between two looks into an outbox that was empty."""

logger = logging.getLogger(__name__)


def put(connection: sa.Connection, *events: Event) -> None:
    """Publishes events in the connection's transaction: `relay` moves them to the log once it is committed.

    Args:
        connection: The one that makes the change which the events tell of: SQLite, PostgreSQL, MariaDB or MySQL. Its
            table `_pivotal_outbox` is made when it is first needed.
        events: The events, in order.

    Raises:
        EventLogError: One cannot be written as JSON.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be used.
    """
    table = _table()
    rows = [{"event": encode(event)} for event in events]
    make(connection, table)
    if rows:
        connection.execute(table.insert(), rows)


def relay(database: sa.Engine, log: EventLog) -> int:
    """Moves what waits in an outbox to the log, in order. Several may do so at once.

    Args:
        database: The publisher's.
        log: Where the events go.

    Returns:
        How many were moved.

    Raises:
        EventLogError: The log cannot be written; the events wait.
        PivotalError: The publisher's database cannot be used, or a row of the outbox is no event.
    """
    moved = 0
    with _telling(database):
        with database.begin() as connection:
            make(connection, _table())
        while portion := _move(database, log):
            moved += portion
    return moved


def follow(url: str, open_log: Callable[[], EventLog], stop: Signal) -> None:
    """Relays an outbox until it is told to stop. Goes on by itself after any trouble.

    Args:
        url: The publisher's database, as SQLAlchemy writes it.
        open_log: Opens the log; called again after trouble.
        stop: Set by who wants it to end.

    Raises:
        PivotalError: It is no URL of a database; and as `keep_on`.
    """
    database = _engine(url)
    try:
        keep_on(partial(_relayed, database, stop), open_log, stop, trouble="the outbox cannot be relayed")
    finally:
        database.dispose()


def _relayed(database: sa.Engine, stop: Signal, log: EventLog) -> Iterator[int]:
    while not stop.wait(LOOK_EVERY):
        if moved := relay(database, log):
            logger.info("outbox relayed", extra={"events": moved})
        yield moved


def _move(database: sa.Engine, log: EventLog) -> int:
    table = _table()
    with database.connect() as connection:
        next_ones = table.c.id.in_(_next(connection, table))
        rows = connection.execute(table.select().where(next_ones).order_by(table.c.id)).all()
    events = _events(database, rows)
    if events:
        log.publish(events)
        with database.begin() as connection:
            connection.execute(table.delete().where(table.c.id.in_([row.id for row in rows[: len(events)]])))
    return len(events)


def _next(connection: sa.Connection, table: sa.Table) -> list[int]:
    """The rows of a portion; the first is in, whatever its size."""
    import sqlalchemy as sa

    measured = sa.select(table.c.id, sa.func.length(table.c.event)).order_by(table.c.id).limit(PORTION)
    rows = connection.execute(measured).all()
    through = accumulate(size for _, size in rows)
    return [one for (one, size), so_far in zip(rows, through, strict=True) if so_far == size or so_far <= SIZE]


def _events(database: sa.Engine, rows: Sequence[sa.Row[Any]]) -> list[Event]:
    """The events of rows, up to one that is none; that one alone is an error."""
    events: list[Event] = []
    for row in rows:
        try:
            events.append(Event.model_validate_json(row.event))
        except ValidationError as error:
            if events:
                break
            raise PivotalError(
                f"row {row.id} of {_label(database)} is no event: {reasons(error)}",
                hint=f"those behind it wait: mend it, or DELETE FROM {TABLE} WHERE id = {row.id}",
            ) from None
    return events


def _table() -> sa.Table:
    import sqlalchemy as sa
    from sqlalchemy.dialects import mysql

    return sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("event", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
        sqlite_autoincrement=True,  # an id that came again could be deleted for the event that had it before
    )


def _engine(url: str) -> sa.Engine:
    import sqlalchemy as sa

    try:
        address = sa.make_url(url)
        options = {name: value for name, value in _timeouts(address).items() if name not in address.query}
        return sa.create_engine(address, hide_parameters=True, pool_pre_ping=True, connect_args=options)
    except (sa.exc.ArgumentError, ImportError):  # whose message may show the URL
        raise PivotalError(
            "the outbox's URL cannot be read",
            hint="write sqlite:///file.db or postgresql://user:password@host/database",
        ) from None


def _timeouts(address: sa.URL) -> Mapping[str, object]:
    """So that a server which vanished, or hangs, is noticed: by the names that its driver gives them."""
    from events.postgres_server import CONNECTION

    driver = address.get_driver_name()
    if driver.startswith("psycopg"):
        return CONNECTION
    if driver in {"pymysql", "mysqldb"}:
        return {"connect_timeout": CONNECT_SECONDS, "read_timeout": PATIENCE, "write_timeout": PATIENCE}
    return {}


def _label(database: sa.Engine) -> str:
    url = database.url
    return f"the outbox in {url.get_backend_name()}://{url.host or ''}/{url.database}"


@contextmanager
def _telling(database: sa.Engine) -> Iterator[None]:
    """Turns SQLAlchemy's errors into ours; they show statements."""
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        reason: Any = getattr(error, "orig", None) or error
        said = str(reason).partition("\n")[0]
        raise PivotalError(
            f"{_label(database)} cannot be used: {said}",
            hint="is its server running, and may this user read and write the table?",
            retryable=isinstance(error, sa.exc.OperationalError),
        ) from error
