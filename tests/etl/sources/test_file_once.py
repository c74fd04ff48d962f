"""Each file is loaded once, though a run fails or is killed between two of them."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from errors import SourceError
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from tests.etl.sources.reading import read

ROOT = Path(__file__).parents[3]
WAREHOUSE = {"type": "database", "connection": "duckdb:///warehouse.duckdb", "table": "payments", "write": "append"}
LAKE = {"type": "file", "path": "lake/payments", "write": "append"}
KILLED_AT_B = """
import os, signal, sys
from etl.pipeline import Pipeline
from etl.run import run_pipeline
from etl.sources.delimited import Delimited

whole = Delimited.batches

def batches(self, file):
    if file.name.endswith("b.csv.gz"):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, file)

Delimited.batches = batches
run_pipeline(Pipeline.model_validate_json(sys.argv[1]))
"""


def pipeline(destination: dict[str, Any]) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "payments",
            "description": "d",
            "source": {"type": "file", "path": "inbox/*.csv.gz", "incremental": True},
            "destination": destination,
        }
    )


def put(folder: Path, name: str, *ids: int, whole: bool = True) -> None:
    content = gzip.compress(b"id\n" + b"".join(b"%d\n" % number for number in ids))
    (folder / "inbox").mkdir(exist_ok=True)
    (folder / "inbox" / name).write_bytes(content if whole else content[:-6])


def loaded(folder: Path, destination: dict[str, Any]) -> list[str]:
    if destination is LAKE:
        return sorted(pq.read_table((folder / "lake/payments").resolve())["id"].to_pylist())
    source = {name: destination[name] for name in ("type", "connection", "table")}
    return sorted(read(source).column("id"))


@pytest.mark.parametrize("destination", [WAREHOUSE, LAKE], ids=["database", "files"])
def test_a_run_that_is_killed_between_two_files_is_made_good_by_the_next(
    folder: Path, destination: dict[str, Any]
) -> None:
    put(folder, "0.csv.gz", 0)
    run_pipeline(pipeline(destination))
    put(folder, "a.csv.gz", 1, 2)
    put(folder, "b.csv.gz", 3)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_B, pipeline(destination).model_dump_json(by_alias=True)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert loaded(folder, destination) == ["0"]
    assert run_pipeline(pipeline(destination)).inserted == 3
    assert run_pipeline(pipeline(destination)).inserted == 0
    assert loaded(folder, destination) == ["0", "1", "2", "3"]


def test_a_second_file_that_is_cut_off_keeps_the_first_one_back_until_it_is_whole(folder: Path) -> None:
    put(folder, "a.csv.gz", 1, 2)
    put(folder, "b.csv.gz", 3, whole=False)
    with pytest.raises(SourceError, match=r"inbox/b\.csv\.gz: is cut off"):
        run_pipeline(pipeline(WAREHOUSE))
    put(folder, "b.csv.gz", 3)
    assert run_pipeline(pipeline(WAREHOUSE)).inserted == 3
    assert run_pipeline(pipeline(WAREHOUSE)).inserted == 0
    assert loaded(folder, WAREHOUSE) == ["1", "2", "3"]
