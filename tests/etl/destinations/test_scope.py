"""A run about a part of a table leaves the rest alone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from errors import DestinationError
from etl.destinations.warehouse import Scope, Target
from etl.stream import Loaded
from tests.etl.destinations.backends import Backend, load_table, rows

DAYS = [datetime(2024, 1, day, hour, tzinfo=UTC) for day, hour in [(1, 0), (1, 23), (2, 0), (2, 12), (3, 0)]]
LOCAL = [moment.replace(tzinfo=None) for moment in DAYS]


@pytest.mark.parametrize(
    ("values", "scope"),
    [
        (DAYS, Scope("at", date(2024, 1, 2), date(2024, 1, 3))),
        (DAYS, Scope("at", LOCAL[2], LOCAL[4])),
        (DAYS, Scope("at", DAYS[2], DAYS[4])),
        (LOCAL, Scope("at", "2024-01-02", "2024-01-03")),
        ([moment.date() for moment in DAYS], Scope("at", date(2024, 1, 2), date(2024, 1, 3))),
        ([1, 2, 3, 4, 5], Scope("at", 3, 5)),
        ([Decimal(n) for n in ("-5.00", "8.50", "9.00", "10.25", "11.00")], Scope("at", 9, 11)),
        (["a", "b", "m", "n", "z"], Scope("at", "m", "z")),
        (["a", "b", "m", "n", "z"], Scope("at", values=["m", "n"])),
        ([1, 2, 3, 4, 5], Scope("at", values=[3, 4])),
    ],
)
def test_replace_replaces_the_rows_of_its_scope_only(database: Backend, values: list[object], scope: Scope) -> None:
    load_table(database, Target("orders", "append"), rows(id=[1, 2, 3, 4, 5], at=values))

    loaded = load_table(database, Target("orders", "replace", scope=scope), rows(id=[7], at=values[2:3]))

    assert loaded == Loaded(inserted=1)
    assert [row["id"] for row in database.rows()] == [1, 2, 5, 7]


@pytest.mark.parametrize(
    ("scope", "left"), [(Scope("n", low=2), [1]), (Scope("n", high=2), [2, 3]), (Scope("n", values=[2]), [1, 3])]
)
def test_a_scope_without_rows_is_emptied(database: Backend, scope: Scope, left: list[int]) -> None:
    load_table(database, Target("orders", "append"), rows(id=[1, 2, 3], n=[1, 2, 3]))

    assert load_table(database, Target("orders", "replace", scope=scope)) == Loaded(inserted=0)

    assert [row["id"] for row in database.rows()] == left


@pytest.mark.parametrize("write", ["append", "replace", "merge"])
def test_rows_outside_of_the_scope_are_refused(database: Backend, write: str) -> None:
    target = Target("orders", write, ["id"], scope=Scope("n", 1, 3))  # type: ignore[arg-type]

    with pytest.raises(DestinationError) as error:
        load_table(database, target, rows(id=[1, 2, 3], n=[1, 3, None]))

    assert error.value.message == "orders: 2 rows are outside of n in [1, 3), the first with n 3"
    assert database.untouched()


def test_a_merge_takes_the_rows_of_its_scope(database: Backend) -> None:
    load_table(database, Target("orders", "append", ["id"]), rows(id=[1, 2], n=[1, 9]))

    loaded = load_table(database, Target("orders", "merge", ["id"], scope=Scope("n", 1, 3)), rows(id=[1, 3], n=[2, 2]))

    assert loaded == Loaded(inserted=1, updated=1)
    assert database.rows() == [{"id": 1, "n": 2}, {"id": 2, "n": 9}, {"id": 3, "n": 2}]


def test_a_scope_by_a_column_that_is_not_there_names_it(database: Backend) -> None:
    load_table(database, Target("orders", "append"), rows(id=[1]))
    target = Target("orders", "replace", scope=Scope("day", values=["x"]))

    with pytest.raises(DestinationError, match="the table has no column day"):
        load_table(database, target)
    with pytest.raises(DestinationError, match="the rows have no column day, which `partitions` names"):
        load_table(database, Target("new", "replace", scope=target.scope), rows(id=[1]))


def test_a_scope_that_cannot_be_compared_with_its_column_says_so(database: Backend) -> None:
    load_table(database, Target("orders", "append"), rows(id=[1], n=[1]))

    with pytest.raises(DestinationError, match="which cannot be compared with 'January'"):
        load_table(database, Target("orders", "replace", scope=Scope("n", "January")), rows(id=[1], n=[1]))
