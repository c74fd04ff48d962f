"""What flows through the engine, and the protocols of its two ends.

Data flows one way: source -> rules -> destination.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import pyarrow as pa

from errors import PivotalError

Origin = Mapping[str, str | int]
"""Where a row came from: {file, record}, {table, its key}, {url, page, index}, {topic, partition, offset}."""

State = Mapping[str, object]
"""What a source remembers between runs (JSON-serialisable): its cursor, the files it has loaded, ..."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One rule that one row broke.

    Args:
        column: The column, by its name after `map` ("" for a rule on the whole row).
        rule: The rule as the YAML file names it: `convert: integer`, `required`, `min: 0`, ...
        message: What is wrong with the value, in words: "'12.5x' is not an integer".
    """

    column: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row for the quarantine.

    Args:
        row: Column -> value as text, exactly (as DuckDB casts it to VARCHAR); None is NULL. The row as it was
            read, before any rule.
        types: Column -> DuckDB type that brings the text back to the value: CAST(text AS type). Empty if the
            source could not even read a row (a ragged line): such text cannot be replayed.
        broken: Every rule that the row broke.
        origin: Where it came from.
    """

    row: Mapping[str, str | None]
    types: Mapping[str, str]
    broken: Sequence[Broken]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Records of a stream that have a key and no value: whatever row has that key is to go.

    Args:
        keys: Their keys, as bytes; None where a record has none.
        known: What is known of each beside it (`metadata`): column -> its values.
        before: For each, how many of the batch's rows came before it.
        bad: Index -> the row for the quarantine, with what is wrong with it.
    """

    keys: Sequence[bytes | None]
    known: Mapping[str, pa.Array]
    before: Sequence[int]
    bad: Callable[[int, Sequence[Broken]], BadRow]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows as a source read them.

    Args:
        rows: The rows.
        origin: Row index in this batch -> where that row came from (asked for bad rows only).
        bad: What the source itself could not read as a row (a ragged CSV line: its text in column "line").
            Counted as extracted and quarantined.
        deduplicated: Rows that were read again (lag, ties) but had been loaded before: not in `rows`.
            Counted as extracted and deduplicated.
        filtered: Rows that the source was told to leave out (a stream's tombstones). Counted as extracted and filtered.
        tombstones: What deletes rows, among the rows; None if there is nothing of it.
    """

    rows: pa.RecordBatch
    origin: Callable[[int], Origin]
    bad: Sequence[BadRow] = ()
    deduplicated: int = 0
    filtered: int = 0
    tombstones: Tombstones | None = None


class Extraction(Protocol):
    """One bounded reading of a source: its upper bound is fixed when it is opened."""

    bytes_read: int

    def __iter__(self) -> Iterator[Batch]: ...

    def state(self) -> State | None:
        """What to remember, once every batch has been taken; None if the source keeps no state."""
        ...

    def close(self) -> None:
        """Frees connections and files; also before the end."""
        ...


@runtime_checkable
class Partial(Protocol):
    """An extraction that may end before its end: what it gave is loaded, then the run fails.

    Its state says where the next run goes on.
    """

    stopped: PivotalError | None


@runtime_checkable
class Streaming(Protocol):
    """An extraction from a stream.

    Args:
        missed: How many records, at most, were deleted before anybody read them.
    """

    missed: int

    def lag(self) -> Sequence[PartitionLag]:
        """How far behind the reading is, by partition, as it was when it began."""
        ...

    def lag_now(self) -> Sequence[PartitionLag]:
        """How far behind it is now, with the age of the oldest record that is unread; asked for last, it may take long.

        It never fails: what cannot be told now is as it was when the reading began.
        """
        ...

    def acknowledge(self) -> None:
        """Tells the stream's own tools how far it was read; called once that is committed, and never relied on."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far behind a partition's reader is.

    Args:
        topic: The topic.
        partition: The partition's number.
        committed: The offset that is read next.
        end: The offset that the next record will get.
        oldest: Seconds since the oldest unread record was written; None if there is none, or it does not say when.
    """

    topic: str
    partition: int
    committed: int
    end: int
    oldest: float | None = None

    @property
    def lag(self) -> int:
        """How many records, at most, have not been read: offsets of aborted and compacted ones count, too."""
        return max(0, self.end - self.committed)


