"""Tables' names, and the words around them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from typing import Literal

from errors import DestinationError
from etl.quoting import quoted


@dataclass(frozen=True, slots=True)
class Name:
    """A table's full name.

    Args:
        parts: Database, schema, table; as many of them as the database has.
        temporary: Whether it is this connection's own and gone with it.
    """

    parts: Sequence[str]
    temporary: bool = False

    @property
    def sql(self) -> str:
        """The name, quoted."""
        return ".".join(quoted(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class ColumnNames(Container[str]):
    """A table's columns.

    Args:
        keys: Their names, as the database compares them.
        key: A name as the database compares it.
    """

    keys: Collection[str]
    key: Callable[[str], str]

    def __contains__(self, name: object) -> bool:
        return self.key(str(name)) in self.keys


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words in which databases differ.

    Args:
        row_id: The column that every temporary table has and that grows in the order of insertion.
        same: The operator that says that two values are equal or both NULL.
        text: The type that shows of every value what it is.
        counter: How `row_id` is declared; empty if it is there by itself.
        options: What a CREATE TABLE says at its end.
        drop: What drops a temporary table.
        joined_update: Whether an UPDATE names its other table by JOIN, not by FROM.
        comments: How a table and its columns say what they are: in their declaration, by a statement, or not at all.
        hashed_in: Whether NOT IN is fast without an index, and NOT EXISTS is not.
    """

    row_id: str
    same: str = "IS NOT DISTINCT FROM"
    text: str = "text"
    counter: str = ""
    options: str = ""
    drop: str = "DROP TABLE"
    joined_update: bool = False
    comments: Literal["inline", "statement", "none"] = "statement"
    hashed_in: bool = False


def split(table: str) -> tuple[str, str]:
    """Schema ("" if none is named) and name of a table as a pipeline file writes it.

    Raises:
        DestinationError: The name has more parts.
    """
    schema, _, name = table.rpartition(".")
    if not name or "." in schema:
        raise DestinationError(f"{table!r} is not the name of a table", hint="write `orders` or `analytics.orders`")
    return schema, name
