"""Files in a folder or a bucket, with state and quarantine in `_pivotal/` beside them, published in one step."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import orjson
import pyarrow as pa

from errors import DestinationError
from etl.destinations import quarantine
from etl.destinations.beside import UNSEEN, Run, another_has_committed
from etl.destinations.folder import Folder
from etl.destinations.formats import SUFFIXES, format_of
from etl.destinations.layout import Inside, Layout, split_path
from etl.destinations.parts import Parts
from etl.destinations.store import Change, Sink, Store, Version, put
from etl.destinations.warehouse import Scope
from etl.pipeline import FileDestination
from etl.stream import BadRow, Loaded, Quarantined, State
from settings import get_settings

_OURS = "_pivotal/"
_STATE = f"{_OURS}state.json"
_SCHEMA = f"{_OURS}schema.arrow"
_QUARANTINE = f"{_OURS}quarantine/"


class FilesDestination:
    """`Destination`: files in a folder or a bucket.

    `append` adds files named by pipeline and run, and replaces what the same run wrote before. `replace` writes files
    whose names stay the same, so that a folder changes even for a reader that has listed it already.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.
        scope: The partition that the run is about; None for all files.

    Raises:
        ConfigError: A `${NAME}` in the path has no value.
    """

    def __init__(self, pipeline: str, declared: FileDestination, scope: Scope | None) -> None:
        from etl.loader import resolve

        self.label = resolve(declared.path)
        self._pipeline, self._declared = pipeline, declared
        place, self._pattern = split_path(self.label)
        self._inside = Inside(self._pattern, scope) if scope else None
        self._store = _store(place)
        self._seen: object = UNSEEN

    def state(self) -> State | None:
        """See `Destination.state`."""
        with self._store.trouble():
            entry = self._seen = self._store.read(_states).get(self._pipeline)
        return entry["state"] if entry else None

    def columns(self) -> Container[str] | None:
        """See `Destination.columns`."""
        with self._store.trouble():
            schema = self._store.read(_schema)
        return schema.names or None

    def begin(self, run_id: str, *, replayed: Sequence[str] = (), expired: datetime | None = None) -> FilesLoad:
        """See `Destination.begin`."""
        run = Run(self._pipeline, run_id, replayed, expired)
        of_run = {"date": datetime.now(UTC).date().isoformat(), "run_id": run_id}
        layout = Layout(self.label, self._pattern, of_run)
        seen, self._seen = self._seen, UNSEEN
        return FilesLoad(self._store, self._declared, layout, run, seen, self._inside)

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """See `Destination.quarantined`."""
        with self._store.trouble():
            rows = self._store.read(_quarantined)
        newest = {row.id: row for row in sorted(rows, key=_age) if row.pipeline == self._pipeline}
        return sorted(newest.values(), key=_age)[:limit]

    def drop_quarantined(self, ids: Sequence[str]) -> int:
        """See `Destination.drop_quarantined`."""
        if not self.quarantined(1):
            return 0
        with self._store.trouble(), closing(self._store.change()) as change:
            dropped, emptied = _drop(change, self._pipeline, ids)
            change.publish(lambda name: name not in emptied)
        return dropped


class FilesLoad:
    """`Load`: the next version of the folder."""

    def __init__(
        self,
        store: Store,
        declared: FileDestination,
        layout: Layout,
        run: Run,
        seen: object,
        inside: Inside | None,
    ) -> None:
        self._store, self._label, self._run = store, layout.label, run
        self._replace, self._inside = declared.write == "replace", inside
        self._own = re.sub(r"[^\w.-]", "_", f"{run.pipeline}-{run.id}")
        self._bad: Sink | None = None
        self._stack = ExitStack()
        with store.trouble(), self._stack:
            self._change = self._stack.enter_context(closing(store.change()))
            if seen is not UNSEEN:
                _check_unchanged(self._change.base, run.pipeline, seen)
            self._expired = _expired(self._change.base, run)
            schema = pa.schema([]) if self._replace and inside is None else _schema(self._change.base)
            form, size = format_of(declared), declared.file_size
            self._parts = Parts(layout.label, self._change, self._stem(), form, layout, schema, size)
            self._stack.callback(self._parts.close)
            self._stack = self._stack.pop_all()

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Load.write`."""
        with self._store.trouble():
            self._parts.write(rows)

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        if not rows:
            return
        with self._store.trouble():
            self._bad = self._bad or self._change.create(f"{_QUARANTINE}{self._own}.ndjson")
            found = quarantine.quarantined(self._run.pipeline, self._run.id, rows)
            self._expired.difference_update(row.id for row in found)
            self._bad.write(b"".join(map(quarantine.to_line, found)))

    def loaded(self) -> Loaded:
        """See `Load.loaded`."""
        with self._store.trouble():
            inserted = self._parts.finish(at_least_one=self._replace)
        self._check_inside()
        return Loaded(inserted=inserted)

    def commit(self, state: State | None) -> int:
        """See `Load.commit`."""
        with self._store.trouble():
            if self._bad:
                self._bad.close()
            gone = self._expired.union(self._run.replayed)
            _, emptied = _drop(self._change, self._run.pipeline, gone, but=f"{self._own}.ndjson")
            if state is not None:
                _save_state(self._change, self._run.pipeline, self._run.id, state)
            put(self._change, _SCHEMA, self._parts.schema.serialize().to_pybytes())
            self._change.publish(lambda name: name not in emptied and self._stays(name))
        return len(self._expired)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _stem(self) -> str:
        """The name of what a replacement writes stays, unless that would mix it with files that were appended."""
        mixed = any(_is_data(name) and not _is_replacement(name) for name in self._change.base.names)
        return "data" if self._replace and not mixed else self._own

    def _check_inside(self) -> None:
        """Lets a load pass whose files the next run for the partition would find again."""
        inside = self._inside
        for folder in self._parts.folders:
            if inside and folder not in inside:
                raise DestinationError(
                    f"{self._label}: the folder {folder} is of no value of the partition",
                    hint="partition by a column of text, whole numbers, dates or timestamps",
                )

    def _stays(self, name: str) -> bool:
        """Whether a file of the version before stays; not what the same run wrote."""
        if self._replace and _is_data(name):
            return self._inside is not None and name.rpartition("/")[0] not in self._inside
        return not re.fullmatch(re.escape(self._own) + rf"(-\d+)?{SUFFIXES}", _file(name))


