"""What MariaDB asks for besides the contract."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from sqlalchemy.engine import make_url

from errors import DestinationError
from etl.destinations.mariadb import warehouse
from etl.stream import Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, load, make_backend, rows


@pytest.fixture
def mariadb(request: pytest.FixtureRequest) -> Backend:
    return make_backend("mariadb", request)


def test_keys_are_equal_only_if_they_are_the_same(mariadb: Backend) -> None:
    names = ["a", "A", "a ", "ä", "a\0", "\uff41"]
    destination = mariadb.destination("merge", key=["id"])

    assert load(destination, rows(id=names)) == Loaded(inserted=6)
    assert load(destination, rows(id=names), run_id="run-2") == Loaded(inserted=0, deduplicated=6)

    assert sorted(row["id"] for row in mariadb.rows()) == sorted(names)


def test_texts_that_differ_by_what_the_tables_collation_ignores_are_updated(mariadb: Backend) -> None:
    mariadb.query("CREATE TABLE orders (id INT PRIMARY KEY, name VARCHAR(9) COLLATE utf8mb4_general_ci)")
    destination = mariadb.destination("merge", key=["id"])

    def batch(name: str) -> pa.RecordBatch:
        return rows(id=pa.array([1], pa.int32()), name=[name])

    load(destination, batch("a"))

    assert load(destination, batch("A"), run_id="run-2").updated == 1
    assert load(destination, batch("A"), run_id="run-3").deduplicated == 1


def test_columns_of_other_makers_types_take_what_fits(mariadb: Backend) -> None:
    mariadb.query("""CREATE TABLE orders (id INT UNSIGNED PRIMARY KEY, mood ENUM('good', 'bad'), price DECIMAL(50, 2),
                                          code CHAR(3), at DATETIME, tiny TINYINT, clock TIME)""")

    load(
        mariadb.destination(),
        rows(
            id=[2**32 - 1],
            mood=["good"],
            price=pa.array([Decimal("1.25")], pa.decimal128(38, 2)),
            code=["abc"],
            at=pa.array([datetime(2024, 2, 29, 12)], pa.timestamp("s")),  # noqa: DTZ001  (without a zone)
        ),
    )

    found = mariadb.query("SELECT id, mood, price, code, at FROM orders")
    assert [tuple(row.values()) for row in found] == [
        (2**32 - 1, "good", Decimal("1.25"), "abc", datetime(2024, 2, 29, 12))  # noqa: DTZ001
    ]


@pytest.mark.parametrize(
    ("column", "value", "message", "hint"),
    [
        ("VARCHAR(3)", "long", "Data too long for column 'c'", "make the column wider"),
        ("VARCHAR(3)", "abc ", "Data truncated for column 'c'", "make the column wider"),
        ("TEXT NOT NULL", None, "Column 'c' cannot be null", "required: true"),
        ("VARCHAR(9) UNIQUE", "twice", "Duplicate entry 'twice'", "write: merge"),
        ("TEXT CHECK (c <> 'no')", "no", "CONSTRAINT `orders.c` failed", "say the same in `validate`"),
        ("ENUM('good')", "bad", "Data truncated for column 'c'", "make the column wider"),
        ("TEXT, d TEXT NOT NULL", "x", "Field 'd' doesn't have a default value", "bring the column"),
    ],
)
def test_what_the_server_refuses_or_would_change_is_an_error_with_a_hint(
    mariadb: Backend, column: str, value: str | None, message: str, hint: str | None
) -> None:
    mariadb.query(f"CREATE TABLE orders (id BIGINT, c {column})")

    with pytest.raises(DestinationError) as error:
        load(mariadb.destination(), rows(id=[1, 2], c=pa.array([value, value], pa.string())))

    assert message in error.value.message
    assert (hint is None) == (error.value.hint is None)
    assert hint is None or hint in str(error.value.hint)
    assert not error.value.retryable
    assert mariadb.rows() == []


def test_a_null_does_not_become_the_present_moment(mariadb: Backend) -> None:
    mariadb.query("CREATE TABLE orders (id BIGINT PRIMARY KEY, at TIMESTAMP(6) NOT NULL)")

    for write in ("append", "merge"):
        with pytest.raises(DestinationError, match="column at must have a value, and is NULL in 1 rows"):
            load(
                mariadb.destination(write, key=["id"]),
                rows(id=[1], at=pa.nulls(1, pa.timestamp("us", "UTC"))),
            )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_mariadb_cannot_keep_are_refused_by_name(mariadb: Backend, number: float) -> None:
    with pytest.raises(DestinationError, match="column n has NaN or an infinity"):
        load(mariadb.destination(), rows(id=[1, 2], n=[1.5, number]))


def test_a_moment_that_a_timestamp_does_not_reach_is_refused(mariadb: Backend) -> None:
    with pytest.raises(DestinationError, match="Incorrect datetime value: '2040-01-01") as error:
        load(mariadb.destination(), rows(id=[1], at=[datetime(2040, 1, 1, tzinfo=UTC)]))

    assert "from 1970 to 2038" in str(error.value.hint)


def test_a_uuid_that_mariadb_does_not_take_for_one_is_refused(mariadb: Backend) -> None:
    uuid = UUID("2f3e9786-a457-a917-352b-e67cdbd76923")
    values = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.bytes], pa.binary(16)))

    with pytest.raises(DestinationError, match="Incorrect uuid value: '2f3e9786-a457-a917-352b-e67cdbd76923'") as error:
        load(mariadb.destination(), rows(id=[1], u=values))

    assert "RFC 9562" in str(error.value.hint)


def test_a_text_that_is_too_long_for_a_key_is_refused(mariadb: Backend) -> None:
    with pytest.raises(DestinationError, match="Data too long for column 'id'"):
        load(mariadb.destination("merge", key=["id"]), rows(id=["x" * 256]))


def test_rows_of_any_size_come_in_as_long_as_the_server_takes_one(mariadb: Backend) -> None:
    sizes = [9_000_000, 9_000_000, 1, 9_000_000]

    load(mariadb.destination(), rows(id=[1, 2, 3, 4], text=["x" * size for size in sizes]))

    assert [row["size"] for row in mariadb.query("SELECT length(text) AS size FROM orders ORDER BY id")] == sizes
    with pytest.raises(DestinationError, match="a row of 17000") as error:
        load(mariadb.destination(), rows(id=[5], text=["x" * 17_000_000]), run_id="run-2")
    assert "max_allowed_packet" in str(error.value.hint)


def test_a_table_without_transactions_is_refused(mariadb: Backend) -> None:
    mariadb.query("CREATE TABLE orders (id BIGINT) ENGINE = MyISAM")

    with pytest.raises(DestinationError, match="is kept by MyISAM, which has no transactions") as error:
        load(mariadb.destination(), rows(id=[1]))

    assert str(error.value.hint).endswith("orders ENGINE = InnoDB")


def test_a_column_that_comes_after_rows_of_the_same_transaction_is_refused(mariadb: Backend) -> None:
    from etl.destinations.warehouse import Target

    target = Target("orders", "merge", ["id"])

    with mariadb.warehouse.transaction() as transaction:
        first, second = transaction.writer(target), transaction.writer(target)
        first.write(rows(id=[1], a=["x"]))
        first.finish()
        second.write(rows(id=[1], b=["x"]))
        with pytest.raises(DestinationError, match="cannot get a new column after its rows have changed"):
            second.finish()

    assert mariadb.rows() == []


def test_two_loads_into_one_table_take_turns(mariadb: Backend) -> None:
    destination = mariadb.destination("merge", key=["id"])
    load(destination, rows(id=[0], n=[0]))
    results: list[Loaded] = []
    batch = rows(id=[0, 1, 2], n=[1, 1, 1])
    thread = threading.Thread(target=lambda: results.append(load(destination, batch, run_id="other")))

    with destination.begin("run-2") as running:
        running.write(batch)
        running.loaded()
        thread.start()
        waiting = "SELECT count(*) AS n FROM information_schema.processlist WHERE state = 'User lock'"
        while not mariadb.query(waiting)[0]["n"]:
            pass
        running.commit(None)
    thread.join()

    assert results == [Loaded(inserted=0, deduplicated=3)]


def test_a_lock_that_another_holds_for_long_is_an_error_that_may_be_retried(
    mariadb: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = mariadb.destination("replace")
    load(destination, rows(id=[1]))
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "1")
    get_settings.cache_clear()

    with destination.begin("run-2") as running:
        running.write(rows(id=[2]))
        running.loaded()
        with pytest.raises(DestinationError, match="another load holds") as error:
            load(destination, rows(id=[3]), run_id="run-3")

    assert error.value.retryable
    assert mariadb.rows() == [{"id": 1}]


def test_a_missing_right_is_named(mariadb: Backend) -> None:
    load(mariadb.destination(), rows(id=[1]))
    address = make_url(mariadb.url)
    mariadb.query("CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'reader-secret'")
    mariadb.query(f"GRANT SELECT ON {address.database}.* TO reader@'%'")
    url = address.set(username="reader", password="reader-secret").render_as_string(hide_password=False)

    with pytest.raises(DestinationError) as error:
        load(Backend("mariadb", url, mariadb.query).destination(), rows(id=[2]), run_id="run-2")

    mariadb.query("DROP USER reader@'%'")
    assert "INSERT command denied to user 'reader'" in error.value.message
    assert "GRANT" in str(error.value.hint)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"password": "wr0ng-secret"}, "Access denied for user 'pivotal'", "the user or the password is wrong"),
        ({"port": 1}, "Can't connect", "is the server running"),
        ({"database": "nowhere"}, "Unknown database 'nowhere'", "create it"),
    ],
)
def test_a_database_that_cannot_be_reached_says_why_without_the_password(
    mariadb: Backend, change: dict[str, str | int], message: str, hint: str
) -> None:
    address = make_url(mariadb.url).set(**change)  # type: ignore[arg-type]

    with pytest.raises(DestinationError) as error:
        warehouse(address.render_as_string(hide_password=False)).state("orders")

    assert message in str(error.value)
    assert hint in str(error.value.hint)
    assert str(address.password) not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://user:pa/ss-secret@host/db",
        "mariadb+pymysql://user:pa:ss-secret@host:port-secret/db",
        "mariadb+pymysql://user:secret@host",
        "mariadb+pymysql://user:secret@host/db?unknown=secret",
    ],
)
def test_a_url_that_cannot_be_read_shows_nothing_of_the_password(url: str) -> None:
    with pytest.raises(DestinationError, match="the MariaDB URL cannot be read") as error:
        warehouse(url)

    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("mariadb+pymysql://user:secret@host:3307/db", "mariadb+pymysql://user@host:3307/db"),
        ("mysql://user:se%40cret@host/db?charset=utf8mb4", "mysql://user@host:3306/db"),
        ("mysql+pymysql:///db?unix_socket=/run/mysqld/mysqld.sock", "mysql+pymysql://localhost:3306/db"),
    ],
)
def test_a_label_shows_the_url_without_its_password(url: str, label: str) -> None:
    assert warehouse(url).label == label


def test_a_server_that_cuts_the_connection_is_an_error_that_may_be_retried(mariadb: Backend) -> None:
    with mariadb.destination().begin("run-1") as running:
        running.write(rows(id=[1]))
        running.loaded()
        for row in mariadb.query("SELECT id FROM information_schema.processlist WHERE id <> connection_id()"):
            mariadb.query(f"KILL {row['id']}")
        with pytest.raises(DestinationError) as error:
            running.commit({"cursor": 1})

    assert error.value.retryable
    assert mariadb.untouched()
