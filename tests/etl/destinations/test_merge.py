"""Merge: what is inserted, updated and left alone, by the database's own counts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DestinationError
from etl.stream import Loaded
from tests.etl.destinations.backends import Backend, load, rows


def test_rows_are_inserted_updated_or_left_as_they_are(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])
    load(destination, rows(id=[1, 2, 3], name=["a", "b", None]))

    loaded = load(destination, rows(id=[1, 2, 3, 4], name=["a", "B", None, "d"]), run_id="run-2")

    assert loaded == Loaded(inserted=1, updated=1, deduplicated=2)
    assert database.rows() == [{"id": 1, "name": "a"}, {"id": 2, "name": "B"}, {"id": 3}, {"id": 4, "name": "d"}]


def test_the_last_row_of_a_key_wins_within_a_run(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])

    loaded = load(destination, rows(id=[1, 1, 2], name=["a", "b", "x"]), rows(id=[1], name=["c"]))

    assert loaded == Loaded(inserted=2, deduplicated=2)
    assert database.rows() == [{"id": 1, "name": "c"}, {"id": 2, "name": "x"}]


def test_a_value_becomes_null_and_a_null_becomes_a_value(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])
    load(destination, rows(id=[1, 2], name=["a", None]))

    assert load(destination, rows(id=[1, 2], name=[None, "b"]), run_id="run-2") == Loaded(inserted=0, updated=2)

    assert database.rows() == [{"id": 1}, {"id": 2, "name": "b"}]


def test_a_key_may_have_several_columns(database: Backend) -> None:
    destination = database.destination("merge", key=["shop", "id"])
    load(destination, rows(shop=["a", "b"], id=[1, 1], n=[1, 2]))

    loaded = load(destination, rows(shop=["b", "b", "b"], id=[1, 2, 2], n=[3, 4, 5]), run_id="run-2")

    assert loaded == Loaded(inserted=1, updated=1, deduplicated=1)
    assert [tuple(row.values()) for row in database.rows(order="shop, id")] == [("a", 1, 1), ("b", 1, 3), ("b", 2, 5)]


def test_a_table_may_be_nothing_but_its_key(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])

    assert load(destination, rows(id=[1, 2])) == Loaded(inserted=2)
    assert load(destination, rows(id=[2, 3]), run_id="run-2") == Loaded(inserted=1, deduplicated=1)


def test_columns_that_the_rows_lack_stay_as_they_are(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])
    load(destination, rows(id=[1], name=["a"], note=["kept"]))

    load(destination, rows(id=[1], name=["b"]), run_id="run-2")

    assert database.rows() == [{"id": 1, "name": "b", "note": "kept"}]


def test_the_primary_key_is_made_from_the_key(database: Backend) -> None:
    load(database.destination("merge", key=["id"]), rows(id=[1]))

    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        database.query("INSERT INTO orders VALUES (1)")


def test_merging_works_without_a_primary_key_in_the_table(database: Backend) -> None:
    database.query("CREATE TABLE orders (id BIGINT, name TEXT)")
    database.query("INSERT INTO orders VALUES (1, 'a')")

    loaded = load(database.destination("merge", key=["id"]), rows(id=[1, 2], name=["b", "c"]))

    assert loaded == Loaded(inserted=1, updated=1)


def test_a_key_that_the_table_has_twice_is_an_error_that_changes_nothing(database: Backend) -> None:
    database.query("CREATE TABLE orders (id BIGINT, name TEXT)")
    database.query("INSERT INTO orders VALUES (1, 'a'), (1, 'b')")

    with pytest.raises(DestinationError, match="several rows with the same id"):
        load(database.destination("merge", key=["id"]), rows(id=[1], name=["c"]))

    assert [row["name"] for row in database.rows(order="name")] == ["a", "b"]


def test_a_null_in_the_key_names_the_column_and_the_way_out(database: Backend) -> None:
    with pytest.raises(DestinationError) as error:
        load(database.destination("merge", key=["id"]), rows(id=[1, None], name=["a", "b"]))

    assert "column id of the key is NULL in 1 rows" in error.value.message
    assert error.value.hint == "set such rows aside: `validate: {id: {required: true}}`"


def test_a_key_column_that_the_rows_lack_is_named(database: Backend) -> None:
    with pytest.raises(DestinationError, match="the rows have no column id"):
        load(database.destination("merge", key=["id"]), rows(name=["a"]))


def test_a_batch_of_nothing_merges_nothing(database: Backend) -> None:
    destination = database.destination("merge", key=["id"])

    loaded = load(destination, pa.record_batch({}), rows(id=[1]), rows(id=pa.array([], pa.int64()), n=[]))

    assert loaded == Loaded(inserted=1)


@pytest.mark.parametrize("database", ["duckdb", "sqlite"], indirect=True)
def test_two_names_that_the_database_takes_for_one_are_refused(database: Backend) -> None:
    with pytest.raises(DestinationError, match="Name and name are one column here"):
        load(database.destination(), rows(id=[1], Name=["a"], name=["b"]))


def test_a_key_that_is_there_already_is_an_error_for_append(database: Backend) -> None:
    destination = database.destination("append", key=["id"])
    load(destination, rows(id=[1]))

    with pytest.raises(DestinationError) as error:
        load(destination, rows(id=[2, 1]), run_id="run-2")

    assert "use `write: merge`" in str(error.value.hint)
    assert database.rows() == [{"id": 1}]


def test_only_a_version_that_is_not_older_updates(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="v")
    load(destination, rows(id=[1, 2, 3, 4], v=[5, 5, 5, None], name=["a", "b", "c", "d"]))

    loaded = load(destination, rows(id=[1, 2, 3, 4], v=[4, 5, 6, 1], name=["A", "B", "C", "D"]), run_id="run-2")

    assert loaded == Loaded(inserted=0, updated=3, deduplicated=1)
    assert [row["name"] for row in database.rows()] == ["a", "B", "C", "D"]


def test_a_version_of_null_is_the_oldest(database: Backend) -> None:
    destination = database.destination("merge", key=["id"], version="v")
    load(destination, rows(id=[1], v=[1], name=["a"]))

    loaded = load(
        destination, rows(id=[1, 2, 2], v=pa.array([None, 1, None], pa.int64()), name=["b", "c", "d"]), run_id="2"
    )

    assert loaded == Loaded(inserted=1, deduplicated=2)
    assert [row["name"] for row in database.rows()] == ["a", "c"]


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (Decimal("9.50"), Decimal("10.25")),
        (Decimal("-10.00"), Decimal("-9.00")),
        (datetime(2024, 1, 1, 23, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("a", "b"),
    ],
)
def test_the_highest_version_of_a_run_wins(database: Backend, lower: object, higher: object) -> None:
    destination = database.destination("merge", key=["id"], version="v")
    versions = pa.array([higher, lower, lower])

    assert load(destination, rows(id=[1, 1, 2], v=versions, name=["new", "old", "x"])) == Loaded(2, deduplicated=1)
    assert load(destination, rows(id=[1], v=versions[1:2], name=["old"]), run_id="2") == Loaded(0, deduplicated=1)

    assert [row["name"] for row in database.rows()] == ["new", "x"]


def test_the_last_of_equal_versions_wins(database: Backend) -> None:
    load(database.destination("merge", key=["id"], version="v"), rows(id=[1, 1], v=[1, 1], name=["a", "b"]))

    assert database.rows() == [{"id": 1, "v": 1, "name": "b"}]


def test_a_column_named_like_the_databases_own_row_id_is_refused(database: Backend) -> None:
    name = {"duckdb": "rowid", "sqlite": "_rowid_", "postgres": "ctid", "mariadb": "_pivotal_row"}[database.kind]

    with pytest.raises(DestinationError, match=name):
        load(database.destination("merge", key=["id"]), pa.record_batch({"id": [1], name: [1]}))


_KEYS = st.integers(0, 5)
_ROWS = st.lists(st.tuples(_KEYS, st.none() | st.integers(0, 3), st.none() | st.sampled_from("abc")), max_size=12)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.lists(_ROWS, max_size=3), min_size=1, max_size=3), versioned=st.booleans())
def test_any_runs_end_as_a_row_by_row_merge_does(
    database: Backend, runs: list[list[list[tuple[int, int | None, str | None]]]], versioned: bool
) -> None:
    if database.has():
        database.query("DROP TABLE orders")
    destination = database.destination("merge", key=["id"], **({"version": "v"} if versioned else {}))
    expected: dict[int, tuple[int | None, str | None]] = {}
    for number, batches in enumerate(runs):
        before = dict(expected)
        for row in (row for batch in batches for row in batch):
            _merge_one(expected, row, versioned=versioned)

        loaded = load(destination, *map(_batch, batches), run_id=f"run-{number}")

        inserted = len(expected.keys() - before.keys())
        assert loaded.inserted == inserted
        assert loaded.inserted + loaded.updated + loaded.deduplicated == sum(map(len, batches))
        changed = sum(expected[key] != value for key, value in before.items())
        assert loaded.updated >= changed if versioned else loaded.updated == changed
    if expected:
        assert {row["id"]: (row.get("v"), row.get("name")) for row in database.rows()} == expected


def _batch(batch: list[tuple[int, int | None, str | None]]) -> pa.RecordBatch:
    ids, versions, names = zip(*batch, strict=True) if batch else ((), (), ())
    return rows(id=pa.array(ids, pa.int64()), v=pa.array(versions, pa.int64()), name=pa.array(names, pa.string()))


def _merge_one(
    table: dict[int, tuple[int | None, str | None]], row: tuple[int, int | None, str | None], *, versioned: bool
) -> None:
    key, version, name = row
    stored = table.get(key)
    if stored is not None and versioned and stored[0] is not None and (version is None or version < stored[0]):
        return
    table[key] = (version, name)
