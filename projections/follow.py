"""The long-lived worker: landed events -> tables as they land, by the code that a sensor's run uses.

Any number may follow one log, beside runs of the sensor: each portion is applied by one of them (see
`projections.apply`). Between portions nothing of the warehouse is held, so pipelines get their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from threading import Event as Signal

from etl.destinations.warehouse import Warehouse
from events.envelope import new_id
from events.log import EventLog
from events.retry import keep_on
from projections import PATTERNS
from projections.apply import Applied, portions, position

PATIENCE = 1.0
"""Seconds between two looks at whether to stop, while no event comes."""

REST = 0.05
"""Seconds between two portions: events gather, and whoever waits for an embedded warehouse gets his turn."""

logger = logging.getLogger(__name__)


def follow(
    open_log: Callable[[], EventLog], warehouse: Warehouse, stop: Signal, tell: Callable[[Applied], None]
) -> None:
    """Applies events until it is told to stop; the portion in hand is ended. Goes on by itself after any trouble.

    Args:
        open_log: Opens the log; called again after trouble, for what was opened before may be of no use any more.
        warehouse: Where the tables are.
        stop: Set by who wants it to end.
        tell: Called with each portion, once it is committed. It must neither block nor raise.

    Raises:
        PivotalError: As `keep_on`.
    """
    run_id = new_id()

    def work(log: EventLog) -> Iterator[None]:
        for applied in _applied(log, warehouse, stop, run_id):
            _log(applied)
            tell(applied)
            yield

    keep_on(work, open_log, stop, trouble="events cannot be applied")


def _applied(log: EventLog, warehouse: Warehouse, stop: Signal, run_id: str) -> Iterator[Applied]:
    seen = position(log, warehouse)
    logger.info("following the event log", extra={"position": seen, "head": log.head()})
    while not stop.is_set():
        head = log.wait(seen, PATIENCE)
        if head < seen:  # another log took the place of this one
            seen = 0
        if log.read(seen, 1, until=head, types=PATTERNS):
            for applied in portions(log, warehouse, None, head, run_id=run_id):
                yield applied
                if stop.wait(REST):
                    return
        seen = head


def _log(applied: Applied) -> None:
    for dead in applied.dead:
        told = {"sequence": dead.sequence, "type": dead.type, "hint": "see `pivotal events dead`"}
        logger.warning("an event is a dead letter now", extra=told)
    rows = {table: change.loaded.inserted + change.loaded.updated for table, change in applied.tables.items()}
    logger.info("events applied", extra={"events": applied.events, "position": applied.position, "rows": rows})
