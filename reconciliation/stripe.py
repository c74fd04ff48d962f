"""Stripe's events since the last reading: the same that its webhooks tell, by the same mapping."""

from __future__ import annotations

import logging
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic_core import to_json

from etl.destinations.warehouse import Warehouse
from etl.lock import only_run_of
from events.envelope import Event
from events.log import EventLog
from gateway.providers.stripe import stripe_events
from reconciliation.reading import Reconciled, begin, digest, publish, remember, remembered

if TYPE_CHECKING:
    import stripe as sdk
    from stripe.params import EventListParamsCreated

    from integrations.stripe import Stripe

OVERLAP = timedelta(hours=1)
"""What is read again each time: Stripe may list an event later than others that were made after it."""

WINDOW = 86_400
"""Seconds after which it is kept how far a reading has come: one that is killed goes on from there."""

KEPT = timedelta(days=30)
"""How long Stripe keeps events."""

logger = logging.getLogger(__name__)


def reconcile_stripe(
    stripe: Stripe,
    log: EventLog,
    warehouse: Warehouse,
    *,
    run_id: str,
    since: datetime | None = None,
    keep: timedelta = KEPT,
    now: datetime | None = None,
) -> Reconciled:
    """Publishes what Stripe has told since the last reading, oldest first; the first time, all that it keeps.

    Args:
        stripe: Asks Stripe.
        log: Where the events go.
        warehouse: Where it is kept how far the last reading came: to when it began.
        run_id: Who reads.
        since: Read from this time on; from where it would begin anyway if that is longer ago.
        keep: How long the log keeps events: what was deleted there would be new again, so it is not read.
        now: The time; only a test says another one.

    Raises:
        StripeIntegrationError: Stripe refused, or cannot be reached; the next call goes on from that day.
        EventLogError: The log cannot be written.
        DestinationError: The warehouse cannot be read or written.
        PivotalError: Another reading goes on.
    """
    with only_run_of("reconcile-stripe"):
        began, name = now or datetime.now(UTC), state_name(stripe)
        last = remembered(log, warehouse, name).get("until")
        until = None if last is None else datetime.fromtimestamp(int(str(last)), UTC)
        oldest = began - min(keep, KEPT)
        if until and until < oldest:
            logger.warning(
                "stripe: events of %s to %s are lost: %d days are kept", until, oldest, (began - oldest).days
            )
        start = begin(until, since, KEPT, OVERLAP, oldest)
        found = Reconciled("stripe")
        for first, end in _windows(int(start.timestamp()), int(began.timestamp())):
            listed = stripe.events.list({"created": first})
            found += publish(log, _oldest_first(map(_body, listed)), "stripe")
            remember(log, warehouse, name, run_id, {"until": end})
        return found


def _windows(start: int, began: int) -> Iterator[tuple[EventListParamsCreated, int]]:
    """A day each, and its end; the last one has none: what happens meanwhile is read, too."""
    while start + WINDOW < began:
        yield {"gte": start, "lt": start + WINDOW}, start + WINDOW
        start += WINDOW
    yield {"gte": start}, began


def state_name(stripe: Stripe) -> str:
    """Under which name it is kept when the last reading began: each account its own."""
    return f"reconciliation/stripe/{digest(stripe.account)}"


def _body(event: sdk.Event) -> bytes:
    """As the webhook would send it."""
    return to_json(event.to_dict(for_json=True))


def _oldest_first(bodies: Iterable[bytes]) -> Iterator[Event]:
    """Stripe lists the newest first; in between, they wait on the disk."""
    with tempfile.TemporaryFile() as spool:
        ends = array("Q", [0])
        for body in bodies:
            spool.write(body)
            ends.append(spool.tell())
        for number in range(len(ends) - 1, 0, -1):
            spool.seek(ends[number - 1])
            yield from stripe_events(spool.read(ends[number] - ends[number - 1]))
