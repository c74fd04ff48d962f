"""Landed events -> tables: the same for a sensor's run, the long-lived worker and a replay.

A portion of the log is read, projected, and written in one transaction with the position it reaches: killed anywhere,
the next call starts where the last commit ended. Whoever works on a portion holds the position until that commit, so
of several workers and runs one applies it, the others find it done, and the position never goes back. What goes to the
log (dead letters, announcements) goes there before that commit: killed between the two, the next call finds it there
and adds nothing. A replay is another time: what dies again is alerted of again.

A poisoned event becomes a dead letter and the others go on, also later ones of the same aggregate: each row is made of
one event alone and carries its version, so nothing has to wait, and `replay` of the poisoned event after a fix cannot
overwrite what is newer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from operator import add

import pyarrow as pa
from pydantic_core import to_json

from etl.destinations.warehouse import Target, Transaction, Warehouse
from etl.stream import Loaded, State
from events.envelope import Event
from events.failure import alert, last_line, told
from events.log import PROJECTIONS, EventLog, Recorded, dead_letters, mark
from projections import PATTERNS, TABLES, project
from projections.announce import announce
from projections.tables import ProjectionError, Row, columns

SUBSCRIPTION = PROJECTIONS
"""The name of the dead-letter list, and of the state in the warehouse."""

PORTION, LARGEST = 1000, 32 << 20
"""Events, and (give or take a slice) bytes of their data, in a transaction: what is in memory at once."""

SLICE = 50
"""Events that are read at once."""

ATTEMPTS = 1
"""How often an event is tried before it is a dead letter: a pure function fails again."""

_ARROW = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True, slots=True)
class Dead:
    """An event that could not be applied.

    Args:
        sequence: Its place in the log.
        type: Its type.
        error: Why, in words.
    """

    sequence: int
    type: str
    error: str


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one table.

    Args:
        loaded: Its counts: rows = inserted + updated + deduplicated.
        first: Sequence of the first event that gave it a row.
        last: Sequence of the last one.
        preview: The last rows it was given, five at most.
    """

    loaded: Loaded
    first: int
    last: int
    preview: Sequence[Mapping[str, object]]

    def __add__(self, later: Change) -> Change:
        """Both, one after the other."""
        one, two = self.loaded, later.loaded
        counts = Loaded(one.inserted + two.inserted, one.updated + two.updated, one.deduplicated + two.deduplicated)
        return Change(counts, self.first, later.last, later.preview)


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying events did.

    Args:
        position: Every event up to this sequence is in the tables or on the dead-letter list.
        events: How many events were read.
        tables: Table -> what happened to it; tables that were given no row are not there.
        dead: The events that could not be applied.
    """

    position: int
    events: int = 0
    tables: Mapping[str, Change] = field(default_factory=dict)
    dead: Sequence[Dead] = ()

    def __add__(self, later: Applied) -> Applied:
        """Both, one after the other."""
        tables = dict(self.tables)
        for table, change in later.tables.items():
            tables[table] = tables[table] + change if table in tables else change
        return Applied(later.position, self.events + later.events, tables, [*self.dead, *later.dead])


def position(log: EventLog, warehouse: Warehouse) -> int:
    """The sequence up to which the tables hold every event.

    It is 0 before the first, and for a log that started anew or was set back, also if that has more events by now.

    Raises:
        EventLogError: The log cannot be read.
        DestinationError: The warehouse cannot be read.
    """
    return _position(log, warehouse.state(SUBSCRIPTION))


def apply_range(
    log: EventLog, warehouse: Warehouse, after: int | None, until: int, *, run_id: str, portion: int = PORTION
) -> Applied:
    """Brings the tables up to an event. Events that were applied before change nothing.

    Args:
        log: Where the events are.
        warehouse: Where the tables are.
        after: Start behind this sequence; behind the warehouse's own position if that is lower (a warehouse that is
            new, or was set back, becomes whole again) or if it is None.
        until: The last sequence to apply.
        run_id: Who does it.
        portion: Events in a transaction.

    Raises:
        EventLogError: The log cannot be read, or a poisoned event cannot be put aside.
        DestinationError: The warehouse cannot be written; what was committed before stays.
    """
    applied = [*portions(log, warehouse, after, until, run_id=run_id, portion=portion)]
    return reduce(add, applied) if applied else Applied(position(log, warehouse))


def portions(
    log: EventLog, warehouse: Warehouse, after: int | None, until: int, *, run_id: str, portion: int = PORTION
) -> Iterator[Applied]:
    """As `apply_range`, portion by portion: each is committed when it comes."""
    reached = 0 if after is None else after
    while reached < until:
        with warehouse.transaction() as transaction:
            held = _position(log, transaction.state(SUBSCRIPTION))
            start = held if after is None else min(reached, held)
            if start >= until:
                return
            recorded, reached = _read(log, start, until, portion)
            applied = _apply(log, transaction, recorded, max(held, reached), run_id, burial="first")
        yield applied


def _read(log: EventLog, after: int, until: int, portion: int) -> tuple[list[Recorded], int]:
    """The next portion, and the sequence up to which nothing else is to be applied."""
    found: list[Recorded] = []
    size = 0
    while len(found) < portion and size < LARGEST:
        limit = min(SLICE, portion - len(found))
        some = log.read(found[-1].sequence if found else after, limit, until=until, types=PATTERNS)
        found += some
        if len(some) < limit:
            return found, until
        size += sum(len(to_json(one.event.data)) for one in some)
    return found, found[-1].sequence


def replay(log: EventLog, warehouse: Warehouse, sequences: Iterable[int] | None = None, *, run_id: str) -> Applied:
    """Applies dead letters again, portion by portion; those that now work leave the list.

    Args:
        log: Where the events are.
        warehouse: Where the tables are.
        sequences: Which ones; all if not given.
        run_id: Who does it.

    Raises:
        EventLogError: The log cannot be read or written.
        DestinationError: The warehouse cannot be written; dead letters that were not applied before stay.
    """
    wanted = None if sequences is None else set(sequences)
    letters = (letter.recorded for letter in dead_letters(log, SUBSCRIPTION))
    coming = (one for one in letters if wanted is None or one.sequence in wanted)
    replayed = [_replay(log, warehouse, portion, run_id) for portion in iter(lambda: [*islice(coming, SLICE)], [])]
    return reduce(add, replayed) if replayed else Applied(position(log, warehouse))


def _replay(log: EventLog, warehouse: Warehouse, recorded: Sequence[Recorded], run_id: str) -> Applied:
    with warehouse.transaction() as transaction:
        held = _position(log, transaction.state(SUBSCRIPTION))
        applied = _apply(log, transaction, recorded, held, run_id, burial=run_id)
    still = {dead.sequence for dead in applied.dead}
    log.revive(SUBSCRIPTION, [one.sequence for one in recorded if one.sequence not in still])
    return applied


def _position(log: EventLog, state: State | None) -> int:
    held, then = int(str((state or {}).get("position", 0))), (state or {}).get("mark")
    if held > log.head():
        return 0
    now = mark(log, held)
    return 0 if then and now and now != then else held  # a state of old has no mark, an event that was pruned neither


def _apply(
    log: EventLog, transaction: Transaction, recorded: Sequence[Recorded], reached: int, run_id: str, *, burial: str
) -> Applied:
    projected = _project(recorded, burial)
    for event, error in projected.dead:
        log.bury(SUBSCRIPTION, event, error, ATTEMPTS)
    if projected.announced:
        log.publish(projected.announced)
    tables = _merge(transaction, projected.rows)
    transaction.save_state(SUBSCRIPTION, run_id, {"position": reached, "mark": mark(log, reached)})
    transaction.commit()
    dead = [Dead(one.sequence, one.event.type, last_line(error)) for one, error in projected.dead]
    return Applied(reached, len(recorded), tables, dead)


_Rows = Mapping[type[Row], Sequence[tuple[int, Row]]]


@dataclass(frozen=True, slots=True)
class _Projected:
    rows: dict[type[Row], list[tuple[int, Row]]] = field(default_factory=lambda: defaultdict(list))
    dead: list[tuple[Recorded, str]] = field(default_factory=list)
    announced: list[Event] = field(default_factory=list)


def _project(recorded: Sequence[Recorded], burial: str) -> _Projected:
    projected = _Projected()
    for one in recorded:
        try:
            rows = project(one.event)
            announced = announce(one.event, rows)
        except Exception as error:  # noqa: BLE001  (whatever a projection raises, it poisons that event only)
            reason = str(error) if isinstance(error, ProjectionError) else told(error)
            projected.dead.append((one, reason))
            projected.announced.append(alert(SUBSCRIPTION, one, reason, burial=burial))
        else:
            projected.announced.extend(announced)
            for row in rows:
                projected.rows[type(row)].append((one.sequence, row))
    return projected


def _merge(transaction: Transaction, rows: _Rows) -> Mapping[str, Change]:
    changes = {}
    for table in (table for table in TABLES if table in rows):
        writer = transaction.writer(Target(table.table, "merge", table.key, "version"))
        writer.write(_batch(table, [row for _, row in rows[table]]))
        changes[table.table] = _change(writer.finish(), rows[table])
    return changes


def _batch(table: type[Row], rows: Sequence[Row]) -> pa.RecordBatch:
    schema = pa.schema([pa.field(name, _ARROW[kind]) for name, (kind, _) in columns(table).items()])
    return pa.RecordBatch.from_pylist([row.record() for row in rows], schema=schema)


def _change(loaded: Loaded, rows: Sequence[tuple[int, Row]]) -> Change:
    return Change(loaded, rows[0][0], rows[-1][0], [row.record() for _, row in rows[-5:]])
