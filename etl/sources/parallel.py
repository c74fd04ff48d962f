"""Several connections that read the parts of one table at the same time, inside one snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TypeVar

from errors import SourceError
from etl.overlap import read_ahead
from etl.sources.connection import Connection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of what is read, and the connection that reads it.

    Args:
        connection: The connection; all parts' connections see the same snapshot.
        condition: SQL that is true for the part's rows; empty if it is everything.
        name: The part's name: 1/4. Empty if it is everything.
    """

    connection: Connection
    condition: str = ""
    name: str = ""


def split(connection: Connection, relation: str, count: int) -> list[Part]:
    """The table in parts, of which each has about as many pages.

    Args:
        connection: Reads the first part; the others get connections of their own.
        relation: The table, in SQL.
        count: How many parts; a small table has fewer.

    Raises:
        SourceError: The database cannot do that, or not with this table.
    """
    from etl.sources.postgresql import PostgreSQL

    if not isinstance(connection, PostgreSQL):
        raise SourceError(
            "`parallel`: connections to this database cannot share a snapshot, so rows could be missed or read twice",
            hint="leave `parallel` out: it is for PostgreSQL",
        )
    conditions = connection.pages(relation, count)
    connections = [connection, *connection.siblings(len(conditions) - 1)]
    return [
        Part(each, condition, f"{number}/{len(conditions)}")
        for number, (each, condition) in enumerate(zip(connections, conditions, strict=True), 1)
    ]


def in_turn(streams: Sequence[Iterable[T]]) -> Generator[T]:
    """The items of all streams, one of each at a time; each stream is read ahead by one item, in its own thread."""
    if len(streams) == 1:
        yield from streams[0]
        return
    with ExitStack() as stack:
        waiting = deque(stack.enter_context(closing(read_ahead(stream))) for stream in streams)
        while waiting:
            stream = waiting.popleft()
            for item in stream:
                yield item
                waiting.append(stream)
                break