class Source(Protocol):
    """Where rows come from."""

    label: str

    def columns(self) -> list[str] | None:
        """The columns' names, where they can be told without reading rows; None if not."""
        ...

    def open(self, state: State | None) -> Extraction:
        """Starts a reading after `state` (None: from the beginning).

        Raises:
            SourceError: The source cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Transformed:
    """What the rules made of a batch: extracted = good + bad + filtered.

    Args:
        good: The rows that follow the rules.
        bad: Those that break some.
        filtered: How many were filtered out.
        places: Where each good row stands in the batch, asked for as a whole; None if there is none.
    """

    good: pa.RecordBatch
    bad: Sequence[BadRow]
    filtered: int
    places: Callable[[], Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class ChildRows:
    """Rows of a child table, from the lists that some rows had.

    Args:
        table: The child table.
        rows: Its rows.
        parents: For each, where the row whose list it is from stands in the rows that `Load.write` was given before.
    """

    table: str
    rows: pa.RecordBatch
    parents: pa.Array


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that a destination did not take, and why.

    Args:
        place: Where it stands in the rows that `Load.write` was given.
        broken: What the destination says, as a broken rule.
    """

    place: int
    broken: Broken


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a destination did with the rows it was given: given = inserted + updated + deduplicated + refused.

    `deduplicated` counts rows that were there already, unchanged, or that a newer version of the same key
    supersedes, in the same run or (with `version`) in the table; or that a tombstone of the same run deletes. `refused`
    ones are in the quarantine. `tombstones` counts the keys that were given to be deleted, whether a row had them or
    not. `deleted` rows were in the table, and not among those given (`delete_missing`) or with the key of a tombstone.
    `children` are not among them: the rows that each child table now has from them.
    """

    inserted: int
    updated: int = 0
    deduplicated: int = 0
    refused: int = 0
    tombstones: int = 0
    deleted: int = 0
    children: Mapping[str, int] = field(default_factory=dict)


class Load(Protocol):
    """One transaction of a destination: data, quarantine and state become visible together, or not at all.

    An API is none: what it was sent is visible at once. State and quarantine still change at `commit`.
    """

    def write(self, rows: pa.RecordBatch) -> Sequence[Refused] | None:
        """Takes rows; they are not visible before `commit`. Returns those that it does not take, if there are any."""
        ...

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """Takes bad rows; a row that is in the quarantine already (same origin, same text) is kept once."""
        ...

    def loaded(self) -> Loaded:
        """Finishes the writing, inside the transaction, and counts what it did. No `write` after it."""
        ...

    def commit(self, state: State | None) -> int:
        """Publishes data, quarantine and state together; returns how many rows of the quarantine expired."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rolls back, unless committed."""
        ...


class ParentLoad(Load, Protocol):
    """A load into a table that has child tables."""

    def write_children(self, children: ChildRows) -> None:
        """Takes rows of a child table, after the rows that they belong to and before any other rows."""
        ...


class DeletingLoad(Load, Protocol):
    """A load into a table that rows are deleted from by their keys."""

    def delete(self, keys: pa.RecordBatch, before: pa.Array) -> None:
        """Takes keys whose rows are to go, after the rows that they came among and before any other rows.

        Args:
            keys: The columns of `key`; none of them is NULL.
            before: For each, how many of the rows that `write` was given last came before it. Those of its key go,
                too; those behind it stay.
        """
        ...


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A bad row as the quarantine keeps it.

    Args:
        id: Hash of pipeline, origin and row: the same row read twice is one.
        pipeline: The pipeline's name.
        run_id: The run that found it.
        at: When.
        bad: The row, its broken rules, its origin.
    """

    id: str
    pipeline: str
    run_id: str
    at: datetime
    bad: BadRow


class Destination(Protocol):
    """Where rows go, with the pipeline's state and quarantine beside them."""

    label: str

    def state(self) -> State | None:
        """What the last committed run remembered; None before the first."""
        ...

    def columns(self) -> Container[str] | None:
        """The columns that its rows have, as it compares names; None before the first run, or where any name goes."""
        ...

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> Load:
        """Starts a load.

        Args:
            run_id: Names the run.
            replayed: Ids of rows that leave the quarantine when the load commits.
            expired: Rows that were last found before this moment leave the quarantine, too; None: they stay.
        """
        ...

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """The pipeline's quarantine, oldest first."""
        ...

    def drop_quarantined(self, ids: Sequence[str]) -> int:
        """Removes rows from the quarantine for good; returns how many."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A destination whose loads fail if the source starts from another state than the one that was committed last."""

    def expect(self, state: State | None) -> None:
        """Says from which state the source starts, where `Destination.state` was not asked just now."""
        ...


class ParentDestination(Destination, Protocol):
    """A destination that has child tables."""

    def child_columns(self, table: str) -> Container[str] | None:
        """As `columns`, of a child table."""
        ...


@dataclass(slots=True)
class RunReport:
    """What a run did: extracted = loaded + filtered + quarantined + deduplicated + tombstones.

    `tombstones` are records of a stream that delete the row of their key, whether it is there or not (`tombstones:
    delete`). Others were not extracted: `deleted` rows were in the table, `expired` ones in the quarantine, `children`
    (by table) in a row's list, `missed` ones were gone from a stream before they were read (at most so many).
    """

    pipeline: str
    run_id: str
    source: str
    destination: str
    partition: str | None = None
    extracted: int = 0
    inserted: int = 0
    updated: int = 0
    filtered: int = 0
    quarantined: int = 0
    deduplicated: int = 0
    tombstones: int = 0
    deleted: int = 0
    expired: int = 0
    missed: int = 0
    children: Mapping[str, int] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    state_before: State | None = None
    state_after: State | None = None
    schema: Mapping[str, str] = field(default_factory=dict)
    preview: Sequence[Mapping[str, object]] = ()
    rejected: Sequence[BadRow] = ()
    lag: Sequence[PartitionLag] = ()

    @property
    def loaded(self) -> int:
        """Rows that are now in the destination because of this run."""
        return self.inserted + self.updated

    @property
    def rows_per_second(self) -> int:
        """How many rows went through in a second."""
        return round(self.extracted / self.seconds) if self.seconds else 0

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for (promise 1)."""
        gone = self.filtered + self.quarantined + self.deduplicated + self.tombstones
        return self.extracted == self.loaded + gone


Progress = Callable[[RunReport], None]
"""Called with the counts so far, after each batch."""
