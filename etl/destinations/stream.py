"""A topic that rows are sent to, as JSON: all rows of a run, and its state, in one transaction of Kafka's.

The state is the last record of a topic beside it, `_pivotal_state.NAME`. The quarantine is in the project's warehouse,
and commits before, since a row that is found again is kept once (docs/decisions/0022-rows-into-topics.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

import orjson
import pyarrow as pa

from errors import DestinationError, IntegrationError
from etl.destinations import quarantine
from etl.destinations.beside import UNSEEN, Beside, BesideLoad, Run, another_has_committed
from etl.destinations.records import Recorder
from etl.destinations.spool import Spool
from etl.destinations.warehouse import Warehouse, open_warehouse
from etl.pipeline import StreamDestination
from etl.sources.stream import connection_of
from etl.stream import BadRow, Loaded, Quarantined, Refused, State
from etl.variables import resolve
from events.envelope import new_id
from integrations.kafka.admin import Admin
from integrations.kafka.connection import Connection
from integrations.kafka.last import last_value
from integrations.kafka.transactions import Record, Transaction
from settings import get_settings

_SHORTEST, _LONGEST = 60.0, 900.0
"""Seconds that a transaction may take: readers wait for one that was left open. Brokers allow 15 minutes by default."""

_SLOWEST = 1000
"""Rows a second that are sent at least."""


@dataclass(frozen=True, slots=True)
class _Note:
    """What the state's topic has in its last record.

    Args:
        load: Names the load that wrote it; no two have the same.
        run_id: The run that it belongs to.
        state: What the source remembers.
        replayed: Whether rows of the quarantine were sent, which leave it.
    """

    load: str = ""
    run_id: str = ""
    state: State | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pipeline's rows and its state are.

    Args:
        pipeline: The pipeline's name.
        connection: How the brokers are reached.
        topic: The topic of its rows.
        warehouse: Where its quarantine is.
    """

    pipeline: str
    connection: Connection
    topic: str
    warehouse: Warehouse

    @property
    def state_topic(self) -> str:
        """A topic of its own: a transaction that was left open keeps no other pipeline from reading its state."""
        return f"_pivotal_state.{self.pipeline}"

    def note(self) -> _Note:
        """What was committed last."""
        value = last_value(self.connection, self.state_topic)
        return _Note(**orjson.loads(value)) if value else _Note()

    def settle(self, note: _Note) -> None:
        """Takes rows out of the quarantine that were replayed by the load that was committed last."""
        if not note.replayed:
            return
        with self.warehouse.transaction() as transaction:
            pending = transaction.state(self.pending)
            if pending and pending.get("load") == note.load:
                transaction.save_state(self.pending, note.run_id, {})
                transaction.drop_quarantined(self.pipeline, _ids(pending))
                transaction.commit()

    @property
    def pending(self) -> str:
        """The name of what the warehouse remembers of a replay until it is settled."""
        return f"{self.pipeline}/replayed"


class TopicDestination(Beside):
    """`Destination` and `Expecting`: a topic.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.

    Raises:
        PivotalError: A `${NAME}` has no value.
    """

    def __init__(self, pipeline: str, declared: StreamDestination) -> None:
        warehouse = open_warehouse(get_settings().warehouse_url)
        super().__init__(pipeline, warehouse)
        self._declared = declared
        self._place = _Place(pipeline, connection_of(declared), resolve(declared.topic), warehouse)
        self.label = f"stream {self._place.topic}"

    def state(self) -> State | None:
        """See `Destination.state`."""
        return self._look().state

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """See `Destination.quarantined`."""
        self._place.settle(self._look())
        return super().quarantined(limit)

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> TopicLoad:
        """See `Destination.begin`.

        Raises:
            DestinationError: The brokers cannot be reached or refuse us, or there is no such topic.
        """
        with _in_words(), Admin(self._place.connection) as admin:
            admin.check(self._place.topic)
            admin.make_compacted(self._place.state_topic)
            largest = admin.largest(self._place.topic)
        return TopicLoad(self._place, self._declared, self._run(run_id, replayed, expired), largest)

    def _look(self) -> _Note:
        """What was committed last; the load that begins then must find the same."""
        with _in_words():
            note = self._place.note()
        self._seen = note if self._seen is UNSEEN else self._seen
        return note


