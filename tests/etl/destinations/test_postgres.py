"""What PostgreSQL asks for besides the contract."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest

from errors import DestinationError
from etl.destinations.postgres import warehouse
from etl.stream import Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, load, make_backend, rows


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Backend:
    return make_backend("postgres", request)


def repeat(write: Callable[[pa.RecordBatch], object], batch: pa.RecordBatch) -> None:
    while True:
        write(batch)


@contextmanager
def _session(backend: Backend) -> Iterator[psycopg.Connection]:
    with psycopg.connect(backend.url, autocommit=True) as connection:
        yield connection


def test_rows_that_did_not_change_are_not_written_again(postgres: Backend) -> None:
    destination = postgres.destination("merge", key=["id"])
    load(destination, rows(id=[1, 2], name=["a", "b"]))
    before = postgres.query("SELECT xmin::text, ctid::text FROM orders WHERE id = 1")

    assert load(destination, rows(id=[1, 2], name=["a", "B"]), run_id="run-2") == Loaded(0, updated=1, deduplicated=1)

    assert postgres.query("SELECT xmin::text, ctid::text FROM orders WHERE id = 1") == before


def test_readers_see_the_old_or_the_new_table_whatever_their_isolation(postgres: Backend) -> None:
    destination = postgres.destination("replace")
    load(destination, rows(id=[1, 2]))

    with _session(postgres) as reader, _session(postgres) as snapshot:
        snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        snapshot.execute("SELECT 1 FROM orders")
        with destination.begin("run-2") as running:
            running.write(rows(id=[3, 4, 5]))
            running.loaded()
            assert reader.execute("SELECT sum(id) FROM orders").fetchone() == (3,)
            running.commit(None)
        assert reader.execute("SELECT sum(id) FROM orders").fetchone() == (12,)
        assert snapshot.execute("SELECT sum(id) FROM orders").fetchone() == (3,)


def test_replace_keeps_views_grants_and_indexes(postgres: Backend) -> None:
    destination = postgres.destination("replace")
    load(destination, rows(id=[1], name=["a"]))
    postgres.query("CREATE INDEX by_name ON orders (name)")
    postgres.query("CREATE VIEW names AS SELECT name FROM orders")
    postgres.query("GRANT SELECT ON orders TO public")

    load(destination, rows(id=[2], name=["b"]), run_id="run-2")

    assert postgres.query("SELECT * FROM names") == [{"name": "b"}]
    assert postgres.query("SELECT 1 AS x FROM pg_indexes WHERE indexname = 'by_name'") == [{"x": 1}]
    assert postgres.query("SELECT has_table_privilege('public', 'orders', 'SELECT') AS x") == [{"x": True}]


def test_two_runs_that_merge_into_one_table_take_turns(postgres: Backend) -> None:
    destination = postgres.destination("merge", key=["id"])
    load(destination, rows(id=[0], n=[0]))
    results: list[Loaded] = []

    def merge() -> None:
        results.append(load(destination, rows(id=[0, 1, 2], n=[1, 1, 1]), run_id="other"))

    thread = threading.Thread(target=merge)
    with destination.begin("run-2") as running:
        running.write(rows(id=[0, 1, 2], n=[1, 1, 1]))
        running.loaded()
        thread.start()
        with _session(postgres) as watcher:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while watcher.execute(waiting).fetchone() == (0,):
                pass
        running.commit(None)
    thread.join()

    assert results == [Loaded(inserted=0, deduplicated=3)]


def test_two_runs_that_create_one_table_take_turns(postgres: Backend) -> None:
    destination, problems = postgres.destination(table="analytics.orders"), []

    def append(number: int) -> None:
        try:
            load(destination, rows(id=[number]), run_id=f"run-{number}", state={"cursor": number})
        except DestinationError as error:
            problems.append(error)

    threads = [threading.Thread(target=append, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert [row["id"] for row in postgres.rows("analytics.orders")] == [0, 1, 2, 3]


def test_a_lock_that_another_holds_for_long_is_an_error_that_may_be_retried(
    postgres: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = postgres.destination("replace")
    load(destination, rows(id=[1]))
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()

    with _session(postgres) as other, other.transaction():
        other.execute("LOCK TABLE orders")
        with pytest.raises(DestinationError, match="lock timeout") as error:
            load(destination, rows(id=[2]), run_id="run-2")

    assert error.value.retryable


def test_a_table_is_found_where_the_search_path_finds_it(postgres: Backend) -> None:
    postgres.query("CREATE SCHEMA second")
    postgres.query("CREATE TABLE second.orders (id bigint)")
    url = f"{postgres.url}?options=-csearch_path%3Dpublic,second"

    load(Backend("postgres", url, postgres.query).destination(), rows(id=[1]))

    assert postgres.query("SELECT * FROM second.orders") == [{"id": 1}]


def test_columns_of_other_makers_types_take_what_fits(postgres: Backend) -> None:
    postgres.query("CREATE TYPE mood AS ENUM ('good', 'bad')")
    postgres.query("CREATE DOMAIN price AS numeric(10, 2) CHECK (value >= 0)")
    postgres.query("""CREATE TABLE orders (id int PRIMARY KEY, mood mood, price price, code char(3), doc json,
                                           big numeric(50, 2), bare numeric)""")
    destination = postgres.destination("merge", key=["id"])
    batch = rows(
        id=pa.array([1], pa.int32()),
        mood=["good"],
        price=pa.array([Decimal("1.5")], pa.decimal128(9, 1)),
        code=["abc"],
        doc=pa.array(['{"b": 1,  "a": 2}'], pa.json_()),
        big=pa.array([Decimal("1.25")], pa.decimal128(38, 2)),
        bare=pa.array([Decimal("1.250")], pa.decimal128(38, 3)),
    )

    assert load(destination, batch) == Loaded(inserted=1)
    assert load(destination, batch, run_id="run-2") == Loaded(inserted=0, deduplicated=1)

    found = postgres.query("SELECT mood::text, price::text, code::text, doc::text, big::text, bare::text FROM orders")
    assert list(found[0].values()) == ["good", "1.50", "abc", '{"b": 1,  "a": 2}', "1.25", "1.25"]


def test_values_that_are_equal_but_not_the_same_are_updated(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id int PRIMARY KEY, doc json)")
    destination = postgres.destination("merge", key=["id"])

    def batch(doc: str) -> pa.RecordBatch:
        return rows(id=pa.array([1], pa.int32()), doc=pa.array([doc], pa.json_()))

    load(destination, batch('{"a": 1}'))

    assert load(destination, batch('{"a":1}'), run_id="run-2").updated == 1


def test_a_partitioned_table_is_counted_by_its_partitions(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint) PARTITION BY RANGE (id)")
    postgres.query("CREATE TABLE low PARTITION OF orders FOR VALUES FROM (0) TO (10)")
    postgres.query("CREATE TABLE high PARTITION OF orders FOR VALUES FROM (10) TO (20)")

    assert load(postgres.destination(), rows(id=[1, 11, 12])) == Loaded(inserted=3)


def test_rows_that_a_trigger_swallows_are_not_counted_as_loaded(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint)")
    postgres.query("CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    postgres.query("CREATE TRIGGER skip BEFORE INSERT ON orders FOR EACH ROW WHEN (new.id = 2) EXECUTE FUNCTION skip()")

    assert load(postgres.destination(), rows(id=[1, 2, 3])) == Loaded(inserted=2)


def test_rows_that_a_trigger_swallows_are_no_merge(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint PRIMARY KEY)")
    postgres.query("CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    postgres.query("CREATE TRIGGER skip BEFORE INSERT ON orders FOR EACH ROW WHEN (new.id = 2) EXECUTE FUNCTION skip()")

    with pytest.raises(DestinationError, match=r"3 rows were to be merged, but .* 2 were inserted"):
        load(postgres.destination("merge", key=["id"]), rows(id=[1, 2, 3]))


def test_rows_of_several_copies_are_all_counted(postgres: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.destinations.copying._LARGEST", 20)

    with postgres.destination().begin("run-1") as running:
        for start in range(0, 20, 2):
            running.write(rows(id=[start, start + 1]))
        running.write(rows(id=[20], name=["one column more"]))
        assert running.loaded() == Loaded(inserted=21)
        running.commit(None)

    assert [row["id"] for row in postgres.rows(order="id")] == list(range(21))


def test_a_load_that_is_given_up_with_rows_on_their_way_leaves_nothing(postgres: Backend) -> None:
    load(postgres.destination(), rows(id=[0]))

    with postgres.destination().begin("run-2") as running:
        for start in range(50):
            running.write(rows(id=list(range(start * 1000, start * 1000 + 1000))))

    assert postgres.rows() == [{"id": 0}]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("copy")]


def test_rows_that_the_server_refuses_in_the_midst_of_many_are_told_while_they_are_written(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint PRIMARY KEY)")

    with postgres.destination().begin("run-1") as running, pytest.raises(DestinationError, match="duplicate key"):
        repeat(running.write, rows(id=[7] * 100_000))


def test_a_key_that_is_too_long_for_an_index_is_merged_all_the_same(postgres: Backend) -> None:
    key = secrets.token_hex(20_000)
    postgres.query("CREATE TABLE orders (id text, name text)")
    destination = postgres.destination("merge", key=["id"])

    assert load(destination, rows(id=[key, key], name=["a", "b"])) == Loaded(inserted=1, deduplicated=1)
    assert load(destination, rows(id=[key], name=["c"]), run_id="run-2") == Loaded(inserted=0, updated=1)


def test_a_key_that_a_child_table_has_again_is_an_error(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint PRIMARY KEY, name text)")
    postgres.query("CREATE TABLE old_orders () INHERITS (orders)")
    postgres.query("INSERT INTO orders VALUES (1, 'a')")
    postgres.query("INSERT INTO old_orders VALUES (1, 'b')")

    with pytest.raises(DestinationError, match="several rows with the same id"):
        load(postgres.destination("merge", key=["id"]), rows(id=[1, 2], name=["c", "d"]))


@pytest.mark.parametrize(
    ("column", "value", "message", "hint"),
    [
        (
            "varchar(3)",
            "long",
            "value too long for type character varying(3): column c of orders",
            "make the column wider",
        ),
        ("text", "a\0b", "0x00", "NUL characters"),
        ("text NOT NULL", None, 'null value in column "c"', "required: true"),
        ("text UNIQUE", "twice", "Key (c)=(twice) already exists", "write: merge"),
        ("text CHECK (c <> 'no')", "no", "violates check constraint", "say the same in `validate`"),
    ],
)
def test_what_the_server_refuses_is_said_in_its_words_with_a_hint(
    postgres: Backend, column: str, value: str | None, message: str, hint: str | None
) -> None:
    postgres.query(f"CREATE TABLE orders (id bigint, c {column})")

    with pytest.raises(DestinationError) as error:
        load(postgres.destination(), rows(id=[1, 2], c=pa.array([value, value], pa.string())))

    assert message in error.value.message
    assert (hint is None) == (error.value.hint is None)
    assert hint is None or hint in str(error.value.hint)
    assert "\n" not in error.value.message
    assert not error.value.retryable


def test_a_column_of_a_type_that_copy_cannot_write_is_named(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint, address inet)")

    with pytest.raises(DestinationError, match="column address is inet, the data has string"):
        load(postgres.destination(), rows(id=[1], address=["127.0.0.1"]))


def test_a_time_finer_than_the_column_keeps_is_refused_not_rounded(postgres: Backend) -> None:
    postgres.query("CREATE TABLE orders (id bigint, at timestamp(0))")

    with pytest.raises(DestinationError, match="column at: a value does not fit"):
        load(postgres.destination(), rows(id=[1], at=pa.array([1], pa.timestamp("us"))))


def test_a_name_that_postgresql_would_cut_is_refused(postgres: Backend) -> None:
    with pytest.raises(DestinationError, match="longer than the 63 bytes"):
        load(postgres.destination(), pa.record_batch({"id": [1], "x" * 64: [1]}))


def test_a_missing_right_is_named(postgres: Backend) -> None:
    load(postgres.destination(), rows(id=[1]))
    with _session(postgres) as owner:
        owner.execute("DROP ROLE IF EXISTS reader")
        owner.execute("CREATE ROLE reader LOGIN PASSWORD 'reader-secret'")
        owner.execute("GRANT SELECT ON orders TO reader")
    parts = urlsplit(postgres.url)
    url = parts._replace(netloc=f"reader:reader-secret@{parts.hostname}:{parts.port}").geturl()

    with pytest.raises(DestinationError) as error:
        load(Backend("postgres", url, postgres.query).destination(), rows(id=[2]), run_id="run-2")

    assert "permission denied for table orders" in error.value.message
    assert "GRANT" in str(error.value.hint)
    with _session(postgres) as owner:
        owner.execute("DROP OWNED BY reader")
        owner.execute("DROP ROLE reader")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"password": "wr0ng-secret"}, "password authentication failed", "the user or the password is wrong"),
        ({"port": 1}, "refused", "is the server running"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist', "create it"),
    ],
)
def test_a_database_that_cannot_be_reached_says_why_without_the_password(
    postgres: Backend, change: dict[str, str | int], message: str, hint: str
) -> None:
    parts = urlsplit(postgres.url)
    password, port = change.get("password", parts.password), change.get("port", parts.port)
    url = f"postgresql://{parts.username}:{password}@{parts.hostname}:{port}/{change.get('database', 'postgres')}"

    with pytest.raises(DestinationError) as error:
        Backend("postgres", url, postgres.query).destination().state()

    assert message in str(error.value)
    assert hint in str(error.value.hint)
    assert str(password) not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:pa/ss-secret@host/db",
        "postgresql://user:pa:ss-secret@host:port-secret/db",
        "postgresql://user:secret%ss@127.0.0.1:1/db",
    ],
)
def test_a_url_that_cannot_be_read_shows_nothing_of_the_password(url: str) -> None:
    with pytest.raises(DestinationError) as error:
        warehouse(url).state("orders")

    assert "secret" not in str(error.value)
    assert "ss-" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("postgresql://user:secret@host:5432/db", "postgresql://user@host:5432/db"),
        ("postgres://user:secret@host/db?sslmode=require", "postgresql://user@host/db"),
        ("postgresql+psycopg://host/db?user=u&password=secret", "postgresql://host/db?user=u"),
        ("postgresql:///db?host=/var/run/postgresql", "postgresql:///db?host=/var/run/postgresql"),
        ("postgresql://user:secret@one:5432,two:5433/db", "postgresql://user@one:5432,two:5433/db"),
        ("postgresql://user:secret@[::1]:5432/db", "postgresql://user@[::1]:5432/db"),
    ],
)
def test_a_label_shows_the_url_without_its_password(url: str, label: str) -> None:
    assert warehouse(url).label == label


def test_a_server_that_goes_away_is_an_error_that_may_be_retried(postgres: Backend) -> None:
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pivotal'"

    with postgres.destination().begin("run-1") as running, _session(postgres) as admin:
        running.write(rows(id=[1]))
        admin.execute(ours)
        with pytest.raises(DestinationError) as error:
            repeat(running.write, rows(id=[2] * 1000))  # some of them are on their way before it shows

    assert error.value.retryable
    assert not postgres.has()
