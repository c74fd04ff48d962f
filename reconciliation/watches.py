"""The promises of calendar services to tell us of changes: made, prolonged before they end, made anew when lost.

They are kept beside the tables. Killed between asking for one and keeping it, one goes on that nobody knows of: it
tells what another tells, too, and ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from etl.destinations.warehouse import Warehouse
from etl.lock import only_run_of
from events.log import EventLog
from integrations.calendar.model import LIFETIME, Calendars, Watch, stop_replaced
from reconciliation.calendars import SERVICES
from reconciliation.failures import Failures
from reconciliation.reading import digest, remember, remembered

_LOST, _TO_RENEW = "outlook.subscription.subscription_removed", "outlook.subscription.reauthorization_required"


def keep_watches(
    calendars: Calendars,
    calendar_ids: Sequence[str],
    url: str,
    log: EventLog,
    warehouse: Warehouse,
    *,
    run_id: str,
    now: datetime | None = None,
) -> list[Watch]:
    """Sees to it that each calendar has one watch, with the secret of now and more than half of its life before it.

    Args:
        calendars: Asks the service.
        calendar_ids: Which calendars; others are not watched any more. Graph tells of all of a user's by one watch.
        url: The receiver.
        log: What became of watches by itself (Graph's lifecycle notifications).
        warehouse: Where watches are kept.
        run_id: Who looks.
        now: The time; only a test says another one.

    Raises:
        CalendarIntegrationError: The service refused, or cannot be reached, for one calendar; the others' watches
            are seen to, and kept.
        DestinationError: The warehouse cannot be read or written.
        PivotalError: The watches' secret is not set, somebody else is at it, or several calendars failed.
    """
    provider = SERVICES[calendars.service]
    name = f"watches/{provider}/{digest(calendars.account)}"
    wanted, failures = calendar_ids[:1] if provider == "outlook" else calendar_ids, Failures()
    with only_run_of(name.replace("/", "-")):
        state = remembered(log, warehouse, name)
        kept = {watch.calendar_id: watch for watch in map(_watch, state.get("watches", []))}  # type: ignore[call-overload]
        position = int(str(state.get("position", log.head())))
        told, read = _told(log, position)
        for calendar_id in [*wanted, *(kept.keys() - set(wanted))]:
            before = after = kept.pop(calendar_id, None)
            asked_for = url if calendar_id in wanted else None
            with failures.noted():
                after = _upheld(calendars, calendar_id, before, asked_for, told, now or datetime.now(UTC))
            if after:
                kept[calendar_id] = after
            if after != before:
                remember(log, warehouse, name, run_id, _state(kept, position))
        if read > position and not failures:
            remember(log, warehouse, name, run_id, _state(kept, read))
    failures.tell()
    return [*kept.values()]


def _upheld(
    calendars: Calendars,
    calendar_id: str,
    before: Watch | None,
    url: str | None,
    told: Mapping[str, str],
    now: datetime,
) -> Watch | None:
    """The watch that there is to be; None if none is wanted."""
    lost = before is None or before.expires <= now or told.get(before.id) == _LOST
    if before is not None and url == before.url and not lost and calendars.knows(before):
        due = before.expires - now < LIFETIME / 2 or told.get(before.id) == _TO_RENEW
        return calendars.renew(before) if due else before
    after = None if url is None else calendars.watch(calendar_id, url)
    if before is not None and not lost:
        _stop(calendars, before, replaced=after is not None)
    return after


def _stop(calendars: Calendars, watch: Watch, *, replaced: bool) -> None:
    """One that nothing stands in for is tried again the next time."""
    if replaced:
        stop_replaced(calendars, watch)
    else:
        calendars.stop(watch)


def _told(log: EventLog, after: int) -> tuple[dict[str, str], int]:
    """What Graph told of watches last, by their ids, and how far the log was read."""
    told: dict[str, str] = {}
    while found := log.read(after, 100, types=[_LOST, _TO_RENEW]):
        told |= {each.event.aggregate_id: each.event.type for each in found}
        after = found[-1].sequence
    return told, after


def _state(kept: Mapping[str, Watch], position: int) -> dict[str, object]:
    watches = [{**asdict(watch), "expires": watch.expires.isoformat()} for watch in kept.values()]
    return {"watches": watches, "position": position}


def _watch(record: Mapping[str, Any]) -> Watch:
    return Watch(**{**record, "expires": datetime.fromisoformat(record["expires"])})
