"""`pivotal events work`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from cli import work
from etl.stream import Loaded
from events.log import EventLog, open_log
from projections.apply import Applied, Change, Dead
from tests.projections.samples import sendgrid_event

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
        told()
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


def test_it_tells_dagster_of_each_table_without_a_run_and_ends_on_ctrl_c(
    project: Path, log: EventLog, start_dagster: Callable[[], object]
) -> None:
    start_dagster()
    with working(project) as process:
        log.publish([sendgrid_event("bounce", "e1"), sendgrid_event("open", "e2")])
        until(lambda: b"events applied" in (project / "worker.log").read_bytes(), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    said = (project / "worker.log").read_text().splitlines()
    assert f", and telling Dagster ({project / 'dagster'})" in said[0]
    assert [one.asset_key.to_user_string() for one in told()] == ["email_messages", "email_suppressions"]
    assert {name: value.value for name, value in told()[0].metadata.items() if name != "preview"} == {
        "rows_inserted": 1,
        "rows_updated": 0,
        "rows_deduplicated": 1,
        "first_sequence": 1,
        "last_sequence": 2,
        "dead_letters": 0,
    }


def told() -> list[dg.AssetMaterialization]:
    """What Dagster was told, in the order of the tables' names."""
    with dg.DagsterInstance.get() as instance:
        keys = [dg.AssetKey("email_messages"), dg.AssetKey("email_suppressions")]
        records = [record for key in keys for record in instance.fetch_materializations(key, limit=9).records]
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
    (materialization,) = told()
    metadata = {name: value.value for name, value in materialization.metadata.items()}
    assert (metadata["rows_inserted"], metadata["first_sequence"], metadata["last_sequence"]) == (3, 1, 3)
    assert metadata["dead_letters"] == 1


def test_what_happens_to_a_table_often_is_told_once_in_a_while(start_dagster: Callable[[], object]) -> None:
    start_dagster()
    with work.reporting() as tell:
        for sequence in range(100):
            tell(Applied(sequence, 1, {"email_messages": change(sequence, 1)}))
    assert [one.metadata["rows_inserted"].value for one in told()] == [100]


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
