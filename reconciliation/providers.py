"""Each provider, read as the settings declare it."""

from __future__ import annotations

from datetime import datetime, timedelta

from errors import PivotalError
from etl.destinations.warehouse import Warehouse
from events.log import EventLog
from integrations.calendar.model import Calendars
from integrations.stripe import Stripe
from integrations.twilio import Twilio
from reconciliation.calendars import SERVICES, reconcile_calendar
from reconciliation.failures import Failures
from reconciliation.reading import Reconciled
from reconciliation.stripe import KEPT, reconcile_stripe
from reconciliation.twilio import reconcile_twilio
from reconciliation.watches import keep_watches
from settings import Settings, several


def reconcile(
    client: Stripe | Twilio | Calendars,
    settings: Settings,
    log: EventLog,
    warehouse: Warehouse,
    *,
    run_id: str,
    since: datetime | None = None,
) -> Reconciled:
    """Reads what a provider's webhooks may have missed.

    Args:
        client: Asks the provider.
        settings: Which calendars; how long the log keeps events.
        log: Where the events go.
        warehouse: Where to go on from is kept.
        run_id: Who reads.
        since: Read Stripe or Twilio from this time on.

    Raises:
        PivotalError: As `reconcile_stripe`, `reconcile_twilio` or `reconcile_calendars`.
    """
    keep = timedelta(days=settings.events_keep) if settings.events_keep else None
    if isinstance(client, Stripe):
        return reconcile_stripe(client, log, warehouse, run_id=run_id, since=since, keep=keep or KEPT)
    if isinstance(client, Twilio):
        return reconcile_twilio(client, log, warehouse, run_id=run_id, since=since, keep=keep)
    return reconcile_calendars(client, settings, log, warehouse, run_id=run_id)


def reconcile_calendars(
    calendars: Calendars, settings: Settings, log: EventLog, warehouse: Warehouse, *, run_id: str
) -> Reconciled:
    """Reads all calendars of a service that are declared, and sees to their watches.

    Without `PIVOTAL_GATEWAY_URL` and the watches' secret nobody is told of changes: the timer alone finds them.

    Args:
        calendars: Asks the service.
        settings: Which calendars, and who is told.
        log: Where the events go.
        warehouse: Where tokens and watches are kept.
        run_id: Who reads.

    Raises:
        PivotalError: As `reconcile_calendar` and `keep_watches`, once everything was tried: neither watches nor a
            calendar that fail keep it from reading the others.
    """
    provider = SERVICES[calendars.service]
    ids, secret = {
        "google": (settings.google_calendars, settings.google_watch_secret),
        "outlook": (settings.outlook_calendars, settings.outlook_watch_secret),
    }[provider]
    if not (declared := several(ids)):
        raise PivotalError("no calendar is declared", hint=f"set PIVOTAL_{provider.upper()}_CALENDARS: primary")
    failures, found = Failures(), Reconciled(provider)
    if settings.gateway_url and secret:
        url = f"{settings.gateway_url.rstrip('/')}/webhooks/{provider}"
        with failures.noted():
            keep_watches(calendars, declared, url, log, warehouse, run_id=run_id)
    for calendar_id in declared:
        with failures.noted():
            found += reconcile_calendar(calendars, calendar_id, log, warehouse, run_id=run_id)
    failures.tell()
    return found
