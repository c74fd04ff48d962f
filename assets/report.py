"""What Dagster shows of a run: its report as metadata and check results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from etl.lineage import column_lineage
from etl.pipeline import Pipeline
from etl.stream import BadRow, PartitionLag, RunReport


def metadata(pipeline: Pipeline, upstream: dg.AssetKey, report: RunReport) -> dict[str, Any]:
    """The metadata of a materialization.

    Args:
        pipeline: The pipeline that ran.
        upstream: The asset it read.
        report: What the run did.
    """
    return {
        "rows_extracted": report.extracted,
        "rows_loaded": report.loaded,
        "rows_inserted": report.inserted,
        "rows_updated": report.updated,
        "rows_filtered": report.filtered,
        "rows_quarantined": report.quarantined,
        "rows_deduplicated": report.deduplicated,
        "rows_deleted": report.deleted,
        "rows_expired": report.expired,
        **(_stream(report) if report.lag else {}),
        **{f"rows_of_{child}": count for child, count in report.children.items()},
        "bytes_read": report.bytes_read,
        "seconds": round(report.seconds, 3),
        "rows_per_second": report.rows_per_second,
        "peak_memory_bytes": report.peak_memory,
        "source": report.source,
        "destination": report.destination,
        "partition": report.partition,
        "state_before": dg.MetadataValue.json(report.state_before or {}),
        "state_after": dg.MetadataValue.json(report.state_after or {}),
        **({"partitions": dg.MetadataValue.md(_markdown([_lag(each) for each in report.lag]))} if report.lag else {}),
        "preview": dg.MetadataValue.md(_markdown(report.preview)),
        "rejected": dg.MetadataValue.md(_markdown([_rejected(bad) for bad in report.rejected])),
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, kind) for name, kind in report.schema.items()]),
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(upstream, source) for source in sources]
                for column, sources in column_lineage(pipeline.transform, report.schema).items()
            }
        ),
    }


def checks(report: RunReport) -> list[dg.AssetCheckResult]:
    """The results of the asset's checks: what the run knows already, nothing is read again."""
    counts = {"extracted": report.extracted, "loaded": report.loaded, "filtered": report.filtered}
    counts |= {"quarantined": report.quarantined, "deduplicated": report.deduplicated}
    counts |= {"tombstones": report.tombstones} if report.tombstones else {}
    share = report.quarantined / report.extracted if report.extracted else 0.0
    return [
        dg.AssetCheckResult(check_name="rows_accounted_for", passed=report.balanced, metadata=counts),
        dg.AssetCheckResult(
            check_name="no_row_quarantined",
            passed=report.quarantined == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"quarantined": report.quarantined, "share": share},
            description=f"see them: pivotal quarantine show {report.pipeline}" if report.quarantined else None,
        ),
    ]


def _stream(report: RunReport) -> Mapping[str, Any]:
    """What waits after the run, and what of it had no value."""
    ages = [each.oldest for each in report.lag if each.oldest is not None]
    return {
        "tombstones": report.tombstones,
        "records_missed": report.missed,
        "lag": sum(each.lag for each in report.lag),
        "oldest_unread_seconds": round(max(ages), 3) if ages else None,
    }


def _lag(each: PartitionLag) -> Mapping[str, object]:
    shown = {"topic": each.topic, "partition": each.partition, "committed": each.committed, "end": each.end}
    age = None if each.oldest is None else f"{each.oldest:,.1f} s"
    return {**shown, "lag": each.lag, "oldest unread": age}


def _rejected(bad: BadRow) -> Mapping[str, object]:
    return {
        "where": ", ".join(f"{key} {value}" for key, value in bad.origin.items()),
        "why": "; ".join(f"{broken.column}: {broken.message}" for broken in bad.broken),
        "row": json.dumps(dict(bad.row), ensure_ascii=False),
    }


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table; values are cut at 80 characters."""
    if not rows:
        return "none"
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_cell(row.get(name)) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    short = text if len(text) <= 80 else text[:79] + "…"
    return short.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
