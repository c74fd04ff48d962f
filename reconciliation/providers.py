"""Whom we read from, as the settings declare it."""

from __future__ import annotations

from errors import PivotalError
from etl.destinations.warehouse import Warehouse
from events.log import EventLog
from integrations.calendar.model import Calendars
from reconciliation.calendars import PROVIDERS, reconcile_calendar
from reconciliation.reading import Reconciled
from reconciliation.watches import keep_watches
from settings import Settings, several


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
        PivotalError: As `reconcile_calendar` and `keep_watches`. Watches that fail do not keep it from reading.
    """
    provider = PROVIDERS[calendars.service]
    ids, secret = {
        "google": (settings.google_calendars, settings.google_watch_secret),
        "outlook": (settings.outlook_calendars, settings.outlook_watch_secret),
    }[provider]
    if not (declared := several(ids)):
        raise PivotalError("no calendar is declared", hint=f"set PIVOTAL_{provider.upper()}_CALENDARS: primary")
    try:
        if settings.gateway_url and secret:
            url = f"{settings.gateway_url.rstrip('/')}/webhooks/{provider}"
            keep_watches(calendars, declared, url, log, warehouse, run_id=run_id)
    finally:
        found = Reconciled(provider)
        for calendar_id in declared:
            found += reconcile_calendar(calendars, calendar_id, log, warehouse, run_id=run_id)
    return found


def configured(settings: Settings) -> list[str]:
    """The providers with credentials.

    Args:
        settings: The settings.
    """
    known = {
        "stripe": settings.stripe_api_key,
        "google": settings.google_credentials,
        "outlook": settings.outlook_client_secret,
    }
    return [provider for provider, credentials in known.items() if credentials]
