"""The table, for people: seconds, ratios, targets."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.jobs import Job
from benchmarks.measure import Measured

_LIBRARIES = ("pyarrow", "duckdb", "adbc-driver-postgresql")
_HEAD = "| job | floor | engine | ratio | target | met | dlt | Sling | pandas | engine's processor, peak memory |"


@dataclass(frozen=True, slots=True)
class Row:
    """What one job took.

    Args:
        job: The job.
        floor: The floor's best run.
        engine: The engine's best run.
        peak: The engine's largest memory over all its runs, in bytes.
        peers: Who else did it.
    """

    job: Job
    floor: Measured
    engine: Measured
    peak: int
    peers: Mapping[str, Measured]

    @property
    def line(self) -> str:
        """The row in Markdown."""
        limit = self.floor.seconds * self.job.ratio + self.job.more
        target = f"{self.job.ratio:g} x" + (f" + {self.job.more:g} s" if self.job.more else "")
        cells = [
            self.job.title,
            f"{self.floor.seconds:.2f} s",
            f"{self.engine.seconds:.2f} s",
            f"{self.engine.seconds / self.floor.seconds:.2f}",
            f"<= {target}",
            "yes" if self.engine.seconds <= limit else "no",
            *(f"{self.peers[peer].seconds:.1f} s" if peer in self.peers else "" for peer in ("dlt", "sling", "pandas")),
            f"{self.engine.processor:.1f} s, {self.peak / 1e6:.0f} MB",
        ]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of the events' side.

    Args:
        title: What was measured.
        found: What came of it.
        target: What it was to be.
        met: Whether it is.
    """

    title: str
    found: str
    target: str
    met: bool

    @property
    def line(self) -> str:
        """The row in Markdown."""
        return f"| {self.title} | {self.found} | {self.target} | {'yes' if self.met else 'no'} |"


def write_report(path: Path, rows: Sequence[Row], findings: Sequence[Finding], orders: int) -> None:
    """Writes the tables, with the machine that they are from."""
    rule = "|".join(["---"] * _HEAD.count(" | ") + ["---"])
    path.write_text(
        f"""# How fast the engine is

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}, at {_commit()}, on {_machine()}.

{orders:,} orders of 10 columns. Engine and floor take turns, the best of their runs counts; peers run once, without any
rules. The engine applies all of them: 2 renames, 7 conversions, 5 validations, 1 derived column, 1 filter; 1 row in
100 is quarantined. A floor moves the same data by the barest means (`benchmarks/floors.py`). Each is a whole process,
from its start to its end.

{_HEAD}
|{rule}|
{chr(10).join(row.line for row in rows)}

{", ".join(f"{name} {version(name)}" for name in _LIBRARIES)}, Python {platform.python_version()};
dlt, Sling and pandas as pinned in `requirements/peers.txt`; PostgreSQL with its default configuration, fsync on.

## Events and streams

The receiver takes Stripe's events of 2 KB over 64 connections, in one process; its floor (`benchmarks/receiver.py`) is
a bare app with the same verification and group commit. They take turns; the median of the ratios counts. Behind it, an
event has landed when the log (SQLite) has taken it, and is a row when PostgreSQL has committed it. A topic has JSON
records of 200 bytes in three partitions, and the run applies all kinds of rules; the loops of kafka-python and
confluent-kafka (`benchmarks/polling.py`) do nothing but count. dlt (modelled on its verified source `kafka`) and Quix
Streams (with its own sink) load 200,000 records without any rules.

| what | found | target | met |
|---|---|---|---|
{chr(10).join(finding.line for finding in findings)}
""",
        encoding="utf-8",
    )


def _commit() -> str:
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _machine() -> str:
    cpu = next((line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return f"{os.cpu_count()} cores ({cpu}), {memory / 2**20:.0f} GiB, {platform.system()} {platform.release()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
