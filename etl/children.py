"""`children`: lists of objects leave their rows and become rows of child tables.

This comes last, after `filter`: a row that is broken or filtered out has no child rows. A child row has the columns of
its row that `keys` names, its place in the list (from 1) and the object's fields, structs laid flat. NULL and an empty
list give no child rows. A list with something else than objects in it breaks its row, of which then nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from errors import RuleError
from etl.contract import Contract
from etl.destinations.types import by_engine
from etl.mapping import unknown_column
from etl.nested import Shape, dump, parse, without_collector
from etl.pipeline import ChildTable, Transform
from etl.stream import Broken, ChildRows, Destination

_ROWS = 65_536
"""Child rows at a time."""

_TEXT = 4 << 20
"""Bytes of JSON that are Python's objects at a time: these take some ten times as many."""

_SHOWN = 60
"""Characters of a wrong value that a message shows."""

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parted:
    """What became of rows: given = rows + broken.

    Args:
        rows: The rows, without their lists.
        broken: Those whose lists are none: place in the rows that were given -> the rules that it broke.
        children: The child rows of the others, in parts of bounded size that are made one after the other.
    """

    rows: pa.RecordBatch
    broken: Mapping[int, Sequence[Broken]]
    children: Iterable[ChildRows]


@dataclass(frozen=True, slots=True)
class _Objects:
    """The objects of some lists, one list after the other.

    Args:
        fields: The objects.
        rows: For each list, the row that it is from.
        ends: For each list, where in the objects the next one begins.
    """

    fields: pa.RecordBatch
    rows: Places
    ends: Places

    def places(self, objects: Places) -> tuple[Places, Places]:
        """Of some of the objects, the rows that they are from, and their places in the lists, from 1."""
        lists = np.searchsorted(self.ends, objects, side="right")
        begins = np.concatenate([[0], self.ends])[lists]
        return self.rows[lists], objects - begins + 1


class ChildTables:
    """Parts the batches of one run: rows laid flat from the child rows in their lists.

    Args:
        transform: The rules.
        destination: Where the rows go.
    """

    def __init__(self, transform: Transform, destination: Destination) -> None:
        self._tables = [
            _Lists(name, child, Contract(transform, destination, name)) for name, child in transform.children.items()
        ]
        self._missing_is_null = transform.on_missing_column is None

    def part(self, rows: pa.RecordBatch) -> Parted:
        """Takes the lists out of rows.

        Raises:
            RuleError: A column that `children` names is not there, or a field has the name of another column.
        """
        if not self._tables or not rows.num_columns:
            return Parted(rows, {}, ())
        broken: dict[int, list[Broken]] = {}
        found: list[tuple[_Lists, list[_Objects]]] = []
        for table in self._tables:
            if column := self._column(table, rows.schema.names):
                wrong: dict[int, str] = {}
                found.append((table, list(table.objects(rows[column], wrong))))
                for row, message in wrong.items():
                    broken.setdefault(row, []).append(Broken(column, f"children: {table.name}", message))
        left = rows.drop_columns([name for name in rows.schema.names if name in self._lists])
        kept = np.ones(rows.num_rows, bool)
        kept[list(broken)] = False
        children = (made for table, objects in found for some in objects for made in table.rows(left, some, kept))
        return Parted(left.filter(pa.array(kept)) if broken else left, broken, children)

    @property
    def _lists(self) -> set[str]:
        return {name for table in self._tables for name in table.names}

    def _column(self, table: _Lists, names: Sequence[str]) -> str | None:
        """The column with a table's lists; None if the rows lack it, and may."""
        for name in table.declared.keys:
            if name not in names:
                raise unknown_column(f"children: {table.name}: keys", name, names)
        column = next((name for name in table.names if name in names), None)
        if column is None and not self._missing_is_null:
            raise unknown_column(f"children: {table.name}: from", table.declared.from_, names)
        return column


