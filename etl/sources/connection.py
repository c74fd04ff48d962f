"""What a database is to its reader: a connection inside one snapshot, and columns that are read exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import pyarrow as pa

REFUSED = "__pivotal_refused"
"""Column that tells which values do not fit: NULL, or a JSON object {place of the column: the value as text}."""

EDGE = "__pivotal_edge"
"""Column that tells whether a row is at the cursor's edge: 1 or 0."""

Finish = Callable[[pa.Array], tuple[pa.Array, Mapping[int, str]]]
"""What Arrow does to a column as it was read: the column, and the values that it cannot hold (place -> text)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or query, and how it is read exactly.

    Args:
        name: Its name.
        kind: The type it arrives in, for people.
        value: SQL that gives its value, NULL where the type cannot hold it.
        misfit: SQL that is true for such a value; empty if SQL need not look.
        text: SQL that gives it as text, exactly.
        finish: What is left to do in Arrow.
        compared: SQL that gives what the cursor is compared by; NULL for values out of order.
        typed: SQL that makes a text (`{}`) comparable with the column.
        nullable: Whether it may be NULL.
        astray: SQL that is true for values which are less than every text though they may be new.
    """

    name: str
    kind: str
    value: str
    misfit: str = ""
    text: str = ""
    finish: Finish | None = None
    compared: str = ""
    typed: str = "{}"
    nullable: bool = True
    astray: str = ""


class Connection(Protocol):
    """A connection to a database, inside one snapshot. Every method raises `SourceError` where the database refuses.

    Args:
        json_object: SQL that makes an object, as text, of names and values (`{}`).
        text: SQL that turns a value (`{}`) into text, exactly.
        bounded: Whether a later statement may see rows that an earlier one did not, so reading needs an upper bound.
    """

    json_object: str
    text: str
    bounded: bool

    def relation(self, table: str) -> str:
        """The table's name in SQL."""
        ...

    def columns(self, relation: str) -> list[Column]:
        """The columns of a table or `(query) AS alias`."""
        ...

    def key(self, table: str) -> list[str]:
        """The columns of the table's primary key."""
        ...

    def quoted(self, name: str) -> str:
        """A name as an identifier."""
        ...

    def parameter(self, number: int) -> str:
        """SQL of the parameter with this number, from 0."""
        ...

    def bind(self, column: Column, value: str) -> object:
        """A text as the value of a parameter that is compared with the column."""
        ...

    def first(self, sql: str, values: Sequence[object]) -> str | None:
        """The first value of the first row, which is text."""
        ...

    def stream(self, sql: str, columns: Sequence[Column], values: Sequence[object]) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT."""
        ...

    def close(self) -> None:
        """Ends the snapshot and the connection; also while it streams."""
        ...


def nearest(name: str, names: Sequence[str], there: str) -> str:
    """A hint: the names that are like the wrong one, else those that there are."""
    last = {other.rpartition(".")[2]: other for other in names}  # a table's schema is easily forgotten
    close = get_close_matches(name, names, 3) or [
        last[other] for other in get_close_matches(name.rpartition(".")[2], list(last), 3)
    ]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"{there}: {', '.join(names[:20]) or 'none'}{', ...' if len(names) > 20 else ''}"
