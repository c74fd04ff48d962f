"""What a folder of files asks for besides the contract: one step from the old content to the new."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import DestinationError
from etl.stream import Destination, Loaded
from settings import get_settings
from tests.etl.destinations.backends import Backend, bad, load, make_backend, rows


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    return make_backend("parquet", request)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


def test_append_adds_a_file_named_by_pipeline_and_run(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1]), run_id="0193-a")
    load(backend.destination(), rows(id=[2]), run_id="0193-b")

    assert _names(folder) == ["orders-0193-a.parquet", "orders-0193-b.parquet"]


def test_the_same_run_again_replaces_what_it_wrote(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1]), run_id="run-1")
    load(backend.destination(), rows(id=[2]), rows(id=[3], new=["x"]), quarantine=[bad("x", 1)], run_id="run-2")

    load(backend.destination(), rows(id=[4]), run_id="run-2", state={"cursor": 4})

    assert backend.rows() == [{"id": 1}, {"id": 4}]
    assert _names(folder) == ["orders-run-1.parquet", "orders-run-2.parquet"]
    assert backend.destination().quarantined() == []


def test_a_run_with_an_odd_name_stays_inside_the_folder(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1]), run_id="../../away/2024-01-01T00:00")

    assert _names(folder) == ["orders-.._.._away_2024-01-01T00_00.parquet"]


def test_a_run_without_rows_adds_no_file(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1]))
    load(backend.destination(), rows(id=[1]).slice(0, 0), run_id="run-2", state={"cursor": 1})

    assert _names(folder) == ["orders-run-1.parquet"]


def test_state_and_quarantine_stand_beside_the_data(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1]), quarantine=[bad("x", 1)], state={"cursor": 1})

    found = duckdb.execute(
        f"SELECT pipeline, \"row\".amount AS amount FROM '{folder}/_pivotal/quarantine/*.ndjson'"
    ).fetchall()
    assert found == [("orders", "x")]
    assert duckdb.execute(f"SELECT orders.state.cursor FROM '{folder}/_pivotal/state.json'").fetchall() == [(1,)]


def test_columns_have_one_type_in_all_files(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1], n=pa.array([1], pa.int64())))
    load(backend.destination(), rows(id=[2], n=pa.array([2], pa.int16())), run_id="run-2")
    load(backend.destination(), rows(id=[3]), run_id="run-3")
    load(backend.destination(), rows(id=[4], n=pa.nulls(1)), run_id="run-4")

    assert {str(pq.read_schema(folder / name).field("n").type) for name in _names(folder)} == {"int64"}


def test_small_batches_make_large_row_groups(backend: Backend, folder: Path) -> None:
    load(backend.destination(), *[rows(id=[number]) for number in range(500)])

    (file,) = folder.glob("*.parquet")
    assert pq.read_metadata(file).num_row_groups == 1


def test_lists_and_structs_stay_what_they_are(backend: Backend, folder: Path) -> None:
    load(backend.destination(), rows(id=[1], items=[[{"a": 1}]]))

    assert duckdb.execute(f"SELECT items[1].a FROM '{folder}/*.parquet'").fetchall() == [(1,)]


def test_nothing_is_to_be_seen_of_a_load_before_its_commit(backend: Backend, tmp_path: Path) -> None:
    with backend.destination().begin("run-1") as running:
        running.write(pa.record_batch({"id": pa.array(range(200_000))}))
        running.loaded()
        assert not (tmp_path / "orders").exists()
        assert list(tmp_path.rglob("*.parquet")) == []
        running.commit(None)

    assert len(backend.rows()) == 200_000


@pytest.mark.parametrize("write", ["append", "replace"])
def test_readers_of_the_folder_see_the_old_or_the_new_rows_and_no_error(
    backend: Backend, folder: Path, write: str
) -> None:
    destination = backend.destination("replace" if write == "replace" else "append")
    load(destination, rows(id=[0] * 100), run_id="run-0")
    whole = {100 * (number + 1) for number in range(20)} if write == "append" else {100}
    stop, seen = threading.Event(), set[int]()

    def read() -> None:
        with duckdb.connect() as connection:
            while not stop.is_set():
                seen.add(connection.sql(f"SELECT count(*) FROM '{folder}/*.parquet'").fetchall()[0][0])

    problems = _in_background(read, stop, lambda: _load_often(destination))

    assert problems == []
    assert seen
    assert seen <= whole


def _load_often(destination: Destination) -> None:
    for number in range(1, 20):
        load(destination, rows(id=[number] * 100), run_id=f"run-{number}")


def _in_background(work: Callable[[], None], stop: threading.Event, meanwhile: Callable[[], None]) -> list[Exception]:
    problems: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  (whatever a reader meets)
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    meanwhile()
    stop.set()
    thread.join()
    return problems


def test_what_a_killed_run_left_is_removed_by_the_next(backend: Backend, tmp_path: Path) -> None:
    load(backend.destination(), rows(id=[1]), run_id="run-1")
    versions = tmp_path / ".orders"
    (versions / "left").mkdir()
    (versions / "left" / "half.parquet").write_bytes(b"PAR1 half")
    (versions / "next").symlink_to(".orders/left")

    load(backend.destination(), rows(id=[2]), run_id="run-2")

    assert backend.rows() == [{"id": 1}, {"id": 2}]
    assert sorted(path.name for path in versions.iterdir()) == sorted(["lock", (tmp_path / "orders").readlink().name])


def test_a_failed_load_leaves_nothing_behind(backend: Backend, tmp_path: Path) -> None:
    with backend.destination().begin("run-1") as running:
        running.write(rows(id=[1]))

    assert [path.name for path in (tmp_path / ".orders").iterdir()] == ["lock"]


def test_a_second_run_into_the_folder_waits_for_the_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIVOTAL_LOCK_TIMEOUT", "0.1")
    get_settings.cache_clear()

    with backend.destination().begin("run-1"), pytest.raises(DestinationError, match="another run writes") as error:
        backend.destination(name="other").begin("run-2")

    assert error.value.retryable
    assert load(backend.destination(name="other"), rows(id=[1])) == Loaded(inserted=1)


def test_a_folder_that_no_pipeline_wrote_is_left_alone(backend: Backend, folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.parquet").write_bytes(b"precious")

    with pytest.raises(DestinationError, match="something is there that no pipeline wrote"):
        load(backend.destination("replace"), rows(id=[1]))

    assert (folder / "mine.parquet").read_bytes() == b"precious"


def test_an_empty_folder_made_by_hand_may_be_used(backend: Backend, folder: Path) -> None:
    folder.mkdir()

    load(backend.destination(), rows(id=[1]))

    assert backend.rows() == [{"id": 1}]


def test_other_files_that_someone_put_there_stay(backend: Backend, folder: Path) -> None:
    load(backend.destination("replace"), rows(id=[1]))
    (folder / "README.txt").write_text("ours")

    load(backend.destination("replace"), rows(id=[2]), run_id="run-2")

    assert (folder / "README.txt").read_text() == "ours"


def test_the_folder_may_be_moved_with_its_neighbour(backend: Backend, tmp_path: Path) -> None:
    load(backend.destination(), rows(id=[1]))
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("orders", ".orders"):
        os.rename(tmp_path / name, moved / name)  # noqa: PTH104  (the link itself)

    assert duckdb.execute(f"SELECT id FROM '{moved}/orders/*.parquet'").fetchall() == [(1,)]


def test_a_type_that_parquet_cannot_keep_is_refused(backend: Backend) -> None:
    interval = pa.array([(1, 2, 3)], pa.month_day_nano_interval())

    with pytest.raises(DestinationError, match="Parquet cannot keep a column"):
        load(backend.destination(), rows(id=[1], span=interval))
