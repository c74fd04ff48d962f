"""The jobs: what is moved, by whom, and how fast it has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the table.

    Args:
        title: What is moved.
        pipeline: The engine's pipeline (`benchmarks/pipelines/`) and the function of the peers.
        floor: The floor (`benchmarks.floors`).
        ratio: How many times the floor's seconds the engine may take ...
        more: ... and how many seconds besides.
        csv: Which file it reads, if it reads one.
        target: Which database its target is a copy of.
        peers: Who else does it: dlt, sling, pandas.
        before: What a peer loads first, unmeasured, so that there is something to merge into.
        sling: Sling's arguments.
    """

    title: str
    pipeline: str
    floor: str
    ratio: float
    more: float = 0.0
    csv: str = ""
    target: str = "empty"
    peers: tuple[str, ...] = ("dlt", "sling", "pandas")
    before: Mapping[str, str] = field(default_factory=dict)
    sling: tuple[str, ...] = ()


_FILE, _SOURCE, _TARGET = "file://{csv}", "BENCH_SOURCE_URL", "BENCH_TARGET_URL"
_LOAD = ("--src-stream", _FILE, "--tgt-conn", _TARGET, "--tgt-object")


def _merge(what: str, ratio: float, csv: str) -> Job:
    return Job(
        f"CSV -> PostgreSQL, merge, {what}",
        "csv_merge",
        "csv_merge",
        ratio,
        csv=csv,
        target="loaded",
        before={"dlt": "orders", "sling": "orders"},
        sling=(*_LOAD, "public.orders", "--mode", "incremental", "--primary-key", "orderid"),
    )


JOBS = {
    "pg-parquet": Job(
        "PostgreSQL -> Parquet",
        "postgresql_to_parquet",
        "postgresql_to_parquet",
        1.0,
        sling=("--src-conn", _SOURCE, "--src-stream", "public.orders", "--tgt-object", "file://{out}"),
    ),
    "csv-pg": Job(
        "CSV -> PostgreSQL, append",
        "csv_to_postgresql",
        "csv_to_postgresql",
        1.15,
        csv="orders",
        sling=(*_LOAD, "public.orders", "--mode", "full-refresh"),
    ),
    "merge-all": _merge("all rows changed", 1.0, "all_changed"),
    "merge-some": _merge("10% changed", 0.5, "some_changed"),
    "csv-parquet": Job(
        "CSV -> Parquet",
        "csv_to_parquet",
        "csv_to_parquet",
        1.2,
        csv="orders",
        sling=("--src-stream", _FILE, "--tgt-object", "file://{out}"),
    ),
    "api-pg": Job(
        "JSON API (200k nested records) -> PostgreSQL",
        "api_to_postgresql",
        "api_to_postgresql",
        1.6,
        peers=("dlt", "pandas"),
    ),
    "ten": Job("10 rows, whole process", "ten_rows", "nothing", 1.0, 0.8, peers=()),
    "changed": Job(
        "1,000 changed rows of 10M",
        "changed_rows",
        "changed_rows",
        2.0,
        1.0,
        peers=("dlt", "sling"),
        sling=(
            "--src-conn",
            _SOURCE,
            "--src-stream",
            "select * from changes where updated_at >= '2026-01-01'",
            "--tgt-conn",
            _TARGET,
            "--tgt-object",
            "public.changes",
        ),
    ),
}
