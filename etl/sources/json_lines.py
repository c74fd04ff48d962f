"""NDJSON: one JSON object a line. A line that is none goes to the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from etl.nested import Shape, parse, without_collector
from etl.sources.disk import File, Stream
from etl.sources.lines import lines
from etl.stream import BadRow, Batch, Broken, Origin


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
            for found in lines(file, stream, "is it `format: json`?"):
                self.position = stream.position
                yield self._batch(file, found, before)
                before += len(found)

    def _batch(self, file: File, found: list[bytes], before: int) -> Batch:
        records, numbers, bad = [], [], []
        with without_collector():
            for number, line in enumerate(found, before + 1):
                record = _parsed(line)
                if isinstance(record, dict):
                    records.append(record)
                    numbers.append(number)
                else:
                    bad.append(_bad(line, record, {"file": file.name, "record": number}))
        return Batch(self._shape.records(records), _origin(file, numbers), bad=bad)


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
