"""NDJSON: one JSON object a line. A line that is none goes to the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from errors import SourceError
from etl.nested import Shape, parse, without_collector
from etl.sources.disk import File, Stream
from etl.stream import BadRow, Batch, Broken, Origin

_CHUNK = 4 << 20  # as Python objects, JSON takes some ten times its bytes
_LONGEST = 64 << 20


class JsonLines:
    """Reads NDJSON files (`etl.sources.file.Reader`)."""

    def __init__(self) -> None:
        self.position = 0
        self._shape = Shape()

    def names(self, file: File) -> None:
        """Only reading tells; an empty file has no rows."""
        with closing(Stream(file)) as stream:
            stream.read(1)

    def batches(self, file: File) -> Iterator[Batch]:
        """The rows; empty lines are no records."""
        before = 0
        with closing(Stream(file)) as stream:
            for lines in _lines(file, stream):
                self.position = stream.position
                yield self._batch(file, lines, before)
                before += len(lines)

    def _batch(self, file: File, lines: list[bytes], before: int) -> Batch:
        records, numbers, bad = [], [], []
        with without_collector():
            for number, line in enumerate(lines, before + 1):
                record = _parsed(line)
                if isinstance(record, dict):
                    records.append(record)
                    numbers.append(number)
                else:
                    bad.append(_bad(line, record, {"file": file.name, "record": number}))
        return Batch(self._shape.records(records), _origin(file, numbers), bad=bad)


def _lines(file: File, stream: Stream) -> Iterator[list[bytes]]:
    rest = b""
    while chunk := stream.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise SourceError(f"{file.name}: a line is longer than {_LONGEST >> 20} MB", hint="is it `format: json`?")
        if lines := [line for line in lines if line.strip()]:
            yield lines
    if rest.strip():
        yield [rest]


def _parsed(line: bytes) -> Any:  # noqa: ANN401  (JSON can be anything)
    """The line's object, or what is wrong with it."""
    try:
        value = parse(line)
    except ValueError as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else "not a JSON object"


def _bad(line: bytes, problem: str, origin: Origin) -> BadRow:
    text = line.decode("utf-8", "backslashreplace").rstrip("\r")
    return BadRow({"line": text}, {}, [Broken("", "source: ndjson", problem)], origin)


def _origin(file: File, numbers: list[int]) -> Callable[[int], Origin]:
    return lambda index: {"file": file.name, "record": numbers[index]}
