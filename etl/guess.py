"""What a file's columns hold, found by looking at every value: a type is guessed only if all of them convert exactly.

Text stays text wherever a type would lose something of it: leading zeros (`007`), a plus (`+49 30 ...`), blanks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from etl.convert import conversion, engine_type
from etl.pipeline import FileSource
from etl.quoting import literal, quoted
from etl.sources.file import Files
from etl.sources.rows import engine

SAMPLES = 3
"""Values of each column that are shown."""

_WHOLE = r"0|-?[1-9]\d*"
_POINT = rf"(({_WHOLE})(\.\d+)?|-0\.\d*[1-9]\d*)"
_NUMBERS = {"bigint": _WHOLE, "decimal": _POINT, "number": rf"{_POINT}([eE][+-]?\d+)?", "boolean": "(?i)true|false"}
_OTHERS = ("date", "timestamp", "timestamptz", "uuid")
_TYPED = {".json", ".ndjson", ".jsonl", ".parquet", ".xlsx"}
_DIGITS, _BIGINT = 38, 18


@dataclass(slots=True)
class Guess:
    """A column.

    Args:
        kind: Its type in the file, for people.
        convert: The type that `convert` gives it; None if it stays as it is.
        samples: Some of its values.
    """

    kind: str
    convert: str | None = None
    samples: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The type that it will have."""
        return self.convert or self.kind


def guess(source: FileSource) -> dict[str, Guess]:
    """Reads a file and tells what its columns hold.

    Only CSV has nothing but text: what is text in other files is looked at for dates, times and UUIDs only.

    Args:
        source: The file.

    Returns:
        Column -> what it holds.

    Raises:
        SourceError: The file cannot be read.
    """
    typed = any(suffix in _TYPED for suffix in PurePosixPath(source.path.lower()).suffixes)
    possible = [*_OTHERS] if typed else [*_NUMBERS, *_OTHERS]
    found: dict[str, _Column] = {}
    with closing(Files(source).open(None)) as reading:
        for batch in reading:
            for name, kind in zip(batch.rows.schema.names, batch.rows.schema.types, strict=True):
                found.setdefault(name, _Column(kind, list(possible) if _is_text(kind) else []))
            _look(batch.rows, found)
    return {name: Guess(column.told, column.choice, column.samples) for name, column in found.items()}


@dataclass(slots=True)
class _Column:
    """What is known of a column so far: which types all of its values have, and how many digits at most."""

    kind: pa.DataType
    possible: list[str]
    values: int = 0
    before: int = 1
    after: int = 0
    samples: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        return "string" if _is_text(self.kind) else str(self.kind)

    @property
    def choice(self) -> str | None:
        return next(self._choices(), None) if self.values else None

    def _choices(self) -> Iterator[str]:
        for kind in self.possible:
            if kind == "bigint" and self.before > _BIGINT:
                continue
            if kind != "decimal":
                yield kind
            elif self.before + self.after <= _DIGITS:
                yield f"decimal({self.before + self.after},{self.after})"


def _look(rows: pa.RecordBatch, found: Mapping[str, _Column]) -> None:
    """Learns from a batch."""
    with engine(read=rows) as session:
        for name in rows.schema.names:
            column = found[name]
            tests = [f"coalesce(bool_and({_test(kind)}), true)" for kind in column.possible]
            sizes = [f"coalesce(max(length(split_part(ltrim(v, '-'), '.', {part}))), 0)" for part in (1, 2)]
            values = f"SELECT CAST({quoted(name)} AS VARCHAR) AS v FROM read"
            sql = f"SELECT count(v), {', '.join([*sizes, *tests])} FROM ({values})"
            [(count, before, after, *fits)] = session.sql(sql).fetchall()
            column.values += count
            column.before, column.after = max(column.before, before), max(column.after, after)
            column.possible = [kind for kind, fit in zip(column.possible, fits, strict=True) if fit]
            if len(column.samples) < SAMPLES:
                more = session.sql(f"SELECT DISTINCT v FROM ({values} LIMIT 100) WHERE v IS NOT NULL LIMIT {SAMPLES}")
                column.samples = list(dict.fromkeys([*column.samples, *(v for (v,) in more.fetchall())]))[:SAMPLES]


def _test(kind: str) -> str:
    """SQL that is true for a text `v` that has a type."""
    if kind in _NUMBERS:
        matches = f"regexp_full_match(v, {literal(_NUMBERS[kind])})"
        return f"{matches} AND {conversion('v', 'VARCHAR', 'DOUBLE')} IS NOT NULL" if kind == "number" else matches
    return f"{conversion('v', 'VARCHAR', engine_type(kind))} IS NOT NULL"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
