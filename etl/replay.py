"""The quarantine as a source: exactly those rows go through the rules again, as they were first read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby

import pyarrow as pa

from etl.quoting import quoted
from etl.session import ROWS, Session
from etl.stream import Batch, Quarantined, State


class QuarantineSource:
    """Rows that wait in a quarantine. Text that never was a row (a ragged line) stays there.

    Args:
        waiting: The quarantine, oldest first.
    """

    label = "quarantine"
    bytes_read = 0

    def __init__(self, waiting: Sequence[Quarantined]) -> None:
        self._rows = [row for row in waiting if row.bad.types]

    @property
    def ids(self) -> list[str]:
        """What is read, and so leaves the quarantine unless it breaks a rule again."""
        return [row.id for row in self._rows]

    def columns(self) -> list[str] | None:
        """Unknown: rows of several shapes may wait."""
        return None

    def open(self, state: State | None) -> QuarantineSource:  # noqa: ARG002  (what waits does not depend on it)
        """Starts reading."""
        return self

    def __iter__(self) -> Iterator[Batch]:
        for types, group in groupby(self._rows, key=lambda row: dict(row.bad.types)):
            rows = list(group)
            yield Batch(_restore(types, rows), lambda index, rows=rows: rows[index].bad.origin)  # type: ignore[misc]

    def state(self) -> State | None:
        """The source's own cursor stays where it is."""
        return None

    def close(self) -> None:
        """Nothing is held open."""


def _restore(types: dict[str, str], rows: Sequence[Quarantined]) -> pa.RecordBatch:
    """The values that the texts stand for (see `BadRow.types`)."""
    texts = pa.record_batch({name: pa.array([row.bad.row[name] for row in rows], pa.string()) for name in types})
    casts = [f"CAST(r{number} AS {kind}) AS {quoted(name)}" for number, (name, kind) in enumerate(types.items())]
    with closing(Session()) as session:
        values = session.prepare(f"SELECT {', '.join(casts)} FROM {ROWS}", texts.schema).table(texts)
    return values.combine_chunks().to_batches()[0]
