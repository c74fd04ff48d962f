"""Tombstones: keys whose rows a merge deletes, by the order in which they came among the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DestinationError
from etl.stream import DeletingLoad, Destination, Loaded
from tests.etl.destinations.backends import Backend, load, rows

Change = tuple[int, int | None]
"""A key, and its row's value; None is a tombstone."""

MODES: dict[str, dict[str, Any]] = {
    "rows go": {},
    "rows go, whatever their version": {"version": "n"},
    "rows are marked": {"soft_delete": "gone_at"},
    "rows are marked, whatever their version": {"soft_delete": "gone_at", "version": "n"},
    "rows are closed": {"history": True},
}


def merging(database: Backend, *key: str, **how: Any) -> Destination:
    """A destination whose tombstones delete; in a file, the source would have to say so."""
    marks: dict[str, Any] = {"delete_missing": True} if "soft_delete" in how else {}
    destination = database.destination("merge", key=list(key or ["id"]), **how, **marks)
    destination._target = replace(destination._target, delete_missing=False)  # type: ignore[attr-defined]
    return destination


def apply(destination: Destination, *batches: Sequence[Change]) -> Loaded:
    """Loads changes in one run: of each batch the rows, then the tombstones among them."""
    with destination.begin("run") as running:
        for batch in batches:
            came = [(id_, n) for id_, n in batch if n is not None]
            if came:
                running.write(rows(id=[id_ for id_, _ in came], n=[n for _, n in came]))
            else:
                running.write(pa.record_batch({}))
            gone = [place for place, (_, n) in enumerate(batch) if n is None]
            keys = rows(id=pa.array([batch[place][0] for place in gone], pa.int64()))
            delete(running, keys, [sum(n is not None for _, n in batch[:place]) for place in gone])
        loaded = running.loaded()
        running.commit(None)
    return loaded


def delete(running: Any, keys: pa.RecordBatch, before: Sequence[int]) -> None:
    cast(DeletingLoad, running).delete(keys, pa.array(before, pa.int64()))


def there(database: Backend) -> dict[int, int]:
    """The rows that a reader takes for being there."""
    found = database.rows() if database.has() else []
    return {row["id"]: row["n"] for row in found if "gone_at" not in row and row.get("is_current", True)}


def test_the_last_of_a_key_decides_within_a_run_and_over_runs(database: Backend) -> None:
    destination = merging(database)
    assert apply(destination, [(1, 10), (2, 20), (3, 30)]) == Loaded(inserted=3)

    loaded = apply(destination, [(1, 11), (1, None), (2, None), (4, 40)], [(2, 21), (4, None), (9, None), (9, None)])

    assert loaded == Loaded(inserted=1, deduplicated=2, tombstones=5, deleted=2)
    assert there(database) == {2: 21, 3: 30}


def test_tombstones_alone_delete_and_find_nothing_before_there_is_a_table(database: Backend) -> None:
    destination = merging(database)
    assert apply(destination, [(1, None)]) == Loaded(inserted=0, tombstones=1)
    assert database.untouched()

    apply(destination, [(5, None)], [(1, 10), (5, 50)])

    assert apply(destination, [(1, None), (2, None)]) == Loaded(inserted=0, tombstones=2, deleted=1)
    assert there(database) == {5: 50}


def test_a_row_that_comes_again_is_a_new_one(database: Backend) -> None:
    destination = merging(database)
    load(destination, rows(id=[1], n=[1], note=["old"]))

    apply(destination, [(1, None), (1, 2)])

    assert database.rows() == [{"id": 1, "n": 2}]


def test_a_key_may_have_several_columns_of_any_name(database: Backend) -> None:
    destination = merging(database, "place", "k0")
    load(destination, rows(place=["a", "a", "b"], k0=[1, 2, 1], id=[1, 2, 3]))

    with destination.begin("2") as running:
        running.write(rows(place=["a", "b"], k0=[2, 2], id=[4, 5]))
        delete(running, rows(place=["a", "a", "b"], k0=[1, 2, 2]), [0, 0, 2])
        assert running.loaded() == Loaded(inserted=1, deduplicated=1, tombstones=3, deleted=2)
        running.commit(None)

    assert [row["id"] for row in database.rows()] == [3, 4]


