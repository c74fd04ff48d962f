"""What a user sees when a database cannot be read as he wrote: one clear message, and nothing waits for ever."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from errors import SourceError
from settings import get_settings
from tests.etl.sources.reading import execute, read, source_of
from tests.services.process import ServerProcess


def table(url: str) -> dict[str, Any]:
    return {"type": "database", "connection": url, "table": "orders"}


def query(url: str, text: str) -> dict[str, Any]:
    return {"type": "database", "connection": url, "query": text}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FRM orders",
        "DELETE FROM orders",
        "SELECT 1 AS x; DELETE FROM orders",
        "SELECT 1 AS x) AS query; DELETE FROM orders; --",
        "CALL orders",
    ],
)
def test_a_query_that_is_not_one_select_is_refused(database: str, text: str) -> None:
    execute(database, "CREATE TABLE orders (id INT)", "INSERT INTO orders VALUES (1)")
    with pytest.raises(SourceError) as caught:
        read(query(database, text))
    assert "`query` takes one SELECT" in (caught.value.hint or "")
    assert not caught.value.retryable
    assert "correct-horse-battery" not in str(caught.value)
    assert read(table(database)).column("id") == [1]


ENDLESS = {
    "postgresql": "SELECT 1 AS id, CAST(pg_sleep(60) AS text) AS slept",
    "mysql+pymysql": "SELECT 1 AS id, SLEEP(60) AS slept",
    "duckdb": "SELECT count(*) AS id FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0",
}


def test_a_query_that_never_ends_is_given_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.startswith("sqlite"):
        pytest.skip("ADBC's driver of SQLite cannot cancel")
    execute(database, "CREATE TABLE orders (id INT)")
    monkeypatch.setenv("PIVOTAL_READ_TIMEOUT", "0.3")
    get_settings.cache_clear()
    with pytest.raises(SourceError, match=r"not answered for 0\.3 s|Lost connection") as caught:
        read(query(database, ENDLESS[database.partition(":")[0]]))
    assert "PIVOTAL_READ_TIMEOUT" in (caught.value.hint or "")
    assert caught.value.retryable


def test_a_reader_that_takes_its_time_is_not_given_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(database, "CREATE TABLE orders (id INT)", "INSERT INTO orders VALUES (1)")
    monkeypatch.setenv("PIVOTAL_READ_TIMEOUT", "5")
    get_settings.cache_clear()
    assert read(table(database)).column("id") == [1]


def test_a_server_that_stops_while_it_is_read_is_told(postgres_url: str, postgres_process: ServerProcess) -> None:
    text = "SELECT g, repeat('x', 1000) AS t FROM generate_series(1, 100000) g"
    with closing(source_of(query(postgres_url, text)).open(None)) as reading:
        batches = iter(reading)
        next(batches)
        postgres_process.kill()
        with pytest.raises(SourceError, match="postgresql://") as caught:
            list(batches)
    assert caught.value.retryable
    assert "server" in (caught.value.hint or "")
    postgres_process.start()


def test_a_connection_that_is_cut_while_it_is_read_is_told(mariadb_url: str) -> None:
    text = "SELECT seq, REPEAT('x', 1000) AS t FROM seq_1_to_1000000"
    with closing(source_of(query(mariadb_url, text)).open(None)) as reading:
        batches = iter(reading)
        next(batches)
        execute(
            mariadb_url,
            """SET @other =
            (SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT%%seq_1_to_1%%' LIMIT 1)""",
            "EXECUTE IMMEDIATE CONCAT('KILL ', @other)",
        )
        with pytest.raises(SourceError, match=r"^mysql\+pymysql://") as caught:
            list(batches)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("user", "message", "hint"),
    [
        ("pivotal:s3cret-wrong", "Access denied", "user or password are wrong"),
        ("nobody_at_all:x", "SELECT command denied|there is no table", ""),
    ],
)
def test_who_may_not_read_is_told(mariadb_url: str, user: str, message: str, hint: str) -> None:
    execute(
        mariadb_url,
        "CREATE TABLE orders (id INT)",
        "CREATE TABLE shown (id INT)",
        "CREATE OR REPLACE USER nobody_at_all IDENTIFIED BY 'x'",
        "GRANT SELECT ON shown TO nobody_at_all",
    )
    try:
        with pytest.raises(SourceError, match=message) as caught:
            read(table(mariadb_url.replace("pivotal:correct-horse-battery", user)))
        assert hint in (caught.value.hint or "")
        assert not caught.value.retryable
        assert "s3cret" not in str(caught.value)
    finally:
        execute(mariadb_url, "DROP USER nobody_at_all")
