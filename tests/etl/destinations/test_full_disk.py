"""A disk that is full, really: a tmpfs of a few megabytes."""

from __future__ import annotations

import random
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from errors import DestinationError
from etl.destinations.spool import Spool
from tests.etl.destinations.backends import FILES, load, make_backend, rows


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, mounted over the test's folder."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs needs root on Linux: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("kind", ["duckdb", "sqlite", *FILES])
def test_a_full_disk_is_named_and_loses_nothing(kind: str, small_disk: Path, request: pytest.FixtureRequest) -> None:
    backend = make_backend(kind, request)
    destination = backend.destination()
    load(destination, rows(id=[1], text=["small"]), state={"cursor": 1})

    with pytest.raises(DestinationError) as error:
        load(destination, *_large(), run_id="run-2", state={"cursor": 2})

    assert error.value.retryable
    assert "the disk is full" in str(error.value.hint)
    assert (backend.rows(), destination.state()) == ([{"id": 1, "text": "small"}], {"cursor": 1})

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    load(destination, *_large(), run_id="run-2", state={"cursor": 2})
    assert len(backend.rows()) == 8001
    assert destination.state() == {"cursor": 2}


def test_rows_that_wait_for_their_turn_do_not_fill_the_disk_unnoticed(small_disk: Path) -> None:
    batches = _large() * 10

    with Spool(small_disk) as spool, pytest.raises(DestinationError, match="No space left") as error:
        deque(map(spool.write, batches), maxlen=0)

    assert error.value.retryable


def _large() -> list[pa.RecordBatch]:
    """8 MB that no compression makes smaller."""
    noise = random.Random(7)
    return [
        rows(id=list(range(start, start + 1000)), text=[noise.randbytes(500).hex() for _ in range(1000)])
        for start in range(2, 8002, 1000)
    ]
