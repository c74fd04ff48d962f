"""Whether what a pipeline's rules refer to can exist: columns, functions, types.

Which columns there are: those that the rules name, and (where the rest is kept) those of the source. A database
source may name its columns; a local file or SQLite table is asked. Where the set stays open, only what contradicts
the rules themselves is a mistake.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import duckdb
from pydantic import ValidationError

from errors import ConfigError, PivotalError, Problem, RuleError
from etl.checks import Value, check_rules
from etl.convert import engine_type
from etl.documents import Document, KeyPath
from etl.expressions import ExpressionError, parse, result_type
from etl.mistakes import nearest
from etl.pipeline import DatabaseSource, FileSource, Pipeline, StreamSource, Transform
from etl.privacy import KEYED, hash_pads
from etl.session import Session
from etl.variables import resolve
from settings import get_settings

_SECTION = "transform"


def find_problems(document: Document, pipeline: Pipeline | None) -> Iterator[Problem]:
    """Finds references to what cannot exist, and expressions that are none.

    Args:
        document: The file.
        pipeline: What it says; None if it has other mistakes: what can be checked without the rest still is.
    """
    transform = pipeline.transform if pipeline else _valid_transform(document.data.get(_SECTION, {}))
    if not transform:
        yield from _syntax_problems(document)
        return
    source = _source_columns(document, pipeline)
    columns = _columns(transform, source)
    yield from _source_problems(document, transform, source)
    yield from _check_problems(document, transform)
    yield from _schema_problems(document, transform)
    yield from _expression_problems(document, transform, columns)
    yield from _tombstone_problems(document, pipeline) if pipeline else ()
    if columns is not None:
        yield from _result_problems(document, [*columns, *transform.derive])
        yield from _children_problems(document, transform, [*columns, *transform.derive])


def _valid_transform(data: object) -> Transform | None:
    try:
        return Transform.model_validate(data)
    except ValidationError:
        return None


# --- which columns there are ----------------------------------------------------------------------------------


def _source_columns(document: Document, pipeline: Pipeline | None) -> list[str] | None:
    """The source's columns, where they can be told without a server."""
    source = document.data.get("source")
    named = source.get("columns") if isinstance(source, dict) else None
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        return [
            *named,
            *(pipeline.source.added_columns if pipeline and isinstance(pipeline.source, StreamSource) else ()),
        ]
    return _ask(pipeline) if pipeline and _is_local(pipeline) else None


def _is_local(pipeline: Pipeline) -> bool:
    source = pipeline.source
    if isinstance(source, FileSource):
        return "://" not in resolve(source.path)
    return isinstance(source, DatabaseSource) and _is_there(resolve(source.connection))


def _is_there(connection: str) -> bool:
    """Whether a database is a file that can be read now: SQLite's, or DuckDB's while nobody writes to it."""
    kind, _, place = connection.partition(":///")
    file = get_settings().path(place.partition("?")[0])
    return file.is_file() and (kind == "sqlite" or (kind == "duckdb" and _is_free(file)))


def _is_free(file: Path) -> bool:
    """Whether no other process holds a DuckDB file: the source would wait for it."""
    try:
        duckdb.connect(file, read_only=True).close()
    except duckdb.Error:
        return False
    return True


def _ask(pipeline: Pipeline) -> list[str] | None:
    """What the source says itself; a source that cannot be read now is no mistake of the file."""
    from etl.sources import open_source

    source = pipeline.source.model_copy(update={"incremental": None})  # its cursor is looked for here
    if isinstance(source, DatabaseSource):
        source = source.model_copy(update={"filters": {}})
    try:
        return open_source(pipeline.model_copy(update={"source": source})).columns()
    except PivotalError:
        return None


def _columns(transform: Transform, source: list[str] | None) -> list[str] | None:
    """The columns that expressions can name; None if the set is open."""
    if not transform.keeps_rest:
        return transform.named_columns
    if source is None or transform.on_missing_column is None:
        return None
    return [*transform.named_columns, *(name for name in source if name not in transform.map)]


# --- whether they are there -----------------------------------------------------------------------------------


def _source_problems(document: Document, transform: Transform, source: list[str] | None) -> Iterator[Problem]:
    """Names of source columns that the source does not have."""
    if source is None:
        return
    yield from _source_key_problems(document, source)
    if transform.on_missing_column is None:
        return
    for old in transform.map:
        if old != "*" and not {old, old.partition(".")[0]} & set(source):
            yield _no_column(document, (_SECTION, "map", old), old, source, at_key=True)
    named = [new for old, new in transform.map.items() if old != "*"]
    known = [*named, *(name for name in source if name not in transform.map)]
    for part, names in (("convert", transform.convert), ("validate", transform.checks)):
        for name in names:
            if name not in known:
                yield _no_column(document, (_SECTION, part, name), name, known, at_key=True)


def _source_key_problems(document: Document, columns: list[str]) -> Iterator[Problem]:
    """Names in `source` itself; where it names its `columns`, a table may have more."""
    source = document.data.get("source")
    if not isinstance(source, dict) or "columns" in source:
        return
    yield from _named_problems(document, ("source", "incremental", "cursor"), columns)
    filters = source.get("filters")
    for name in filters if isinstance(filters, dict) else ():
        if not _has(columns, name):
            yield _no_column(document, ("source", "filters", name), name, columns, at_key=True)


def _result_problems(document: Document, columns: list[str]) -> Iterator[Problem]:
    """Names of result columns that the rules do not make."""
    destination = document.data.get("destination")
    is_topic = isinstance(destination, dict) and destination.get("type") == "stream"
    for key in ("key", "version", *(("headers", "tombstone") if is_topic else ())):
        yield from _named_problems(document, ("destination", key), columns)
    yield from _named_problems(document, ("partitions", "by"), columns)


