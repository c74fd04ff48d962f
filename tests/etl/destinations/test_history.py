"""Every version of a row: when it was valid, and which one is current."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DestinationError
from etl.stream import Loaded
from tests.etl.destinations.backends import Backend, load, rows


def _day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)


def _moment(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _versions(database: Backend) -> list[tuple[Any, ...]]:
    """id, n, from, to, current; days of January as numbers."""
    found = database.rows(order="id, valid_from")
    return [
        (row["id"], row.get("n"), _moment(row["valid_from"]), _moment(row.get("valid_to")), bool(row["is_current"]))
        for row in found
    ]


def test_a_row_that_changes_closes_the_current_one_and_begins_a_new_one(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], history=True)
    before = datetime.now(UTC)
    assert load(destination, rows(id=[1, 2], n=[10, 20])) == Loaded(inserted=2)

    loaded = load(destination, rows(id=[1, 2, 3], n=[11, 20, 30]), run_id="run-2")

    assert loaded == Loaded(inserted=1, updated=1, deduplicated=1)
    (_, _, start, end, _), *rest = _versions(database)
    assert before <= start < end <= datetime.now(UTC)
    assert [(id_, n, begin == end, to, current) for id_, n, begin, to, current in rest] == [
        (1, 11, True, None, True),
        (2, 20, False, None, True),
        (3, 30, True, None, True),
    ]


def test_the_same_rows_again_touch_nothing(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], history=True)
    load(destination, rows(id=[1, 2], n=[10, None]))
    before = _versions(database)

    assert load(destination, rows(id=[1, 2], n=[10, None]), run_id="run-2") == Loaded(inserted=0, deduplicated=2)

    assert _versions(database) == before


def test_with_a_version_rows_are_valid_from_it(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="at", history=True)
    load(destination, rows(id=[1, 2], n=[10, 20], at=[_day(1), _day(1)]))

    loaded = load(destination, rows(id=[1, 1, 2], n=[11, 12, 21], at=[_day(2), _day(3), _day(2)]), run_id="run-2")

    assert loaded == Loaded(inserted=0, updated=2, deduplicated=1)
    assert _versions(database) == [
        (1, 10, _day(1), _day(3), False),
        (1, 12, _day(3), None, True),
        (2, 20, _day(1), _day(2), False),
        (2, 21, _day(2), None, True),
    ]


def test_a_late_row_is_left_out_and_one_of_the_same_version_corrects(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="at", history=True)
    load(destination, rows(id=[1, 2], n=[10, 20], at=[_day(5), _day(5)]))

    loaded = load(destination, rows(id=[1, 2], n=[9, 22], at=[_day(4), _day(5)]), run_id="run-2")

    assert loaded == Loaded(inserted=0, updated=1, deduplicated=1)
    assert _versions(database) == [(1, 10, _day(5), None, True), (2, 22, _day(5), None, True)]


def test_a_row_without_a_version_begins_with_the_run(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="at", history=True)
    before = datetime.now(UTC)

    load(destination, rows(id=[1], at=pa.nulls(1, pa.timestamp("us", "UTC"))))

    ((_, _, start, _, _),) = _versions(database)
    assert before <= start <= datetime.now(UTC)


def test_a_version_may_have_no_zone(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="at", history=True, delete_missing=True)
    local = [_day(number).replace(tzinfo=None) for number in (1, 2)]
    load(destination, rows(id=[1, 2], n=[1, 1], at=[local[0]] * 2))

    assert load(destination, rows(id=[1], n=[2], at=local[1:]), run_id="2") == Loaded(0, updated=1, deleted=1)

    assert [row[2:4] for row in _versions(database)][:2] == [(local[0], local[1]), (local[1], None)]


def test_a_missing_row_is_closed_and_begins_again_when_it_comes_back(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="at", history=True, delete_missing=True)
    both, one = rows(id=[1, 2], n=[1, 2], at=[_day(1), _day(1)]), rows(id=[1], n=[1], at=[_day(1)])
    load(destination, both)

    assert load(destination, one, run_id="2") == Loaded(inserted=0, deduplicated=1, deleted=1)
    assert load(destination, one, run_id="3") == Loaded(inserted=0, deduplicated=1)
    assert load(destination, both, run_id="4") == Loaded(inserted=1, deduplicated=1)
    assert load(destination, both, run_id="5") == Loaded(inserted=0, deduplicated=2)

    _, (_, _, first, gone, _), (_, n, back, end, current) = _versions(database)
    assert first == _day(1)
    assert first < gone < back
    assert (n, end, current) == (2, None, True)


def test_a_run_that_brings_nothing_closes_nothing(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], history=True, delete_missing=True)
    load(destination, rows(id=[1]))

    with pytest.raises(DestinationError, match="no row came"):
        load(destination, run_id="run-2")


def test_a_version_that_is_no_timestamp_is_refused_with_the_way_out(database: Backend) -> None:
    with pytest.raises(DestinationError, match=r"begin at their `version`, but v is int64") as error:
        load(database.destination("merge", key=["id"], version="v", history=True), rows(id=[1], v=[1]))

    assert "convert: {v: timestamptz}" in str(error.value.hint)


def test_a_table_without_a_history_cannot_get_one(database: Backend) -> None:
    load(database.destination("merge", key=["id"]), rows(id=[1]))

    with pytest.raises(DestinationError, match="the table keeps no history"):
        load(database.destination("merge", key=["id"], history=True), rows(id=[1]))


def test_columns_of_the_source_are_not_those_of_the_history(database: Backend) -> None:
    with pytest.raises(DestinationError, match="the rows have a column is_current of their own"):
        load(database.destination("merge", key=["id"], history=True), rows(id=[1], is_current=[True]))


_ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2)), max_size=8)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(_ROWS, min_size=1, max_size=4))
def test_any_runs_leave_a_history_without_gaps_whose_end_is_the_newest(
    database: Backend, runs: list[list[tuple[int, int, int]]]
) -> None:
    if database.has():
        database.query("DROP TABLE orders")
    destination = database.destination("merge", key=["id"], version="at", history=True)
    newest: dict[int, tuple[int, int]] = {}
    for number, run in enumerate(runs):
        for id_, day, n in run:
            if id_ not in newest or day >= newest[id_][0]:
                newest[id_] = (day, n)
        ids, days, ns = zip(*run, strict=True) if run else ((), (), ())
        moments = pa.array([_day(day) for day in days], pa.timestamp("us", "UTC"))

        load(
            destination, rows(id=pa.array(ids, pa.int64()), at=moments, n=pa.array(ns, pa.int64())), run_id=str(number)
        )

    if newest:
        found = _versions(database)
        current = {id_: (start.day, n) for id_, n, start, end, is_current in found if is_current and end is None}
        assert current == newest
        for one, next_ in pairwise(found):
            assert one[3] == next_[2] if one[0] == next_[0] else one[4], found
