"""`map`: which columns the rules work on, by their names after it, and where in the data each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa
import pyarrow.compute as pc

from errors import RuleError
from etl.pipeline import Transform
from etl.quoting import literal


@dataclass(frozen=True, slots=True)
class Mapped:
    """A column after `map`.

    Args:
        name: Its name after `map`.
        index: The data's column that it is, or is a part of; None if the data lacks it and NULL stands for it.
        path: The fields that lead to it, if it is a part.
    """

    name: str
    index: int | None
    path: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The value, where the data's columns are called r0, r1, ..."""
        sql = "NULL" if self.index is None else f"r{self.index}"
        for step in self.path:
            sql = f"struct_extract({sql}, {literal(step)})"
        return sql

    def field(self, schema: pa.Schema) -> pa.Field:
        """Name and type."""
        if self.index is None:
            return pa.field(self.name, pa.null())
        field = schema.field(self.index)
        for step in self.path:
            field = field.type.field(step)
        return field.with_name(self.name).with_nullable(True)

    def array(self, rows: pa.RecordBatch) -> pa.Array:
        """The values, without a copy where it is a whole column."""
        if self.index is None:
            return pa.nulls(rows.num_rows)
        column = rows.column(self.index)
        return pc.struct_field(column, list(self.path)) if self.path else column


def mapped_columns(transform: Transform, schema: pa.Schema) -> list[Mapped]:
    """The columns that `convert` and `validate` see, in the order of the result.

    Raises:
        RuleError: The rules name a column that the data does not have, or two columns get one name.
    """
    renamed = [_located(transform, schema, old, new) for old, new in transform.map.items() if old != "*"]
    columns = _with_rest(schema, renamed) if transform.keeps_rest else renamed
    columns += _named(transform, schema, columns)
    twice = [name for name, count in Counter(column.name for column in columns).items() if count > 1]
    if twice:
        raise RuleError(f"map: two columns get the name {twice[0]}", hint="give one of them another name in `map`")
    return columns


def unknown_column(section: str, name: str, known: Sequence[str]) -> RuleError:
    """The error for a name that is no column: with the nearest one, and all that there are."""
    near = get_close_matches(name, known, 1, 0.5)
    return RuleError(
        f"{section}: there is no column {name}",
        hint=(f"did you mean {near[0]}? " if near else "") + f"The columns are {', '.join(known) or 'none'}",
    )


def _located(transform: Transform, schema: pa.Schema, old: str, new: str) -> Mapped:
    places = _places(schema)
    if old not in places:
        if transform.on_missing_column is None:
            return Mapped(new, None)
        raise unknown_column("map", old, list(places))
    return Mapped(new, *places[old])


def _places(schema: pa.Schema) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Columns and fields of nested ones (`address.city`) -> where they are. A column goes before a field."""
    places = {
        ".".join([field.name, *path]): (index, path)
        for index, field in enumerate(schema)
        for path in _fields(field.type)
    }
    return {name: (index, ()) for index, name in enumerate(schema.names)} | {
        name: place for name, place in places.items() if name not in schema.names
    }


def _fields(kind: pa.DataType) -> Iterator[tuple[str, ...]]:
    for field in kind if pa.types.is_struct(kind) else ():
        yield (field.name,)
        yield from ((field.name, *path) for path in _fields(field.type))


def _with_rest(schema: pa.Schema, renamed: Sequence[Mapped]) -> list[Mapped]:
    """All columns: renamed ones in their places, parts of columns and missing ones at the end."""
    whole = {column.index: column for column in renamed if column.index is not None and not column.path}
    others = [column for column in renamed if column not in whole.values()]
    return [whole.get(index) or Mapped(name, index) for index, name in enumerate(schema.names)] + others


def _named(transform: Transform, schema: pa.Schema, columns: Sequence[Mapped]) -> Iterator[Mapped]:
    """Columns that no `map` gives, but that `convert` or `validate` name."""
    known = [column.name for column in columns]
    away = {old: new for old, new in transform.map.items() if old in schema.names}
    for section, names in (("convert", transform.convert), ("validate", transform.checks)):
        for name in names:
            if name in known:
                continue
            if name in away:
                raise RuleError(f"{section}: there is no column {name}", hint=f"`map` renames it to {away[name]}")
            if name in schema.names and not transform.keeps_rest:
                index: int | None = schema.get_field_index(name)
            elif transform.on_missing_column is None:
                index = None
            else:
                rest = [other for other in schema.names if other not in known and other not in away]
                raise unknown_column(section, name, known + rest)
            known.append(name)
            yield Mapped(name, index)