def _store(place: str) -> Store:
    if place.startswith("s3://"):
        from etl.destinations.bucket import Bucket

        return Bucket(place)
    return Folder(get_settings().path(place))


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _is_data(name: str) -> bool:
    return not name.startswith(_OURS) and re.search(SUFFIXES + "$", name) is not None


def _is_replacement(name: str) -> bool:
    return re.fullmatch(rf"data(-\d+)?{SUFFIXES}", _file(name)) is not None


def _age(row: Quarantined) -> tuple[datetime, str]:
    return row.at, row.id


def _expired(version: Version, run: Run) -> set[str]:
    """Ids of rows that waited for too long; those that are replayed leave anyway."""
    if run.expired is None:
        return set()
    old, young = set[str](), set(run.replayed)
    for name in _quarantine_of(version):
        for row in _rows(version, name):
            (old if row.pipeline == run.pipeline and row.at < run.expired else young).add(row.id)
    return old - young


def _states(version: Version) -> dict[str, Any]:
    return dict(orjson.loads(_content(version, _STATE) or b"{}"))


def _check_unchanged(version: Version, pipeline: str, seen: object) -> None:
    """Lets a load begin whose source starts where the last one ended; a run on another machine may have moved that."""
    if _states(version).get(pipeline) != seen:
        raise another_has_committed(pipeline)


def _save_state(change: Change, pipeline: str, run_id: str, state: State) -> None:
    entry = {"state": state, "run_id": run_id, "updated_at": datetime.now(UTC)}
    put(change, _STATE, orjson.dumps(_states(change.base) | {pipeline: entry}, option=orjson.OPT_INDENT_2))


def _schema(version: Version) -> pa.Schema:
    """The columns that the files have."""
    content = _content(version, _SCHEMA)
    return pa.ipc.read_schema(pa.py_buffer(content)) if content else pa.schema([])


def _content(version: Version, name: str) -> bytes | None:
    if name not in version.names:
        return None
    with version.open(name) as file:
        return file.read()


def _quarantined(version: Version) -> list[Quarantined]:
    return [quarantine.from_line(line) for name in _quarantine_of(version) for line in _lines(version, name)]


def _quarantine_of(version: Version) -> list[str]:
    return [name for name in version.names if name.startswith(_QUARANTINE)]


def _lines(version: Version, name: str) -> Iterator[bytes]:
    with version.open(name) as lines:
        yield from lines


def _drop(change: Change, pipeline: str, ids: Collection[str], but: str = "") -> tuple[int, set[str]]:
    """Takes rows out of the quarantine's files, but one; returns how many rows there were, and the emptied files."""
    gone, found, emptied = set(ids), set[str](), set[str]()
    for name in _quarantine_of(change.base) if gone else ():
        if _file(name) != but:
            here = {row.id for row in _rows(change.base, name) if row.pipeline == pipeline and row.id in gone}
            found |= here
            if here and not _rewrite(change, name, pipeline, here):
                emptied.add(name)
    return len(found), emptied


def _rewrite(change: Change, name: str, pipeline: str, gone: set[str]) -> bool:
    """Writes a file of the quarantine anew, without some rows; False if there are no others."""
    sink: Sink | None = None
    for row in _rows(change.base, name):
        if row.pipeline != pipeline or row.id not in gone:
            sink = sink or change.create(name)
            sink.write(quarantine.to_line(row))
    if sink:
        sink.close()
    return sink is not None


def _rows(version: Version, name: str) -> Iterator[Quarantined]:
    return map(quarantine.from_line, _lines(version, name))
