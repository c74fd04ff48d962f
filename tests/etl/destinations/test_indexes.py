"""What a table has besides its rows: indexes, and comments for those who read it."""

from __future__ import annotations

import pytest

from errors import DestinationError
from tests.etl.destinations.backends import Backend, load, rows

_INDEXES = {
    "duckdb": "SELECT index_name AS name FROM duckdb_indexes() WHERE table_name = 'orders'",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'orders' AND sql IS NOT NULL",
    "postgres": "SELECT indexname AS name FROM pg_indexes WHERE tablename = 'orders' AND indexname LIKE '%idx'",
    "mariadb": "SELECT DISTINCT index_name AS name FROM information_schema.statistics "
    "WHERE table_schema = database() AND table_name = 'orders' AND index_name LIKE '%idx'",
}
_COMMENTS = {
    "duckdb": "SELECT comment FROM duckdb_tables() UNION ALL "
    "SELECT comment FROM duckdb_columns() WHERE table_name = 'orders' ORDER BY 1",
    "postgres": "SELECT description AS comment FROM pg_description WHERE objoid = 'orders'::regclass ORDER BY 1",
    "mariadb": "SELECT table_comment AS comment FROM information_schema.tables WHERE table_schema = database() "
    "AND table_name = 'orders' UNION ALL SELECT column_comment FROM information_schema.columns "
    "WHERE table_schema = database() AND table_name = 'orders' ORDER BY 1",
}


def _names(database: Backend) -> list[str]:
    return sorted(row["name"] for row in database.query(_INDEXES[database.kind]))


@pytest.mark.parametrize("write", ["append", "replace", "merge"])
def test_indexes_are_made_once(database: Backend, write: str) -> None:
    destination = database.destination(write, key=["id"], indexes=["region", ["region", "day"]])  # type: ignore[arg-type]

    for number in range(2):
        load(destination, rows(id=[number], region=["eu"], day=[1]), run_id=f"run-{number}")

    assert _names(database) == ["orders_region_day_idx", "orders_region_idx"]


def test_a_table_that_is_there_gets_its_indexes(database: Backend) -> None:
    load(database.destination("merge", key=["id"]), rows(id=[1], n=[1]))

    load(database.destination("merge", key=["id"], indexes=["n", "later"]), rows(id=[1], n=[2], later=[None]))
    assert _names(database) == ["orders_n_idx"]
    load(database.destination("merge", key=["id"], indexes=["n", "later"]), rows(id=[1], later=["now"]))

    assert _names(database) == ["orders_later_idx", "orders_n_idx"]


def test_a_name_that_is_too_long_is_made_short(database: Backend) -> None:
    long = "a_column_with_a_name_of_nearly_sixty_characters_but_not_more"
    destination = database.destination(indexes=[long])

    for number in range(2):
        load(destination, rows(id=[1], **{long: [1]}), run_id=f"run-{number}")

    (name,) = _names(database)
    assert name.startswith("orders_")
    assert len(name) < 60


@pytest.mark.parametrize("more", [{"indexes": ["regoin"]}, {"comments": {"regoin": "Where"}}])
def test_a_column_that_is_not_there_is_named(database: Backend, more: dict[str, object]) -> None:
    with pytest.raises(
        DestinationError, match="there is no column regoin, which `indexes` or `comments` names"
    ) as error:
        load(database.destination(**more), rows(id=[1], region=["eu"]))  # type: ignore[arg-type]

    assert error.value.hint == "there are: id, region"


@pytest.mark.parametrize("database", ["duckdb", "postgres", "mariadb"], indirect=True)
def test_a_table_and_its_columns_say_what_they_are(database: Backend) -> None:
    destination = database.destination(comments={"id": "The order's number", "note": 'What\'s "special"'})

    load(destination, rows(id=[1], note=[None]), rows(id=[2], note=["x"]))

    found = [row["comment"] for row in database.query(_COMMENTS[database.kind]) if row["comment"]]
    assert found == ["A test.", "The order's number", 'What\'s "special"']
