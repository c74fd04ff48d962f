"""The services that other tests stand on: real, empty for each test, lost and found again; absent ones are named."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import boto3
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.services import kafka_broker, mariadb
from tests.services.availability import unavailable
from tests.services.process import ServerProcess, accepts_connections, free_port

# --- PostgreSQL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["first", "second"])
def test_postgres_is_empty_each_time(postgres_url: str, when: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'").fetchall()
        connection.execute("CREATE TABLE orders (id int)")
    assert tables == [], when


def test_postgres_refuses_a_wrong_password(postgres_url: str) -> None:
    wrong = postgres_url.replace("correct-horse", "wrong-horse")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_postgres_keeps_what_was_committed_when_it_is_killed(
    postgres_url: str, postgres_process: ServerProcess
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders AS SELECT 7 AS id")
    postgres_process.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    postgres_process.start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT id FROM orders").fetchall() == [(7,)]


# --- MariaDB --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["first", "second"])
def test_mariadb_is_empty_each_time(mariadb_url: str, when: str) -> None:
    with create_engine(mariadb_url, poolclass=NullPool).begin() as connection:
        tables = connection.execute(text("SHOW TABLES")).fetchall()
        connection.execute(text("CREATE TABLE orders (id int)"))
    assert tables == [], when


# --- Kafka ----------------------------------------------------------------------------------------------------


def test_kafka_gives_back_committed_transactions_only(kafka_brokers: str) -> None:
    from kafka import KafkaProducer

    topic = _new_topic()
    producer = KafkaProducer(bootstrap_servers=kafka_brokers, transactional_id=topic, acks="all")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"committed")
    producer.commit_transaction()
    producer.begin_transaction()
    producer.send(topic, b"aborted")
    producer.abort_transaction()
    producer.close()
    assert _records(kafka_brokers, topic) == [b"committed"]


def test_kafka_keeps_what_it_acknowledged_when_it_is_killed(kafka_brokers: str, kafka_process: ServerProcess) -> None:
    from kafka import KafkaProducer

    topic = _new_topic()
    for value in (b"before", b"after"):
        producer = KafkaProducer(bootstrap_servers=kafka_brokers, acks="all")
        producer.send(topic, value).get(timeout=60)
        producer.close()
        kafka_process.kill()
        kafka_process.start()
    assert _records(kafka_brokers, topic) == [b"before", b"after"]


def _new_topic() -> str:
    return f"orders-{uuid.uuid4().hex[:8]}"


def _records(brokers: str, topic: str) -> list[bytes]:
    """What a reader of committed records finds in a topic, up to its end when it is asked."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed", group_id=None)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition])[partition]
    found: list[bytes] = []
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=1000).values():
            found += [record.value for record in records]
    consumer.close()
    return found


# --- S3 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["first", "second"])
def test_s3_is_empty_each_time(s3_endpoint: str, when: str) -> None:
    s3 = boto3.client("s3", endpoint_url=s3_endpoint)
    buckets = s3.list_buckets()["Buckets"]
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="orders/1", Body=b"one")
    assert buckets == [], when
    assert s3.get_object(Bucket="lake", Key="orders/1")["Body"].read() == b"one"
    s3.close()


# --- what is missing ------------------------------------------------------------------------------------------


def test_a_missing_service_skips_the_test_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIVOTAL_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^Vault: no vault on PATH; install it$"):
        unavailable("Vault", "no vault on PATH", "install it")


def test_a_missing_service_fails_the_test_where_services_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match=r"^Vault: no vault on PATH; install it"):
        unavailable("Vault", "no vault on PATH", "install it")


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has no program, and does not require services."""
    monkeypatch.delenv("PIVOTAL_REQUIRE_SERVICES", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mariadb, "_PATH", str(tmp_path))
    monkeypatch.setattr(kafka_broker, "_CACHE", tmp_path)


@pytest.mark.usefixtures("bare_machine")
def test_without_mariadb_the_reason_names_its_program_and_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"mariadbd was not found.*apt-get install mariadb-server"):
        mariadb._programs()


@pytest.mark.usefixtures("bare_machine")
def test_without_java_the_reason_names_it_and_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"java was not found.*apt-get install default-jre-headless"):
        kafka_broker._java()


@pytest.mark.usefixtures("bare_machine")
def test_java_that_is_too_old_for_kafka_is_named(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    with pytest.raises(pytest.skip.Exception, match=r'java is too old \(openjdk version "11\.0\.2"'):
        kafka_broker._java()


@pytest.mark.usefixtures("bare_machine")
def test_without_maven_the_reason_names_it_and_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"mvn.*was not found.*apt-get install maven"):
        kafka_broker._jars()


@pytest.mark.usefixtures("bare_machine")
def test_a_maven_that_reaches_nothing_is_told_in_its_own_words(tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] Unknown host'\nexit 1\n")
    maven.chmod(0o755)
    with pytest.raises(pytest.skip.Exception, match=r"could not fetch Kafka's jars \(Unknown host\)"):
        kafka_broker._jars()


# --- a server's process ---------------------------------------------------------------------------------------


def test_a_server_that_ends_while_it_starts_shows_its_log(tmp_path: Path) -> None:
    server = ServerProcess(["/bin/sh", "-c", "echo no such option; exit 2"], ready=lambda: False, log=tmp_path / "log")
    with pytest.raises(RuntimeError, match="ended while it started:\nno such option"):
        server.start()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (Linux, package util-linux) was not found on PATH")
def test_a_server_does_not_outlive_tests_that_are_killed(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    tests = subprocess.Popen(
        [sys.executable, "-c", _TESTS_WITH_A_SERVER, str(port), str(log)], stdout=subprocess.PIPE, text=True
    )
    assert tests.stdout is not None
    assert tests.stdout.readline() == "started\n"
    tests.kill()
    tests.communicate()
    assert _goes_away(port)


_TESTS_WITH_A_SERVER = """
import sys, time
from pathlib import Path
from tests.services.process import ServerProcess, accepts_connections
port = int(sys.argv[1])
server = ServerProcess(
    [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
    ready=lambda: accepts_connections(port), log=Path(sys.argv[2]),
)
server.start()
print("started", flush=True)
time.sleep(600)
"""


def _goes_away(port: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            accepts_connections(port)
        except OSError:
            return True
        time.sleep(0.02)
    return False
