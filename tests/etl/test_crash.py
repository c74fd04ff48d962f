"""Killed at any moment, a run that is started again ends in the same state as one that nothing disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from tests.etl.crashing import (
    ROWS,
    advance,
    children_of,
    die_at_step,
    in_environment,
    open_family,
    open_orders,
    run_family_until,
    run_until,
)
from tests.etl.destinations.backends import S3, SQL, Backend, make_backend

RUNS = int(os.environ.get("PIVOTAL_CRASH_RUNS", "3"))
"""How often each kind of destination is killed; `make test-crash` asks for more."""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "tests.etl.crashing",
        "etl.destinations.files",
        "etl.destinations.bucket",
        "adbc_driver_postgresql.dbapi",
        "etl.destinations.mariadb",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def _forking() -> None:
    """The server that forks is there: a run's time has nothing of its start, so kills are spread over the run."""
    process = _PROCESSES.Process(target=exec, args=("",))
    process.start()
    process.join()


@pytest.mark.timeout(120 + 10 * RUNS)
@pytest.mark.parametrize("kind", [*SQL, "parquet", "csv", S3])
def test_a_run_killed_at_any_moment_and_started_again_ends_as_if_undisturbed(
    kind: str, request: pytest.FixtureRequest
) -> None:
    backend = make_backend(kind, request)
    write = random.choice(["append", "replace", "merge"] if kind in SQL else ["append", "replace"])
    needed = _seconds(_start(run_until, backend, write, 2))

    for number in range(1, RUNS + 1):
        cursor = 2 * (number + 1)
        running = _start(run_until, backend, write, cursor)
        time.sleep(random.uniform(0, needed))  # the moment is what is tested
        _kill(running)
        _assert_whole(backend, write)
        _seconds(_start(run_until, backend, write, cursor))
        _assert_whole(backend, write, cursor)


@pytest.mark.timeout(120 + 10 * RUNS)
@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_killed_at_any_moment_rows_and_their_children_are_of_the_same_run(
    kind: str, request: pytest.FixtureRequest
) -> None:
    backend = make_backend(kind, request)
    write = random.choice(["replace", "merge"])
    needed = _seconds(_start(run_family_until, backend, write, 2))

    for number in range(1, max(2, RUNS // 2)):
        cursor = 2 * (number + 1)
        running = _start(run_family_until, backend, write, cursor)
        time.sleep(random.uniform(0, needed))  # the moment is what is tested
        _kill(running)
        _assert_one_family(backend, write)
        _seconds(_start(run_family_until, backend, write, cursor))
        _assert_one_family(backend, write, cursor)


@pytest.mark.parametrize("write", ["append", "replace"])
def test_a_folder_is_whole_before_every_change_that_a_run_makes_on_the_disk(
    write: str, request: pytest.FixtureRequest
) -> None:
    backend = make_backend("parquet", request)
    _seconds(_start(run_until, backend, write, 2))
    step = 0

    while _exit_code(_start(die_at_step, backend, write, 3, step)) == 9:
        _assert_whole(backend, write)
        step += 1

    assert step > 10
    _assert_whole(backend, write, 3)


def _start(work: Any, backend: Backend, write: str, *more: int) -> BaseProcess:
    variables = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "PIVOTAL_"))}
    arguments = (variables, work, backend.kind, backend.url, write, *more)
    process = _PROCESSES.Process(target=in_environment, args=arguments)
    process.start()
    return process


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _exit_code(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def _seconds(process: BaseProcess) -> float:
    """How long a process took that must end well."""
    started = time.monotonic()
    assert _exit_code(process) == 0
    return time.monotonic() - started


def _assert_whole(backend: Backend, write: str, cursor: int | None = None) -> None:
    """Rows, quarantine and state are those of an undisturbed run up to the cursor."""
    destination = open_orders(backend, write, "orders")
    state: Any = destination.state()
    assert cursor is None or state == {"cursor": cursor}
    twin = open_orders(backend, write, "twin")
    advance(twin, state["cursor"])
    assert backend.rows("orders", order="id, run") == backend.rows("twin", order="id, run")
    assert _bad(destination) == _bad(twin)


def _assert_one_family(backend: Backend, write: str, cursor: int | None = None) -> None:
    state: Any = open_family(backend, write).state()
    assert cursor is None or state == {"cursor": cursor}
    run = state["cursor"] - 1
    assert [(row["id"], row["run"]) for row in backend.rows()] == [(id_, run) for id_ in range(4 * ROWS)]
    lines = [tuple(row.values()) for row in backend.rows("order_lines", order="order_id, position")]
    assert lines == [(id_, place, run) for id_ in range(4 * ROWS) for place in range(children_of(id_, run))]


def _bad(destination: Any) -> list[tuple[Any, ...]]:
    return sorted((row.bad.origin["record"], row.bad.row["amount"], row.run_id) for row in destination.quarantined())