def _children_problems(document: Document, transform: Transform, columns: list[str]) -> Iterator[Problem]:
    """Names in `children` of columns that the rules do not make; a part of one is known by its column."""
    for table, child in transform.children.items():
        path: KeyPath = (_SECTION, "children", table)
        if not {child.from_, child.column, child.from_.partition(".")[0]} & set(columns):
            yield _no_column(document, (*path, "from"), child.from_, columns)
        for name in child.keys:
            if name not in columns:
                yield _no_column(document, (*path, "keys", name), name, columns, at_key=True)


def _tombstone_problems(document: Document, pipeline: Pipeline) -> Iterator[Problem]:
    """Why tombstones that are to delete rows cannot."""
    from etl.tombstones import KeyRulesError, key_rules

    if getattr(pipeline.source, "tombstones", None) != "delete":
        return
    try:
        key_rules(pipeline)
    except KeyRulesError as error:
        yield document.problem(error.at, error.message, error.hint or "")
    except RuleError:
        return  # an expression that cannot be read is told where it stands


def _named_problems(document: Document, path: KeyPath, columns: list[str]) -> Iterator[Problem]:
    for place, name in document.texts():
        if place[: len(path)] == path and "${" not in name and not _has(columns, name):
            yield _no_column(document, place, name, columns)


def _no_column(
    document: Document,
    path: KeyPath,
    name: str,
    columns: Iterable[str],
    *,
    offset: int | None = None,
    at_key: bool = False,
) -> Problem:
    hint = nearest(name, columns)
    if offset is not None and not hint.startswith("did"):
        hint += f"; if it is a text, write '{name}' in single quotes"
    problem = document.problem(path, "there is no such column", hint, offset=offset or 0, at_key=at_key)
    return replace(problem, text=name)


def _has(columns: Iterable[str], name: str) -> bool:
    """The engine does not tell upper case from lower."""
    return name.lower() in {column.lower() for column in columns}


# --- expressions ----------------------------------------------------------------------------------------------


def _syntax_problems(document: Document) -> Iterator[Problem]:
    for path, text in document.texts():
        if path[:2] in {(_SECTION, part) for part in ("expect", "derive", "filter")}:
            try:
                parse(text)
            except ExpressionError as error:
                yield _not_an_expression(document, path, error)


def _expression_problems(document: Document, transform: Transform, columns: list[str] | None) -> Iterator[Problem]:
    types = {name: engine_type(kind.type) for name, kind in transform.convert.items()}
    yield from _condition_problems(document, "expect", transform.expect, columns, types)
    known = columns
    for name, text in transform.derive.items():
        kind = yield from _expression_problem(document, (_SECTION, "derive", name), text, known, types)
        types = {other: each for other, each in types.items() if other != name} | ({name: kind} if kind else {})
        known = None if known is None else [*known, name]
    yield from _condition_problems(document, "filter", transform.filter, known, types)


def _condition_problems(
    document: Document, section: str, texts: Sequence[str], columns: list[str] | None, types: Mapping[str, str]
) -> Iterator[Problem]:
    for index, text in enumerate(texts):
        path = (_SECTION, section, index)
        kind = yield from _expression_problem(document, path, text, columns, types)
        if kind not in {None, "BOOLEAN"}:
            yield document.problem(path, f"not a condition, but a {kind}", "write a comparison: status <> 'test'")


def _expression_problem(
    document: Document, path: KeyPath, text: str, columns: list[str] | None, types: Mapping[str, str]
) -> Generator[Problem, None, str | None]:
    """What is wrong with one expression; returns the type of its value, if that can be told."""
    try:
        unknown = {} if columns is None else {n: at for n, at in parse(text).offsets.items() if not _has(columns, n)}
        for name, offset in unknown.items():
            yield _no_column(document, path, name, columns or [], offset=offset)
        if KEYED in parse(text).functions:
            hash_pads()
        return None if unknown else result_type(text, types)
    except ExpressionError as error:
        yield _not_an_expression(document, path, error)
    except RuleError as error:
        yield document.problem(path, error.message, error.hint or "")
    return None


def _check_problems(document: Document, transform: Transform) -> Iterator[Problem]:
    """Bounds, choices and patterns that do not fit the types which `convert` gives."""
    for name, checks in transform.checks.items():
        kind = engine_type(transform.convert[name].type) if name in transform.convert else '"NULL"'
        try:
            list(check_rules(_session(), name, checks, Value("v", kind), Value("v", kind)))
        except RuleError as error:
            key, message = error.message.removeprefix(f"validate: {name}: ").split(maxsplit=1)
            path = (_SECTION, "validate", name, key.strip(":"))
            shown = f"`{key[:-1]}`:" if key.endswith(":") else f"`{key}`"
            yield document.problem(path, f"{shown} {message}", error.hint or "")


def _schema_problems(document: Document, transform: Transform) -> Iterator[Problem]:
    if transform.schema_ is None:
        return
    from etl.schema import load_schema

    try:
        load_schema(transform.schema_)
    except ConfigError as error:
        for found in error.problems:
            line = f" (line {found.line})" if found.line > 1 else ""
            yield document.problem((_SECTION, "schema"), f"`schema`: {found.message}{line}", found.hint)


@cache
def _session() -> Session:
    return Session()


def _not_an_expression(document: Document, path: KeyPath, error: ExpressionError) -> Problem:
    return document.problem(path, f"not an expression: {error.message}", error.hint or "", offset=error.offset)
