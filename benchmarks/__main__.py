"""Runs the jobs and writes the table: `python -m benchmarks [JOB ...] [--rows N] [--repeat N] [--peers PYTHON]`.

Engine and floor take turns, and the best of their runs counts: other work on the machine only ever adds. Peers run
once. Each run is a new process, and its target a new copy of the same database.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psycopg

from benchmarks import data, events, receiver, stream
from benchmarks.jobs import JOBS, Job
from benchmarks.measure import Measured, measure
from benchmarks.report import Finding, Row, write_report
from tests.services.postgres import running
from tests.services.process import free_port

HERE = Path(__file__).parent
EVENTS: Mapping[str, Callable[[Path | None], list[Finding]]] = {
    "receiver": lambda _: receiver.findings(),
    "landed": lambda _: events.landed_to_row(),
    "handled": lambda _: events.handled(),
    "stream": stream.findings,
    "backlog": stream.backlog,
}
"""What is measured of the events' side, given a Python that has the peers."""


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("jobs", nargs="*", help=f"which of {', '.join([*JOBS, *EVENTS])}; all if none is named")
    parser.add_argument("--rows", type=int, default=2_000_000, help="orders to move")
    parser.add_argument("--indexed", type=int, default=10_000_000, help="rows of the indexed table")
    parser.add_argument("--repeat", type=int, default=3, help="runs of engine and floor")
    parser.add_argument("--peers", type=Path, help="Python that has the peers; without it they are left out")
    parser.add_argument("--report", type=Path, help="file that the table is written to")
    options = parser.parse_args()
    asked = options.jobs or [*JOBS, *EVENTS]
    rows = _run([JOBS[name] for name in asked if name not in EVENTS], options)
    findings = [finding for name in asked if name in EVENTS for finding in _found(name, options.peers)]
    if options.report:
        write_report(options.report, rows, findings, options.rows)


def _run(jobs: Collection[Job], options: argparse.Namespace) -> list[Row]:
    if not jobs:
        return []
    with running() as server, tempfile.TemporaryDirectory(prefix="pivotal-bench-") as folder:
        bench = Bench(server.admin_url, Path(folder), options.rows, options.indexed, options.peers)
        bench.prepare(jobs)
        rows = []
        for job in jobs:
            rows.append(bench.run(job, options.repeat))
            print(rows[-1].line, flush=True)
        return rows


def _found(name: str, peers: Path | None) -> list[Finding]:
    findings = EVENTS[name](peers)
    for finding in findings:
        print(finding.line, flush=True)
    return findings


class Bench:
    """The place where jobs run.

    Args:
        admin_url: A PostgreSQL server's database in which databases can be created.
        folder: Where files go.
        rows: How many orders are moved.
        indexed: How many rows the indexed table has.
        peers: Python that has the peers.
    """

    def __init__(self, admin_url: str, folder: Path, rows: int, indexed: int, peers: Path | None) -> None:
        self._admin, self._folder, self._rows, self._indexed, self._peers = admin_url, folder, rows, indexed, peers
        self._port = free_port()
        (folder / "pipelines").symlink_to(HERE / "pipelines")

    def prepare(self, jobs: Collection[Job]) -> None:
        """Makes what the jobs read."""
        self._create("empty", "template1")
        orders = data.write_csv(self._csv("orders"), self._rows)
        data.write_csv(self._folder / "ten.csv", 10)
        data.write_csv(self._csv("all_changed"), self._rows, changed_every=1)
        data.write_csv(self._csv("some_changed"), self._rows, changed_every=10)
        self._create("source", "template1")
        if any(job.floor == "postgresql_to_parquet" for job in jobs):
            data.make_orders(self._url("source"), orders)
        if any(job.floor == "changed_rows" for job in jobs):
            data.make_indexed(self._url("source"), self._indexed)
        if any(job.target == "loaded" for job in jobs):
            self._create("loaded", "template1")
            data.make_loaded(self._url("loaded"), orders)

    def run(self, job: Job, repeat: int) -> Row:
        """Runs engine and floor in turn, then the peers."""
        floors, engines, peers = [], [], {}
        with self._api(job):
            for _ in range(repeat):
                floors.append(self._measured(job, sys.executable, "-m", "benchmarks.floors", job.floor))
                engines.append(self._measured(job, Path(sys.executable).with_name("pivotal"), "run", job.pipeline))
            for peer in job.peers if self._peers else ():
                peers[peer] = self._peer(job, peer)
        best = min(engines, key=lambda run: run.seconds)
        return Row(job, min(floors, key=lambda run: run.seconds), best, max(run.peak for run in engines), peers)

    def _peer(self, job: Job, peer: str) -> Measured:
        if before := job.before.get(peer):
            self._fresh(job)
            measure(self._command(job, peer, before), self._environment(before))
        return self._measured(job, *self._command(job, peer, job.csv), fresh=not before)

    def _command(self, job: Job, peer: str, csv: str) -> list[str | Path]:
        assert self._peers
        if peer != "sling":
            return [self._peers, HERE / "peers.py", peer, job.pipeline]
        [binary] = self._peers.parent.parent.glob("lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64")
        binary.chmod(0o755)
        places = {"csv": self._csv(csv), "out": self._folder / "out"}
        return [binary, "run", *(argument.format(**places) for argument in job.sling)]

    def _measured(self, job: Job, *command: str | Path, fresh: bool = True) -> Measured:
        if fresh:
            self._fresh(job)
        with psycopg.connect(self._admin, autocommit=True) as server:
            server.execute("CHECKPOINT")
        return measure(command, self._environment(job.csv))

    def _fresh(self, job: Job) -> None:
        """A target that is as it was before the first run."""
        for leftover in ("lake", "data", "dlt"):
            shutil.rmtree(self._folder / leftover, ignore_errors=True)
        for file in [self._folder / "out", *self._folder.glob("warehouse.duckdb*")]:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        self._create("target", job.target)

    def _environment(self, csv: str) -> dict[str, str]:
        return {
            "PIVOTAL_ROOT": str(self._folder),
            "BENCH_FOLDER": str(self._folder / "dlt"),
            "BENCH_SOURCE_URL": self._url("source"),
            "BENCH_TARGET_URL": self._url("target"),
            "BENCH_CSV": str(self._csv(csv)),
            "BENCH_OUT": str(self._folder / "out"),
            "BENCH_API": f"http://127.0.0.1:{self._port}/customers",
            "PYTHONPATH": str(HERE.parent),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "SLING_DUCKDB_COMPUTE": "false",
            "SLING_DISABLE_TELEMETRY": "true",
            "DLT_PROJECT_DIR": str(self._folder),
        }

    @contextmanager
    def _api(self, job: Job) -> Iterator[None]:
        if job.floor != "api_to_postgresql":
            yield
            return
        server = subprocess.Popen([sys.executable, "-m", "benchmarks.api_server", str(self._port)], cwd=HERE.parent)
        try:
            _await(f"http://127.0.0.1:{self._port}/customers?page=1")
            yield
        finally:
            server.terminate()
            server.wait()

    def _csv(self, name: str) -> Path:
        return self._folder / f"{name}.csv"

    def _url(self, database: str) -> str:
        return f"{self._admin.rpartition('/')[0]}/{database}?sslmode=disable"  # Sling asks for TLS otherwise

    def _create(self, database: str, template: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY FILE_COPY")


def _await(url: str) -> None:
    for _ in range(600):
        try:
            with urlopen(url, timeout=10):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


if __name__ == "__main__":
    main()
