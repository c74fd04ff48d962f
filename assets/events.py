"""The tables that landed events maintain, and the job that brings them up to an event.

Light on purpose: Dagster loads this module at every start, so what writes tables is imported inside the op.
"""

from inspect import cleandoc
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from errors import PivotalError
from projections import PROJECTIONS, TABLES
from projections.tables import Row, columns
from resources.event_log import EventLogResource
from resources.warehouse import WarehouseResource

if TYPE_CHECKING:
    from projections.apply import Applied, Change

GROUP = "events"

MAX_SECONDS = 300
"""After which a run counts as lost, if Dagster's run monitoring is on; a full range takes seconds."""


def _landed(source: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["webhooks", source],
        description=f"What {source} sent: events in the log, as the receiver took them.",
        group_name=GROUP,
        kinds={"webhook"},
    )


def _table(row: type[Row]) -> dg.AssetSpec:
    schema = [dg.TableColumn(name, kind, description=text or None) for name, (kind, text) in columns(row).items()]
    return dg.AssetSpec(
        row.table,
        deps=[["webhooks", source] for source in row.sources],
        description=cleandoc(row.__doc__ or ""),
        group_name=GROUP,
        kinds={"table", *row.sources},
        metadata={"dagster/table_name": row.table, "dagster/column_schema": dg.TableSchema(schema)},
    )


table_specs = [*map(_landed, PROJECTIONS), *map(_table, TABLES)]
"""External assets: the providers' landed events, and the tables that `process_landed_events` makes of them."""


class EventRange(dg.Config):
    """Which landed events a run applies; without any of it: all that the tables do not hold yet."""

    after: int | None = Field(None, description="Start behind this sequence; where the tables stand if not given.")
    until: int | None = Field(None, description="The last sequence; the last one in the log if not given.")


@dg.op
def apply_landed_events(
    context: dg.OpExecutionContext,
    config: EventRange,
    event_log: EventLogResource,
    warehouse: WarehouseResource,
) -> None:
    """Applies a range of landed events to the tables; poisoned ones go to the dead-letter list."""
    from etl.startup import hide_pandas_from_pyarrow
    from projections.apply import apply_range

    hide_pandas_from_pyarrow()
    try:
        with event_log.open() as log:
            until = log.head() if config.until is None else config.until
            applied = apply_range(log, warehouse.open(), config.after, until, run_id=context.run_id)
    except PivotalError as error:
        raise dg.Failure(str(error)) from None
    _tell(context, applied)


@dg.job(executor_def=dg.in_process_executor, tags={"dagster/max_runtime": str(MAX_SECONDS)})
def process_landed_events() -> None:
    """Brings the tables of landed events up to date; `landed_events_sensor` asks for it."""
    apply_landed_events()


def materialization(table: str, change: "Change", dead: int) -> dg.AssetMaterialization:
    """What Dagster is told of a table, by a run and by the worker.

    Args:
        table: The table.
        change: What happened to it.
        dead: How many events became dead letters meanwhile, whatever they told of.
    """
    loaded = change.loaded
    counts = {
        "rows_inserted": loaded.inserted,
        "rows_updated": loaded.updated,
        "rows_deduplicated": loaded.deduplicated,
        "first_sequence": change.first,
        "last_sequence": change.last,
        "dead_letters": dead,
    }
    metadata: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(count) for name, count in counts.items()}
    preview = [dg.TableRecord({name: _shown(value) for name, value in row.items()}) for row in change.preview]
    return dg.AssetMaterialization(table, metadata={**metadata, "preview": dg.MetadataValue.table(preview)})


def _tell(context: dg.OpExecutionContext, applied: "Applied") -> None:
    for dead in applied.dead:
        context.log.warning(f"event {dead.sequence} ({dead.type}) is a dead letter now: {dead.error}")  # noqa: G004
    for table, change in applied.tables.items():
        context.log_event(materialization(table, change, len(applied.dead)))
    context.log.info(f"{applied.events} events applied; the tables hold everything up to {applied.position}")  # noqa: G004


def _shown(value: object) -> str | int | bool | None:
    return value if value is None or isinstance(value, str | int) else str(value)