class _Lists:
    """The lists that one child table is made of.

    Args:
        name: The table's name.
        declared: What the pipeline's file says of it.
        contract: What its columns are held to.
    """

    def __init__(self, name: str, declared: ChildTable, contract: Contract) -> None:
        self.name, self.declared, self._contract = name, declared, contract
        self.names = (declared.from_, declared.column)
        self._shape = Shape()

    def objects(self, lists: pa.Array, broken: dict[int, str]) -> Iterator[_Objects]:
        """The objects of some rows' lists; what is wrong with a list is added to `broken`."""
        kind = lists.type
        if pa.types.is_null(kind):
            return iter(())
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if is_list and pa.types.is_struct(kind.value_type):
            return _of_structs(lists, broken)
        return self._of_json(_as_json(lists), broken)

    def rows(self, parents: pa.RecordBatch, objects: _Objects, kept: NDArray[np.bool_]) -> Iterator[ChildRows]:
        """Rows of the child table, of those objects whose row is kept; their parents are counted without the others."""
        new = np.cumsum(kept) - 1
        for start in range(0, objects.fields.num_rows, _ROWS):
            fields = objects.fields.slice(start, _ROWS)
            of, places = objects.places(np.arange(start, start + fields.num_rows))
            own = kept[of]
            if not own.all():
                fields, of, places = fields.filter(pa.array(own)), of[own], places[own]
            keys, flat = parents.select(list(self.declared.keys)).take(pa.array(of)), self._flat(fields)
            names = [*self.declared.keys.values(), self.declared.position, *flat.schema.names]
            rows = pa.record_batch([*keys.columns, pa.array(places), *flat.columns], names=names)
            yield ChildRows(self.name, rows, pa.array(new[of]))

    def _of_json(self, texts: pa.Array, broken: dict[int, str]) -> Iterator[_Objects]:
        """The objects of lists that are JSON."""
        lists: list[list[dict[str, Any]]] = []
        rows: list[int] = []
        size = 0
        with without_collector():
            for row, text in enumerate(texts.to_pylist()):
                found = _objects_in("null" if text is None else text)
                if isinstance(found, str):
                    broken[row] = found
                else:
                    lists.append(found)
                    rows.append(row)
                size += len(text or "")
                if size >= _TEXT or row == len(texts) - 1:
                    yield self._shaped(lists, rows)
                    lists, rows, size = [], [], 0

    def _shaped(self, lists: Sequence[list[dict[str, Any]]], rows: Sequence[int]) -> _Objects:
        fields = self._shape.records([each for one in lists for each in one])
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        return _Objects(fields, np.array(rows, np.int64), np.cumsum(lengths))

    def _flat(self, objects: pa.RecordBatch) -> pa.RecordBatch:
        """The objects' fields as columns; none of them may have the name of one that we add."""
        try:
            flat = self._contract.apply(objects)
        except RuleError as error:
            raise RuleError(
                f"children: {self.name}: {error.message}",
                hint="say `on_new_column: add`, or leave the list out of `children`: it is then loaded as JSON",
            ) from None
        for name in [self.declared.position, *self.declared.keys.values()]:
            if name in flat.schema.names:
                mend = "position: list_position" if name == self.declared.position else f"keys: {{...: parent_{name}}}"
                raise RuleError(
                    f"children: {self.name}: the objects have a field {name} of their own",
                    hint=f"give the column that we add another name: `{mend}`",
                )
        return flat


def _of_structs(lists: pa.Array, broken: dict[int, str]) -> Iterator[_Objects]:
    """The objects of lists that Arrow knows as such."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    structs = lists.flatten()
    objects = _Objects(pa.RecordBatch.from_struct_array(structs), np.arange(len(lists)), np.cumsum(lengths))
    if structs.null_count:
        rows, places = objects.places(pc.indices_nonzero(structs.is_null()).to_numpy().astype(np.int64))
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            broken.setdefault(row, _no_object(place, None))
    yield objects


def _as_json(values: pa.Array) -> pa.Array:
    """Values as the JSON that they are, or would be."""
    if isinstance(values.type, pa.JsonType):
        return values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type in {pa.string(), pa.large_string(), pa.string_view()}:
        return values
    return by_engine(values, "CASE WHEN value IS NOT NULL THEN to_json(value) END", "children")


def _objects_in(text: str) -> list[dict[str, Any]] | str:
    """The objects of a list that is JSON, none if it is null; or what is wrong with it."""
    try:
        value = parse(text.encode())
    except ValueError as error:
        return f"{text[:_SHOWN]!r} is not JSON: {error}"
    if not isinstance(value, list | None):
        return f"{text[:_SHOWN]!r} is not a list"
    wrong = (_no_object(place, each) for place, each in enumerate(value or (), 1) if not isinstance(each, dict))
    return next(wrong, value or [])


def _no_object(place: int, value: object) -> str:
    return f"item {place} of the list is {(dump(value) or 'null')[:_SHOWN]}, not an object"
