"""JSON documents: a list of objects, or an object with such a list somewhere inside; read in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import ijson

from errors import SourceError
from etl.nested import Shape, dump
from etl.sources.disk import File, Stream
from etl.stream import BadRow, Batch, Broken, Origin

_CHUNK = 4 << 20  # as Python objects, JSON takes some ten times its bytes
_LONGEST = 128 << 20


class JsonDocument:
    """Reads JSON files (`etl.sources.file.Reader`).

    Args:
        records: Where the list is (`data.items`); the document itself if None.
    """

    def __init__(self, records: str | None) -> None:
        self.position = 0
        self._list = records or ""
        self._shape = Shape()

    def names(self, file: File) -> None:
        """Only reading tells; but there must be a list."""
        with closing(Stream(file)) as stream, _told(file):
            keys, bounded = [], _Bounded(file, stream)
            for prefix, event, value in ijson.parse(bounded):
                bounded.start = stream.taken
                if prefix == self._list and event == "start_array":
                    return
                if event == "map_key" and prefix == self._list.rpartition(".")[0]:
                    keys.append(value)
        raise SourceError(
            f"{file.name}: " + (f"has no list at {self._list!r}" if self._list else "is an object, not a list"),
            hint=f"say where its records are: `records: ...`; there are {', '.join(keys[:20]) or 'no keys'}",
        )

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows."""
        number, waiting, start = 0, [], 0
        twice: list[tuple[object, str]] = []
        with closing(Stream(file)) as stream, _told(file):
            prefix = f"{self._list}.item" if self._list else "item"
            bounded = _Bounded(file, stream)
            for record in ijson.items(bounded, prefix, map_type=_objects(twice)):
                bounded.start = stream.taken
                waiting.append(record)
                for wrong, key in twice:  # it may be in a later record: the parser is ahead
                    if _holds(record, wrong):
                        where = f"record {number + len(waiting)}"
                        raise SourceError(f"{file.name}: {where}: the key {key!r} stands twice in one object")
                if stream.taken - start >= _CHUNK:
                    self.position, start = stream.position, stream.taken
                    yield self._batch(file, waiting, number)
                    number, waiting = number + len(waiting), []
            if waiting:
                yield self._batch(file, waiting, number)

    def _batch(self, file: File, found: list[Any], before: int) -> Batch:
        numbers = [before + place for place, record in enumerate(found, 1) if isinstance(record, dict)]
        bad = [
            _bad(record, {"file": file.name, "record": before + place})
            for place, record in enumerate(found, 1)
            if not isinstance(record, dict)
        ]
        rows = self._shape.records([record for record in found if isinstance(record, dict)])
        return Batch(rows, _origin(file, numbers), bad=bad)


class _Bounded:
    """What the parser reads from: it holds what it has not given yet, a text without an end to the last byte."""

    def __init__(self, file: File, stream: Stream) -> None:
        self.start = 0
        self._file = file
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._stream.taken - self.start > _LONGEST:
            raise SourceError(f"{self._file.name}: has {_LONGEST >> 20} MB without the end of a record")
        return self._stream.read(size)


def _objects(twice: list[tuple[object, str]]) -> type[dict[str, Any]]:
    """Objects that tell in `twice` which key of which came twice: ijson swallows what they would raise."""

    class Object(dict[str, Any]):
        def __setitem__(self, key: str, value: object) -> None:
            if key in self:
                twice.append((self, key))
            super().__setitem__(key, value)

    return Object


def _holds(value: object, wanted: object) -> bool:
    """Whether it is, or has somewhere inside, that very object."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is wanted or any(_holds(each, wanted) for each in inner)


@contextmanager
def _told(file: File) -> Iterator[None]:
    try:
        yield
    except ijson.JSONError as error:
        raise SourceError(f"{file.name}: not JSON: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SourceError(f"{file.name}: is nested too deeply") from None


def _bad(value: object, origin: Origin) -> BadRow:
    return BadRow({"line": dump(value)}, {}, [Broken("", "source: json", "not a JSON object")], origin)


def _origin(file: File, numbers: list[int]) -> Callable[[int], Origin]:
    return lambda index: {"file": file.name, "record": numbers[index]}
