"""`pivotal reconcile`: what webhooks have missed."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.output import json_option, say_json, table
from errors import PivotalError
from reconciliation import PROVIDERS, configured
from reconciliation.failures import Failures

if TYPE_CHECKING:
    from reconciliation.reading import Reconciled


@click.command()
@click.argument("provider", required=False, type=click.Choice(PROVIDERS))
@click.option("--since", metavar="AGE", help="Stripe, Twilio: read from so long ago on, at least: 90m, 2h, 7d.")
@json_option
def reconcile(provider: str | None, since: str | None, as_json: bool) -> None:
    """Read what webhooks may have missed, and put it on the event log.

    PROVIDER is whose; without it, each that there are credentials for. What the webhooks have brought is counted as a
    duplicate, and changes nothing. A provider that fails keeps none of the others from being read.
    """
    from settings import get_settings

    if since is not None and provider not in {None, "stripe", "twilio"}:
        raise click.UsageError("--since is for Stripe and Twilio: calendars are read from where the last reading ended")
    moment = None if since is None else _moment(since)
    if not (providers := [provider] if provider else configured(get_settings())):
        raise PivotalError("there are no credentials of any provider", hint=f"set those of {', '.join(PROVIDERS)}")
    failures, found = Failures(), list[dict[str, object]]()
    for each in providers:
        with failures.noted():
            found.append(_record(_read(each, moment)))
    if found and as_json:
        say_json(found)
    elif found:
        table(("provider", "read", "new", "duplicates"), [tuple(each.values()) for each in found])
    failures.tell()


def _read(provider: str, since: datetime | None) -> Reconciled:
    from etl.destinations.warehouse import open_warehouse
    from events.envelope import new_id
    from events.log import open_log
    from reconciliation.providers import reconcile as read
    from settings import get_settings

    settings = get_settings()
    with _client(provider) as client, closing(open_log(settings.events_url)) as log:
        return read(client, settings, log, open_warehouse(settings.warehouse_url), run_id=new_id(), since=since)


def _client(provider: str) -> AbstractContextManager[Any]:
    from resources.google_calendar import GoogleCalendarResource
    from resources.outlook import OutlookResource
    from resources.stripe import StripeResource
    from resources.twilio import TwilioResource

    makers = {
        "stripe": StripeResource,
        "twilio": TwilioResource,
        "google": GoogleCalendarResource,
        "outlook": OutlookResource,
    }
    opened: AbstractContextManager[Any] = makers[provider]().open()
    return opened


def _moment(age: str) -> datetime:
    from etl.pipeline import duration

    try:
        return datetime.now(UTC) - duration(age)
    except ValueError as error:
        raise click.UsageError(f"--since: {age!r} is {error}") from None


def _record(found: Reconciled) -> dict[str, object]:
    return {"provider": found.provider, "read": found.read, "new": found.new, "duplicates": found.duplicates}