class TopicLoad(BesideLoad):
    """`Load`: rows wait on disk until all are there, so that the transaction, for which readers wait, is short."""

    def __init__(self, place: _Place, declared: StreamDestination, run: Run, largest: int) -> None:
        super().__init__(place.warehouse.transaction(), Run(run.pipeline, run.id, (), run.expired))
        self._place, self._declared, self._seen = place, declared, run.seen
        self._replayed = set(run.replayed)
        self._recorder, self._largest = Recorder(declared, largest), largest
        self._stack = ExitStack()
        self._spool = self._stack.enter_context(Spool(Path(tempfile.gettempdir())))
        self._sending: Transaction | None = None
        self._waiting = self._refused = 0
        self._before = _Note()

    def write(self, rows: pa.RecordBatch) -> Sequence[Refused]:
        """See `Load.write`.

        Raises:
            DestinationError: The rows lack a column that the pipeline names, or one has a type that JSON cannot say.
        """
        refused: list[Refused] = []
        for records in self._recorder.records(rows, refused):
            self._spool.write(records)
            self._waiting += records.num_rows
        self._refused += len(refused)
        return refused

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        if self._replayed:  # such a row stays
            again = quarantine.quarantined(self._run.pipeline, self._run.id, rows)
            self._replayed.difference_update(row.id for row in again)
        super().quarantine(rows)

    def loaded(self) -> Loaded:
        """See `Load.loaded`: what the brokers have acknowledged.

        Raises:
            DestinationError: They are away, or do not take a record; or another run has committed meanwhile.
        """
        with _in_words():
            sending = self._open()
            self._before = self._place.note()
            self._check_unchanged()
            sent = sum(sending.send(self._place.topic, self._recorder.restored(records)) for records in self._spool)
        return Loaded(inserted=sent, refused=self._refused)

    def commit(self, state: State | None) -> int:
        """See `Load.commit`.

        First the quarantine, with the rows that are to leave it; then rows and state; then those rows leave. Killed in
        between, whoever comes next finds in the state's topic whether they were sent.
        """
        before, run = self._before, self._run
        note = _Note(new_id(), run.id, before.state if state is None else state, bool(self._replayed))
        self._place.settle(before)
        if note.replayed:
            pending = {"load": note.load, "ids": sorted(self._replayed)}
            self._transaction.save_state(self._place.pending, run.id, pending)
        expired = super().commit(None)
        with _in_words():
            sending = self._sending
            assert sending  # noqa: S101  (`loaded` comes first)
            sending.send(self._place.state_topic, [Record(run.pipeline.encode(), orjson.dumps(asdict(note)))])
            sending.commit()
        self._place.settle(note)
        return expired

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        super().__exit__(kind, error, trace)

    def _open(self) -> Transaction:
        seconds = min(_LONGEST, _SHORTEST + self._waiting / _SLOWEST)
        self._sending = Transaction(
            self._place.connection,
            f"pivotal-{self._run.pipeline}",
            seconds=seconds,
            largest=self._largest,
            compression=self._declared.compression,
        )
        return self._stack.enter_context(closing(self._sending))

    def _check_unchanged(self) -> None:
        """Lets a load go on whose source starts where the last one ended; a run elsewhere may have moved that."""
        found = self._before if isinstance(self._seen, _Note) else self._before.state
        if self._seen is not UNSEEN and found != self._seen:
            raise another_has_committed(self._run.pipeline)


def _ids(pending: State) -> list[str]:
    ids = pending["ids"]
    return [str(each) for each in ids] if isinstance(ids, list) else []


@contextmanager
def _in_words() -> Iterator[None]:
    """Tells what the brokers say as an error of the destination."""
    try:
        yield
    except IntegrationError as error:
        raise DestinationError(error.message, hint=error.hint, retryable=error.retryable) from None
