"""The PostgreSQL database that an event log is kept in: connections, the tables, what went wrong.

Each connection is a process's own: its settings, and LISTEN, do not pass through a pooler in transaction mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from errors import EventLogError

SCHEMA = "pivotal_events"
"""The database's schema, and the channel that publications are told on."""

LOCK_TIMEOUT = 5.0
"""Seconds to wait for another's publication before giving up."""

ONE_AT_A_TIME = int.from_bytes(b"pivotal")
"""The advisory lock of whoever appends, or makes the tables."""

CONNECTION: Mapping[str, object] = {
    "application_name": "pivotal",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""What the URL may say otherwise. A server that vanished is noticed within half a minute."""

# PostgreSQL's text holds no NUL, jsonb neither NUL nor numbers as they were written: an event is kept as the text that
# it was, its keys with NUL escaped. An index takes no more than 2,700 bytes: what is unique is a digest.
_EVENTS = """
    CREATE TABLE events (
        sequence bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
        id text NOT NULL,
        type text COLLATE "C" NOT NULL,
        dedupe_key text NOT NULL,
        once bytea NOT NULL UNIQUE,
        recorded_at timestamptz NOT NULL,
        event text NOT NULL
    );
    CREATE INDEX events_by_id ON events USING hash (id);
    CREATE INDEX events_by_key ON events USING hash (dedupe_key);
    CREATE INDEX events_by_type ON events (type);
    CREATE TABLE dead_letters (
        subscription text COLLATE "C" NOT NULL,
        sequence bigint NOT NULL REFERENCES events,
        error text NOT NULL,
        attempts bigint NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (sequence, subscription)
    )
"""
_SUBSCRIPTIONS = """
    CREATE TABLE durable_subscriptions (
        name text COLLATE "C" PRIMARY KEY,
        cursor bigint NOT NULL,
        lease bigint NOT NULL DEFAULT 0,
        holder text,
        expires double precision NOT NULL DEFAULT 0
    );
    CREATE TABLE deliveries (
        subscription text COLLATE "C" NOT NULL REFERENCES durable_subscriptions,
        sequence bigint NOT NULL REFERENCES events,
        aggregate text COLLATE "C" NOT NULL,
        attempts bigint NOT NULL,
        due double precision,
        PRIMARY KEY (sequence, subscription)
    );
    CREATE INDEX deliveries_in_order ON deliveries (subscription, aggregate, sequence);
    CREATE INDEX deliveries_due ON deliveries (subscription, due) WHERE due IS NOT NULL
"""
_SCHEMAS = (_EVENTS, _SUBSCRIPTIONS)
"""What each version adds to the one before; the table `version` says how many are there."""

_SESSION = """
    SELECT set_config('search_path', %s, false),
        set_config('lock_timeout', %s, false),
        set_config('idle_in_transaction_session_timeout', '30s', false),
        set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)
