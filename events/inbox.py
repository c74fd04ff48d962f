"""The inbox: a handler's effect and the note that it is done commit together, in the handler's own database.

A durable subscription hands an event over at least once: killed between the handler's effect and the log's commit, it
hands it over again. A handler that asks `once`, inside the transaction that has its effect, has it once.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from errors import PivotalError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from events.envelope import Event

TABLE = "_pivotal_inbox"

_KNOWN: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Engines, and the tables of ours that their databases have."""


def once(connection: sa.Connection, subscription: str, event: Event) -> bool:
    """Notes in the connection's transaction that a subscription handles an event.

    Whoever handles the same event elsewhere at the same time waits until this transaction has ended.

    Args:
        connection: The one that the handler's effect goes through: SQLite, PostgreSQL, MariaDB or MySQL (InnoDB). Its
            table `_pivotal_inbox` is made when it is first needed.
        subscription: The subscription's name.
        event: The event.

    Returns:
        True the first time: go on, then commit. False if it was handled already: do nothing.

    Raises:
        PivotalError: The database is another one.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be used.
    """
    table = _table()
    make(connection, table)
    metadata = event.metadata
    key = f"{len(metadata.source)}:{metadata.source}{metadata.dedupe_key}"  # an id may be unique for its source only
    values = {
        "subscription": subscription,
        "event": hashlib.sha256(key.encode()).hexdigest(),
        "handled_at": datetime.now(UTC),
    }
    insert = _insert(connection, table).values(values).execution_options(preserve_rowcount=True)
    return bool(connection.execute(insert).rowcount == 1)


def _table() -> sa.Table:
    import sqlalchemy as sa

    return sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("subscription", sa.String(100), primary_key=True),
        sa.Column("event", sa.String(64), primary_key=True),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False),
    )


def make(connection: sa.Connection, table: sa.Table) -> None:
    """Makes the table if it is not there.

    In SQLite by the handler's own connection, for nobody else can write meanwhile. Elsewhere beside it: MariaDB would
    commit the handler's transaction, and in PostgreSQL two handlers would be in each other's way. Not by one of the
    handler's pool, which may have no other.
    """
    import sqlalchemy as sa
    from sqlalchemy.schema import CreateTable

    create = CreateTable(table, if_not_exists=True)
    if connection.dialect.name == "sqlite":
        connection.execute(create)
    elif table.name not in _KNOWN.setdefault(connection.engine, set()):
        if not sa.inspect(connection).has_table(table.name):
            _make_beside(connection.engine, create)
        _KNOWN[connection.engine].add(table.name)


def _make_beside(engine: sa.Engine, create: sa.Executable) -> None:
    import sqlalchemy as sa

    beside = sa.create_engine(engine.url, pool=engine.pool.recreate())
    try:
        # PostgreSQL refuses the second of two who make it at once: then it is there.
        with suppress(sa.exc.IntegrityError), beside.begin() as connection:
            connection.execute(create)
    finally:
        beside.dispose()


def _insert(connection: sa.Connection, table: sa.Table) -> Any:  # noqa: ANN401  (each dialect has its own kind)
    from sqlalchemy.dialects import mysql, postgresql, sqlite

    name = connection.dialect.name
    if name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    if name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if name in {"mariadb", "mysql"}:
        return mysql.insert(table).prefix_with("IGNORE")
    raise PivotalError(
        f"an inbox cannot be kept in {name}", hint="keep it in SQLite, PostgreSQL or MariaDB, where the effect is"
    )
