"""What stands under the destination's name is a view, or has a trigger that raises."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from errors import DestinationError
from tests.etl.destinations.backends import Backend, load, make_backend, rows

WRITES: list[Literal["append", "replace", "merge"]] = ["append", "replace", "merge"]


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def triggered(request: pytest.FixtureRequest) -> Backend:
    """The databases that have triggers, with one that lets no "bad" into `orders`."""
    database = make_backend(request.param, request)
    database.query("CREATE TABLE orders (id BIGINT PRIMARY KEY, name VARCHAR(20))")
    database.query("INSERT INTO orders VALUES (1, 'old')")
    for statement in _TRIGGER[database.kind]:
        database.query(statement)
    return database


@pytest.mark.parametrize("write", WRITES)
def test_a_view_is_refused_by_name_and_what_is_behind_it_stays(
    write: Literal["append", "replace", "merge"], database: Backend
) -> None:
    database.query("CREATE TABLE behind (id BIGINT PRIMARY KEY, name VARCHAR(20))")
    database.query("INSERT INTO behind VALUES (1, 'old')")
    database.query("CREATE VIEW orders AS SELECT * FROM behind")
    destination = database.destination(write, **_key(write))

    with pytest.raises(DestinationError, match=r"^orders is a view, and rows are loaded into tables") as error:
        load(destination, rows(id=[1, 2], name=["new", "new"]), state={"cursor": 2})

    assert "the table behind it" in str(error.value.hint)
    assert database.rows("behind") == [{"id": 1, "name": "old"}]
    assert destination.state() is None


def test_a_materialized_view_is_a_view(request: pytest.FixtureRequest) -> None:
    postgres = make_backend("postgres", request)
    postgres.query("CREATE MATERIALIZED VIEW orders AS SELECT 1::bigint AS id")

    with pytest.raises(DestinationError, match="orders is a view"):
        load(postgres.destination(), rows(id=[2]))


def test_a_view_whose_rows_go_elsewhere_by_triggers_is_a_view(request: pytest.FixtureRequest) -> None:
    sqlite = make_backend("sqlite", request)
    sqlite.query("CREATE TABLE behind (id BIGINT PRIMARY KEY)")
    sqlite.query("CREATE VIEW orders AS SELECT * FROM behind")
    sqlite.query("CREATE TRIGGER t INSTEAD OF INSERT ON orders BEGIN INSERT INTO behind VALUES (new.id); END")

    with pytest.raises(DestinationError, match="orders is a view"):
        load(sqlite.destination("replace"), rows(id=[2]))


@pytest.mark.parametrize("write", WRITES)
def test_a_trigger_that_raises_is_told_in_its_words_and_nothing_is_published(
    write: Literal["append", "replace", "merge"], triggered: Backend
) -> None:
    destination = triggered.destination(write, **_key(write))

    with pytest.raises(DestinationError, match=": no bad orders here") as error:
        load(destination, rows(id=[2, 3], name=["good", "bad"]), state={"cursor": 3})

    assert "a trigger of the table says this" in str(error.value.hint)
    assert not error.value.retryable
    assert triggered.rows() == [{"id": 1, "name": "old"}]
    assert destination.state() is None


def _key(write: str) -> dict[str, Any]:
    return {"key": ["id"]} if write == "merge" else {}


_TRIGGER = {
    "sqlite": [
        """CREATE TRIGGER refuse BEFORE INSERT ON orders WHEN new.name = 'bad'
           BEGIN SELECT RAISE(ABORT, 'no bad orders here'); END"""
    ],
    "postgres": [
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
           AS 'BEGIN RAISE EXCEPTION ''no bad orders here''; END'""",
        """CREATE TRIGGER refuse BEFORE INSERT ON orders
           FOR EACH ROW WHEN (new.name = 'bad') EXECUTE FUNCTION refuse()""",
    ],
    "mariadb": [
        """CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW
           IF new.name = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no bad orders here'; END IF"""
    ],
}