"""

_DOWN = "is the server being stopped or started? try again when it is running"
_HINTS = {
    "08": _DOWN,
    "22P05": "the database's encoding must be UTF8",
    "25006": "the database is read-only (a standby?): connect to the primary",
    "42501": f"the user needs the right: GRANT CREATE ON DATABASE ..., or CREATE SCHEMA {SCHEMA} AUTHORIZATION ...",
    "53100": "free space on the server's disk",
    "55P03": "another process holds it; try again",
    "57": _DOWN,
}
_PASSING = ("08", "40", "53", "55P03", "57")

_CONNECT_HINTS = {
    "authentication failed": "the user or the password is wrong",
    "no password supplied": "the URL has no password; write postgresql://user:password@host/database",
    "refused": "is the server running, and are host and port right?",
    "resolve host": "is the host's name right?",
    "timeout": "is the host reachable from here (network, firewall)?",
    "does not exist": "create it, or name another one in PIVOTAL_EVENTS_URL",
    "too many": "the server has no connection left: try later",
    "database system is": _DOWN,
    "closed": _DOWN,
}


class Server:
    """A database that an event log is kept in.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters.

    Raises:
        EventLogError: It is no such URL.
    """

    def __init__(self, url: str) -> None:
        self._address = _address(url)
        self.label = _label(self._address)
        """The URL, without its password."""

    def connect(self) -> psycopg.Connection:
        """A connection of its own, to tables that are there; each statement is a transaction.

        Raises:
            psycopg.Error: There is none to be had.
            EventLogError: A newer version of this project wrote the log.
        """
        connection = self.connect_only()
        try:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # see what the lock was waited for
            connection.execute(_SESSION, (SCHEMA, f"{LOCK_TIMEOUT:g}s"))
            self._bring_up_to_date(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_only(self) -> psycopg.Connection:
        """A connection that does not look after the tables.

        Raises:
            psycopg.Error: There is none to be had.
        """
        return psycopg.connect(**self._address, autocommit=True)

    def _bring_up_to_date(self, connection: psycopg.Connection) -> None:
        if (version := _schema_version(connection)) > len(_SCHEMAS):
            raise EventLogError(
                f"the event log {self.label} was written by a newer version of this project (schema {version})",
                hint="install that version, or name another database in PIVOTAL_EVENTS_URL",
            )
        if version == len(_SCHEMAS):
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
            version = _schema_version(connection)  # asked again: another process may have been faster
            if version == 0:
                _make_schema(connection)
            for schema in _SCHEMAS[version:]:
                connection.execute(schema)
            connection.execute("UPDATE version SET version = %s", (len(_SCHEMAS),))

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Turns the driver's errors into ours.

        Args:
            what: What the log could not be: "read".
        """
        try:
            yield
        except psycopg.Error as error:
            hint, passing = _judged(error)
            reason = error.diag.message_primary or " ".join(str(error).partition("This probably means")[0].split())
            raise EventLogError(
                f"the event log {self.label} cannot be {what}: {reason}", hint=hint, retryable=passing
            ) from error


def _schema_version(connection: psycopg.Connection) -> int:
    # Not to_regclass: it would go on answering from its cache what it saw before the lock was waited for.
    if not connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'version'", (SCHEMA,)
    ).fetchone():
        return 0
    version = connection.execute("SELECT version FROM version").fetchone()
    return int(version[0]) if version else 0


def _make_schema(connection: psycopg.Connection) -> None:
    """An administrator may have made it: then this user need not be allowed to."""
    if connection.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone() == (None,):
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    connection.execute("CREATE TABLE version (version bigint NOT NULL)")
    connection.execute("INSERT INTO version VALUES (0)")


def _address(url: str) -> dict[str, Any]:
    """What libpq takes."""
    try:
        address = {**CONNECTION, **conninfo_to_dict(url)}
    except psycopg.Error:  # whose message shows a part of the URL, which may be of the password
        raise _unreadable() from None
    if not re.fullmatch(r"[\d,]*", str(address.get("port", ""))) or "@" in str(address.get("dbname", "")):
        raise _unreadable()  # a password with an `@` or `/` that is not written as it should be
    return address


def _unreadable() -> EventLogError:
    return EventLogError(
        "PIVOTAL_EVENTS_URL cannot be read",
        hint="write postgresql://user:password@host:5432/database; in a user name or a password, @ is %40, / is %2F,"
        " : is %3A, % is %25",
    )


def _label(address: Mapping[str, Any]) -> str:
    """The URL, without its password."""
    user = f"{address['user']}@" if "user" in address else ""
    port = f":{address['port']}" if "port" in address else ""
    return f"postgresql://{user}{address.get('host', '')}{port}/{address.get('dbname', '')}"


def _judged(error: psycopg.Error) -> tuple[str | None, bool]:
    """A hint, and whether it can pass by itself."""
    if state := error.sqlstate:
        return next((hint for code, hint in _HINTS.items() if state.startswith(code)), None), state.startswith(_PASSING)
    text = str(error)
    hint = next((hint for part, hint in _CONNECT_HINTS.items() if part in text), None)
    refused = "FATAL" in text and "too many" not in text and "database system is" not in text
    return hint, isinstance(error, psycopg.OperationalError) and not refused