def test_integers_of_a_key_may_be_wider_than_those_of_the_table(database: Backend) -> None:
    destination = merging(database)
    load(destination, rows(id=pa.array([1, 2], pa.int16()), n=[1, 2]))

    assert apply(destination, [(2, None)]).deleted == 1
    assert there(database) == {1: 1}


def test_a_key_of_another_type_than_the_tables_is_told_with_the_way_out(database: Backend) -> None:
    destination = merging(database)
    load(destination, rows(id=[1], n=[1]))

    with pytest.raises(DestinationError, match="column id is ") as told:
        _delete_text(destination)

    assert "convert: {id: bigint}" in str(told.value.hint)


def test_rows_may_be_marked_instead_and_come_back_with_any_version(database: Backend) -> None:
    destination = merging(database, **MODES["rows are marked, whatever their version"])
    apply(destination, [(1, 5), (2, 5)])

    assert apply(destination, [(1, None), (2, None), (2, 3)]) == Loaded(inserted=0, updated=1, tombstones=2, deleted=2)
    marked, back = database.rows()
    assert ("gone_at" in marked, marked["n"]) == (True, 5)
    assert back == {"id": 2, "n": 3}
    assert apply(destination, [(1, None)]) == Loaded(inserted=0, tombstones=1)
    assert apply(destination, [(1, 4)]) == Loaded(inserted=0, updated=1)

    assert database.rows() == [{"id": 1, "n": 4}, {"id": 2, "n": 3}]


def test_a_table_may_start_to_mark_with_its_first_tombstone(database: Backend) -> None:
    load(database.destination("merge", key=["id"]), rows(id=[1, 2], n=[1, 2]))

    assert apply(merging(database, soft_delete="gone_at"), [(1, None)]).deleted == 1

    assert there(database) == {2: 2}


def test_a_history_closes_the_row_and_begins_a_new_one_when_it_comes_again(database: Backend) -> None:
    destination = merging(database, history=True)
    apply(destination, [(1, 1), (2, 2)])

    assert apply(destination, [(1, None), (2, None), (2, 2)]) == Loaded(inserted=1, tombstones=2, deleted=2)

    gone, old, new = database.rows(order="id, valid_from")
    assert (bool(gone["is_current"]), bool(old["is_current"]), bool(new["is_current"])) == (False, False, True)
    assert gone["valid_from"] < gone["valid_to"] == old["valid_to"] == new["valid_from"]
    assert apply(destination, [(1, None)]) == Loaded(inserted=0, tombstones=1)


def test_a_history_with_versions_ends_when_the_tombstone_was_read(database: Backend) -> None:
    destination = merging(database, version="at", history=True)
    load(destination, rows(id=[1], at=[datetime(2024, 1, 1, tzinfo=UTC)]))
    before = datetime.now(UTC)

    with destination.begin("2") as running:
        delete(running, rows(id=[1]), [0])
        running.write(rows(id=[1], at=[datetime(2024, 1, 2, tzinfo=UTC)]))
        running.loaded()
        running.commit(None)

    first, second = database.rows(order="valid_from")
    end = first["valid_to"] if database.kind != "sqlite" else datetime.fromisoformat(first["valid_to"])
    assert end >= before
    assert second["valid_from"] == first["valid_to"]


def _delete_text(destination: Destination) -> None:
    with destination.begin("2") as running:
        delete(running, rows(id=["1"]), [0])
        running.loaded()


_BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(1, 3)), max_size=8), max_size=3)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(_BATCHES, min_size=1, max_size=3), mode=st.sampled_from(list(MODES)))
def test_any_changes_in_any_batches_and_runs_end_as_a_dictionary_does(
    database: Backend, runs: list[list[list[Change]]], mode: str
) -> None:
    if database.has():
        database.query("DROP TABLE orders")
    destination, expected = merging(database, **MODES[mode]), dict[int, int]()
    for batches in runs:
        before, gone = set(expected), [id_ for batch in batches for id_, n in batch if n is None]
        for id_, n in (change for batch in batches for change in batch):
            if n is None:
                expected.pop(id_, None)
            elif "version" not in mode or n >= expected.get(id_, 0):
                expected[id_] = n

        loaded = apply(destination, *batches)

        assert (loaded.tombstones, loaded.deleted) == (len(gone), len(before & set(gone)))
        assert loaded.inserted + loaded.updated + loaded.deduplicated == sum(map(len, batches)) - len(gone)
    assert there(database) == expected
