"""`pivotal events work`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import pytest

from cli import work
from cli.processes import Children, free_port
from etl.stream import Loaded
from events.log import EventLog, open_log
from projections.apply import Applied, Change, Dead
from tests.gateway.signing import STRIPE_SECRETS, body_of, stripe_event, stripe_headers
from tests.projections.samples import NOON, sendgrid_event, subscription
from tests.projections.test_apply import read_sqlite

PIVOTAL = Path(sys.executable).parent / "pivotal"


@pytest.fixture
def log(project: Path) -> Iterator[EventLog]:
    log = open_log(f"sqlite:///{project / 'data' / 'events.db'}")
    yield log
    log.close()


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster takes seconds to make its databases; tests copy them."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        told("email_messages")
    return home


@pytest.fixture
def start_dagster(tmp_path: Path, new_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Makes what DAGSTER_HOME names."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return lambda: shutil.copytree(new_home, tmp_path / "dagster")


@contextmanager
def working(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker; what it says is in the file `worker.log`."""
    with (project / "worker.log").open("wb") as said:
        process = subprocess.Popen([PIVOTAL, "events", "work"], cwd=project, stderr=said, stdout=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert process is None or process.poll() is None, "the worker has ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def held(project: Path, action: Callable[[duckdb.DuckDBPyConnection], object]) -> object:
    """What a pipeline would do with the warehouse: it waits until nobody else has it open."""
    while True:
        try:
            with duckdb.connect(project / "data" / "warehouse.duckdb") as connection:
                return action(connection)
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            time.sleep(0.01)


def test_it_works_until_sigterm_and_holds_no_warehouse_while_nothing_lands(project: Path, log: EventLog) -> None:
    log.publish([sendgrid_event("open", "e1")])
    with working(project) as process:
        until(lambda: b"events applied" in (project / "worker.log").read_bytes(), process)

        def land_meanwhile(connection: duckdb.DuckDBPyConnection) -> None:
            log.publish([sendgrid_event("open", "e2", email="second@x.de")])
            connection.execute("CREATE TABLE orders AS SELECT 1 AS id")

        held(project, land_meanwhile)
        until(lambda: (project / "worker.log").read_bytes().count(b"events applied") == 2, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    said = (project / "worker.log").read_text().splitlines()
    assert said[0] == "Applying sqlite:///data/events.db to duckdb:///data/warehouse.duckdb; Ctrl-C ends it."
    assert "following the event log position=0 head=1" in said[1]
    counted = held(project, lambda connection: connection.execute("SELECT count(*) FROM email_messages").fetchone())
    assert counted == (2,)


def test_a_signed_webhook_becomes_a_row_and_dagster_hears_of_it_without_a_run(
    project: Path, log: EventLog, start_dagster: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receiver and worker are processes; one of three events is poisoned, and Ctrl-C ends the worker."""
    start_dagster()
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", f"sqlite:///{project / 'warehouse.db'}")
    monkeypatch.setenv("PIVOTAL_STRIPE_WEBHOOK_SECRETS", STRIPE_SECRETS[1])
    port = free_port()
    with Children(lambda *_: None) as children, working(project) as process:
        receiver = children.start("receiver", [PIVOTAL, "gateway", "--port", str(port)], {})
        children.wait_until_listening(receiver, port)
        for key, told_of in [("evt_1", subscription("incomplete")), ("evt_2", {}), ("evt_3", subscription("active"))]:
            post_stripe(port, "customer.subscription.updated", key, told_of)
        until(lambda: [row["status"] for row in read_sqlite(project / "warehouse.db", "subscriptions")] == ["active"])
        until(lambda: bool(log.dead()), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert f", and telling Dagster ({project / 'dagster'})" in (project / "worker.log").read_text()
    counts: list[dict[str, Any]] = [
        {name: value.value for name, value in one.metadata.items()} for one in told("subscriptions")
    ]
    assert sum(one["rows_inserted"] + one["rows_updated"] + one["rows_deduplicated"] for one in counts) == 2
    assert (counts[-1]["first_sequence"], counts[0]["last_sequence"]) == (1, 3)
    assert sum(one["dead_letters"] for one in counts) == 1
    (alert,) = log.read(0, 10, types=["pivotal.event.dead_lettered"])
    assert alert.event.data["sequence"] == 2


def post_stripe(port: int, kind: str, key: str, told_of: Mapping[str, Any]) -> None:
    body = body_of(stripe_event(key, type=kind, created=NOON, data={"object": told_of}))
    httpx.post(
        f"http://127.0.0.1:{port}/webhooks/stripe", content=body, headers=stripe_headers(body)
    ).raise_for_status()


def told(table: str) -> list[dg.AssetMaterialization]:
    """What Dagster was told of a table, newest first."""
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey(table), limit=9).records
    assert {record.run_id for record in records} <= {""}
    return [record.asset_materialization for record in records if record.asset_materialization]


def change(sequence: int, inserted: int) -> Change:
    return Change(Loaded(inserted), sequence, sequence, [{"status": "open"}])


def test_news_wait_for_a_dagster_that_is_away_and_are_told_summed_up(
    start_dagster: Callable[[], object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(work, "REPORT_EVERY", 0.01)
    monkeypatch.setattr(work, "LONGEST_PAUSE", 0.05)
    with work.reporting() as tell:
        tell(Applied(1, 1, {"email_messages": change(1, 1)}))
        until(lambda: "Dagster was not told" in caplog.text)
        tell(Applied(3, 2, {"email_messages": change(3, 2)}, [Dead(2, "sendgrid.open", "why")]))
        start_dagster()
    (materialization,) = told("email_messages")
    metadata = {name: value.value for name, value in materialization.metadata.items()}
    assert (metadata["rows_inserted"], metadata["first_sequence"], metadata["last_sequence"]) == (3, 1, 3)
    assert metadata["dead_letters"] == 1


def test_what_happens_to_a_table_often_is_told_once_in_a_while(start_dagster: Callable[[], object]) -> None:
    start_dagster()
    with work.reporting() as tell:
        for sequence in range(100):
            tell(Applied(sequence, 1, {"email_messages": change(sequence, 1)}))
    assert [one.metadata["rows_inserted"].value for one in told("email_messages")] == [100]


def test_a_follower_that_fails_ends_the_others_and_is_told() -> None:
    ended = []

    def fails(_: threading.Event) -> None:
        raise LookupError("a bug")

    def works(stop: threading.Event) -> None:
        stop.wait()
        ended.append("the other")

    with pytest.raises(LookupError, match="a bug"):
        work.run([works, fails])
    assert ended == ["the other"]
