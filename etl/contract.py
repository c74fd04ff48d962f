"""What becomes of a column that nobody has asked for: the contract with those who read the destination.

A column is new if no rule names it and the destination does not have it. A destination that has no rows yet takes
every column. A column without a type, since all its values are NULL, is nothing that could be new.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import cast

import pyarrow as pa

from errors import RuleError
from etl.nested import flatten
from etl.pipeline import Transform
from etl.stream import Destination, ParentDestination

logger = logging.getLogger(__name__)


class Contract:
    """Lays rows flat and holds them to what `on_new_column` says, for one run.

    Args:
        transform: The rules.
        destination: Where the rows go; it is asked for its columns now, before anything is written.
        child: The child table that they are for, if they are.
    """

    def __init__(self, transform: Transform, destination: Destination, child: str | None = None) -> None:
        self._policy = transform.on_new_column
        self._asked = set() if child else {*transform.named_columns, *transform.derive}
        lists = () if child else transform.children.values()
        self._taken = {name for each in lists for name in (each.from_, each.column, *each.keys)}
        self._has = None if self._policy == "add" else _columns(destination, child)
        self._label = child or destination.label
        self._ignored: set[str] = set()

    def apply(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with structs laid flat, without the new columns that are to be ignored.

        Raises:
            RuleError: There is a new column, and the pipeline says `on_new_column: fail`.
        """
        flat = flatten(rows)
        new = self._new(rows, flat.schema)
        if new and self._policy == "fail":
            raise RuleError(
                f"the source has a new column, {new[0]}, which {self._label} does not have",
                hint="name it in a rule (`map`), or say `on_new_column: add`, or `ignore` to leave such columns out",
            )
        for name in set(new) - self._ignored:
            logger.warning("the new column %s is left out: %s does not have it", name, self._label)
        self._ignored.update(new)
        return flat.drop_columns(new) if new else flat

    def _new(self, rows: pa.RecordBatch, flat: pa.Schema) -> list[str]:
        if self._has is None:
            return []
        asked = flatten(rows.select([name for name in rows.schema.names if name in self._asked])).schema.names
        typed = [field.name for field in flat if not pa.types.is_null(field.type)]
        return [name for name in typed if name not in {*asked, *self._taken} and name not in self._has]


def _columns(destination: Destination, child: str | None) -> Container[str] | None:
    return cast(ParentDestination, destination).child_columns(child) if child else destination.columns()
