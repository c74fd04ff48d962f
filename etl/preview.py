"""What a run would do with its first rows. Nothing is written, and no cursor moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from etl.children import ChildTables
from etl.contract import Contract
from etl.destinations import open_destination
from etl.pipeline import DatabaseDestination, Pipeline
from etl.rules import Rules
from etl.run import rules_of
from etl.shown import shown
from etl.sources import open_source
from etl.stream import Batch, Broken, Destination, Tombstones
from etl.tombstones import Deletions

Outcome = Literal["inserted", "updated", "deleted", "filtered", "broken"]


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A row as it was read, beside what the rules make of it.

    Args:
        source: The row as it was read.
        outcome: What would become of it. `updated`: the destination has a row with this key. `deleted`: it is a
            tombstone, and the row of its key goes, if there is one.
        result: The row as it would be loaded, the key of the row that goes; None if it is filtered or broken.
        children: Child table -> how many rows it would get from it.
        broken: The rules that it breaks.
    """

    source: Mapping[str, object]
    outcome: Outcome
    result: Mapping[str, object] | None = None
    children: Mapping[str, int] = field(default_factory=dict)
    broken: Sequence[Broken] = ()


def preview(pipeline: Pipeline, limit: int, *, full_refresh: bool = False) -> list[PreviewRow]:
    """What a run would make of its first rows.

    Args:
        pipeline: The pipeline.
        limit: How many rows to read at most.
        full_refresh: Start at the beginning, not where the last run stopped.

    Raises:
        PivotalError: The source or the rules failed, or the destination cannot be read.
    """
    destination = open_destination(pipeline)
    state, contract = destination.state(), Contract(pipeline.transform, destination)
    children = ChildTables(pipeline.transform, destination)
    rows: list[PreviewRow] = []
    good: dict[int, pa.RecordBatch] = {}
    with (
        closing(open_source(pipeline).open(None if full_refresh else state)) as extraction,
        closing(rules_of(pipeline)) as rules,
        closing(Deletions(pipeline)) as deletions,
    ):
        for batch in extraction:
            rows += [PreviewRow(bad.row, "broken", broken=bad.broken) for bad in batch.bad]
            for one in _singly(batch, limit - len(rows)):
                row, loaded = _judged(one, rules, contract, children)
                good |= {len(rows): loaded} if loaded.num_rows else {}
                rows.append(row)
            rows += _deleting(batch.tombstones, deletions) if batch.tombstones else []
            if len(rows) >= limit:
                break
    for place in _there(pipeline, destination, good):
        rows[place] = replace(rows[place], outcome="updated")
    return rows[:limit]


def _singly(batch: Batch, limit: int) -> Iterator[Batch]:
    for index in range(min(batch.rows.num_rows, limit)):
        yield Batch(batch.rows.slice(index, 1), lambda _, index=index: batch.origin(index))  # type: ignore[misc]


def _judged(one: Batch, rules: Rules, contract: Contract, children: ChildTables) -> tuple[PreviewRow, pa.RecordBatch]:
    """What becomes of a row, and the row as it would be loaded, if it would."""
    done = rules.apply(one)
    (source,) = shown(one.rows)
    if done.bad:
        return PreviewRow(source, "broken", broken=done.bad[0].broken), done.good
    if done.filtered:
        return PreviewRow(source, "filtered"), done.good
    parted = children.part(contract.apply(done.good))
    if parted.broken:
        return PreviewRow(source, "broken", broken=parted.broken[0]), parted.rows
    counts: Counter[str] = Counter()
    for rows in parted.children:
        counts[rows.table] += rows.rows.num_rows
    return PreviewRow(source, "inserted", shown(parted.rows)[0], counts), parted.rows


def _deleting(tombstones: Tombstones, deletions: Deletions) -> list[PreviewRow]:
    """What becomes of tombstones: those that delete, that are broken, and that are filtered out."""
    gone = deletions.apply(tombstones, np.array([], np.int64))
    rows = [
        PreviewRow(tombstones.bad(int(place), ()).row, "deleted", key)
        for place, key in zip(gone.places, shown(gone.keys), strict=True)
    ]
    rows += [PreviewRow(bad.row, "broken", broken=bad.broken) for bad in gone.bad]
    return rows + [PreviewRow({}, "filtered")] * gone.filtered


def _there(pipeline: Pipeline, destination: Destination, good: Mapping[int, pa.RecordBatch]) -> list[int]:
    """Places of rows that a merge would find in the table, by their keys."""
    declared = pipeline.destination
    if not isinstance(declared, DatabaseDestination) or declared.write != "merge" or destination.columns() is None:
        return []
    from etl.destinations.warehouse import open_warehouse
    from etl.loader import resolve

    keyed = {place: rows.select(declared.key) for place, rows in good.items()}
    whole = {place: key for place, key in keyed.items() if not any(column.null_count for column in key.columns)}
    if not whole:
        return []
    places = list(whole)
    found = open_warehouse(resolve(declared.connection)).find(declared.table, pa.concat_batches(list(whole.values())))
    return [places[each] for each in found]
