"""Parquet files in a folder, with the state and the quarantine in `_pivotal/` beside them, published in one step."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson
import pyarrow as pa

from etl.destinations import quarantine
from etl.destinations.disk import disk_errors
from etl.destinations.folder import Change, Folder
from etl.destinations.parquet import PartWriter
from etl.pipeline import FileDestination
from etl.stream import BadRow, Loaded, Quarantined, State
from settings import get_settings

_STATE = Path("_pivotal", "state.json")
_SCHEMA = Path("_pivotal", "schema.arrow")
_QUARANTINE = Path("_pivotal", "quarantine")


class FilesDestination:
    """`Destination`: a folder of Parquet files.

    `append` adds a file named by pipeline and run, and replaces what the same run wrote before. `replace` writes one
    file whose name stays the same, so that it changes even for a reader that has listed the folder already.

    Args:
        pipeline: The pipeline's name.
        declared: What its file says.

    Raises:
        ConfigError: A `${NAME}` in the path has no value.
    """

    def __init__(self, pipeline: str, declared: FileDestination) -> None:
        from etl.loader import resolve

        self.label = resolve(declared.path)
        self._pipeline, self._replace = pipeline, declared.write == "replace"
        self._folder = Folder(get_settings().path(self.label))

    def state(self) -> State | None:
        """See `Destination.state`."""
        with disk_errors(self.label):
            states = self._folder.read(_states) or {}
        return states[self._pipeline]["state"] if self._pipeline in states else None

    def begin(self, run_id: str, *, replayed: Sequence[str] = ()) -> FilesLoad:
        """See `Destination.begin`."""
        return FilesLoad(self.label, self._folder, self._pipeline, self._replace, run_id, replayed)

    def quarantined(self, limit: int | None = None) -> list[Quarantined]:
        """See `Destination.quarantined`."""
        with disk_errors(self.label):
            rows = self._folder.read(_quarantined) or []
        newest = {row.id: row for row in sorted(rows, key=_age) if row.pipeline == self._pipeline}
        return sorted(newest.values(), key=_age)[:limit]

    def drop_quarantined(self, ids: Sequence[str]) -> int:
        """See `Destination.drop_quarantined`."""
        if not self._folder.current():
            return 0
        with disk_errors(self.label), closing(Change(self._folder)) as change:
            change.keep(lambda _: True)
            dropped = _drop(change.version, self._pipeline, ids)
            change.publish()
        return dropped


class FilesLoad:
    """`Load`: the next version of the folder."""

    def __init__(
        self, label: str, folder: Folder, pipeline: str, replace: bool, run_id: str, replayed: Sequence[str]
    ) -> None:
        self._label, self._pipeline, self._run_id, self._replayed = label, pipeline, run_id, replayed
        self._replace = replace
        self._stack = ExitStack()
        with disk_errors(label), self._stack:
            self._change = self._stack.enter_context(closing(Change(folder)))
            self._own = re.sub(r"[^\w.-]", "_", f"{pipeline}-{run_id}")
            schema = pa.schema([]) if replace else _schema(self._change.base)
            self._parts = PartWriter(label, self._change.version, self._stem(), schema)
            self._stack.callback(self._parts.close)
            self._bad: IO[bytes] | None = None
            self._stack = self._stack.pop_all()

    def write(self, rows: pa.RecordBatch) -> None:
        """See `Load.write`."""
        with disk_errors(self._label):
            self._parts.write(rows)

    def quarantine(self, rows: Sequence[BadRow]) -> None:
        """See `Load.quarantine`."""
        with disk_errors(self._label):
            for row in quarantine.quarantined(self._pipeline, self._run_id, rows):
                self._bad = self._bad or self._open_quarantine()
                self._bad.write(quarantine.to_line(row))

    def loaded(self) -> Loaded:
        """See `Load.loaded`."""
        with disk_errors(self._label):
            return Loaded(inserted=self._parts.finish(at_least_one=self._replace))

    def commit(self, state: State | None) -> None:
        """See `Load.commit`."""
        version = self._change.version
        with disk_errors(self._label):
            if self._bad:
                self._bad.close()
            self._change.keep(self._stays)
            _drop(version, self._pipeline, self._replayed, but=f"{self._own}.ndjson")
            self._parts.publish()
            if state is not None:
                _save_state(version, self._pipeline, self._run_id, state)
            _write(version / _SCHEMA, self._parts.schema.serialize())
            self._change.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open_quarantine(self) -> IO[bytes]:
        path = self._change.version / _QUARANTINE / f"{self._own}.ndjson"
        path.parent.mkdir(parents=True)
        return self._stack.enter_context(path.open("wb"))

    def _stem(self) -> str:
        """The name of what a replacement writes stays, unless that would mix it with files that were appended."""
        base = self._change.base
        constant = self._replace and not any(_is_appended(file) for file in base.glob("*.parquet")) if base else True
        return "data" if self._replace and constant else self._own

    def _stays(self, file: Path) -> bool:
        """Whether a file of the version before stays; not what the same run wrote."""
        if file.suffix == ".parquet" and self._replace:
            return False
        return not re.fullmatch(re.escape(self._own) + r"(-\d+)?\.(parquet|ndjson)", file.name)


def _is_appended(file: Path) -> bool:
    return not re.fullmatch(r"data(-\d+)?\.parquet", file.name)


def _age(row: Quarantined) -> tuple[datetime, str]:
    return row.at, row.id


def _states(version: Path) -> dict[str, Any]:
    path = version / _STATE
    return dict(orjson.loads(path.read_bytes())) if path.exists() else {}


def _save_state(version: Path, pipeline: str, run_id: str, state: State) -> None:
    entry = {"state": state, "run_id": run_id, "updated_at": datetime.now(UTC)}
    _write(version / _STATE, orjson.dumps(_states(version) | {pipeline: entry}, option=orjson.OPT_INDENT_2))


def _schema(version: Path | None) -> pa.Schema:
    """The columns that the folder's files have."""
    if version is None or not (version / _SCHEMA).exists():
        return pa.schema([])
    return pa.ipc.read_schema(pa.py_buffer((version / _SCHEMA).read_bytes()))


def _write(path: Path, content: bytes) -> None:
    """Writes a file anew: the one that was there is also part of the version before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _quarantined(version: Path) -> list[Quarantined]:
    return [quarantine.from_line(line) for file in _files(version) for line in _lines(file)]


def _files(version: Path) -> list[Path]:
    return sorted((version / _QUARANTINE).glob("*.ndjson"))


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        yield from lines


def _drop(version: Path, pipeline: str, ids: Collection[str], but: str = "") -> int:
    """Takes rows out of the quarantine's files, but one; returns how many rows there were."""
    gone, found = set(ids), set[str]()
    for file in _files(version) if gone else ():
        if file.name != but:
            found |= _drop_from(file, pipeline, gone)
    return len(found)


def _drop_from(file: Path, pipeline: str, gone: set[str]) -> set[str]:
    found, rest = set[str](), file.with_suffix(".rest")
    with rest.open("wb") as kept:
        for line in _lines(file):
            row = quarantine.from_line(line)
            if row.pipeline == pipeline and row.id in gone:
                found.add(row.id)
            else:
                kept.write(line)
    rest.replace(file)
    if not file.stat().st_size:
        file.unlink()
    return found
