"""Tables' names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etl.session import quoted


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
