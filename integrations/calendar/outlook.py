"""Outlook's calendars, through Microsoft Graph: the house's HTTP client, and its OAuth 2 client credentials.

    outlook = Outlook(OutlookConfig(tenant_id="...", client_id="...", client_secret=SecretStr("..."), user="..."))
    event = outlook.create(PRIMARY, Draft(...), operation_id="demo-4711")

A new event carries a transaction id, made of the operation id, by which Exchange knows one that it has made already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from errors import PivotalError
from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calendar.errors import CalendarIntegrationError, conflict
from integrations.calendar.model import (
    LIFETIME,
    PRIMARY,
    Calendar,
    CalendarEvent,
    Changes,
    Draft,
    Watch,
    changed,
    mark,
)
from integrations.calendar.outlook_events import body_of, calendar_of, event_of
from integrations.calendar.recurrence import SERVICE
from integrations.calendar.telling import tell
from integrations.calls import USUAL_BUDGET, RetryBudget, idempotency_key, without_addresses
from integrations.http import ClientCredentials, HttpClient, Limits, Refusal, Response
from integrations.metrics import State
from settings import several

if TYPE_CHECKING:
    from pydantic import SecretStr

    from events.log import EventLog

_PAGE = 100
_EVERYTHING = frozenset(each.name for each in fields(Draft))
_PREFER = 'outlook.timezone="UTC", outlook.body-content-type="text", IdType="ImmutableId"'
_FORGOTTEN = {"syncStateNotFound", "SyncStateNotFound", "SyncStateInvalid", "resyncRequired", "ErrorSyncStateNotFound"}
_HINTS = {
    "Authorization_RequestDenied": "give the application the permission Calendars.ReadWrite, with an admin's consent",
    "ErrorAccessDenied": "give the application the permission Calendars.ReadWrite, and access to this user's mailbox",
    "MailboxNotEnabledForRESTAPI": "the user has no mailbox in Exchange Online",
    "ResourceNotFound": "check PIVOTAL_OUTLOOK_USER",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlookConfig:
    """How Microsoft Graph is reached.

    Args:
        tenant_id: The directory's id, or one of its domains.
        client_id: The registered application's id.
        client_secret: One of its secrets.
        user: Whose calendars: an object id or a user principal name.
        api_base: Where Graph answers; the token is asked for it.
        login_base: Where tokens are given.
        timeout: Seconds to connect, and without a byte of the answer.
        watch_secret: What notifications carry as `clientState`, so that their receiver knows them; 128 characters.
        retry: How often a call is tried.
        breaker: When Graph is left alone.
    """

    tenant_id: str
    client_id: str
    client_secret: SecretStr
    user: str = field(repr=False)
    api_base: str = "https://graph.microsoft.com"
    login_base: str = "https://login.microsoftonline.com"
    timeout: float = 30.0
    watch_secret: SecretStr | None = None
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER


class Outlook:
    """Outlook's calendars: see `Calendars`, whose methods these are.

    Args:
        config: How Microsoft Graph is reached.
        events: Where changes are told; None: nowhere but in the log.
    """

    service = SERVICE

    def __init__(self, config: OutlookConfig, events: EventLog | None = None) -> None:
        self._config, base = config, config.api_base.rstrip("/")
        self._user = f"/users/{quote(config.user, safe='')}"
        self.http = HttpClient(
            f"{base}/v1.0",
            service=SERVICE,
            credential=ClientCredentials(
                f"{config.login_base.rstrip('/')}/{quote(config.tenant_id, safe='')}/oauth2/v2.0/token",
                config.client_id,
                config.client_secret.get_secret_value(),
                params={"scope": f"{base}/.default"},
            ),
            secrets=[config.user],
            headers={"Prefer": _PREFER},
            limits=Limits(config.timeout),
            budget=config.retry,
            breaker=config.breaker,
            error=CalendarIntegrationError,
            refusal=_refusal,
            events=events,
        )
        """The HTTP client, with Graph's version 1.0 as its base: for what is not wrapped here."""

    @property
    def account(self) -> str:
        """See `Calendars.account`."""
        return f"{self._config.tenant_id}/{self._config.user}"

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self.http.circuit

    def close(self) -> None:
        """Frees the connections."""
        self.http.close()

    def calendars(self) -> Iterator[Calendar]:
        """See `Calendars.calendars`."""
        for page in self._pages("calendars.list", f"{self._user}/calendars", {"$top": _PAGE}):
            yield from map(calendar_of, page["value"])

    def create(self, calendar_id: str, draft: Draft, *, operation_id: str) -> CalendarEvent:
        """See `Calendars.create`."""
        key = idempotency_key("outlook.events.create", f"{calendar_id}/{operation_id}")
        names = _EVERYTHING if draft.online_meeting else _EVERYTHING - {"online_meeting"}
        body = {**body_of(draft, names), "transactionId": key}
        url = f"{self._in(calendar_id)}/events"
        try:
            answer = self.http.post(url, operation="events.create", json=body, repeatable=True)
        except CalendarIntegrationError as error:
            if error.code != "ErrorDuplicateTransactionId":
                raise
            raise conflict(error, "this operation id was used before, for another event: give each its own") from error
        event = event_of(answer.data, calendar_id)
        tell(self.http.calls, "created", event, key)
        return event

    def update(self, event: CalendarEvent, draft: Draft) -> CalendarEvent:
        """See `Calendars.update`."""
        names = changed(event.draft, draft)
        if not names:
            return event
        body, url = body_of(draft, names, event.draft), self._event(event.calendar_id, event.id)
        key = idempotency_key("outlook.events.update", f"{event.calendar_id}/{event.id}/{event.etag}")
        try:
            answer = self.http.patch(
                url, operation="events.update", json=body, headers={"If-Match": event.etag}, repeatable=True
            )
            now = event_of(answer.data, event.calendar_id)
        except CalendarIntegrationError as error:
            if not _is_conflict(error):
                raise
            now = self.get(event.calendar_id, event.id)
            if any(body_of(now.draft, [name]) != body_of(draft, [name]) for name in names):
                raise conflict(error) from error
        tell(self.http.calls, "updated", now, key)
        return now

    def delete(self, calendar_id: str, event_id: str, *, etag: str | None = None) -> None:
        """See `Calendars.delete`."""
        url, only_if = self._event(calendar_id, event_id), {"If-Match": etag} if etag else None
        try:
            self.http.delete(url, operation="events.delete", headers=only_if, accept={404})
        except CalendarIntegrationError as error:
            if not _is_conflict(error):
                raise
            raise conflict(error) from error
        tell(self.http.calls, "deleted", (calendar_id, event_id), None)

    def get(self, calendar_id: str, event_id: str) -> CalendarEvent:
        """See `Calendars.get`."""
        return event_of(self.http.get(self._event(calendar_id, event_id), operation="events.get").data, calendar_id)

    def list(self, calendar_id: str) -> Iterator[CalendarEvent]:
        """See `Calendars.list`."""
        for page in self._pages("events.list", f"{self._in(calendar_id)}/events", {"$top": _PAGE}):
            yield from (event_of(told, calendar_id) for told in page["value"])

    def instances(self, calendar_id: str, start: datetime, end: datetime) -> Iterator[CalendarEvent]:
        """See `Calendars.instances`."""
        asked = {"$top": _PAGE, **_between(start, end)}
        for page in self._pages("events.instances", f"{self._in(calendar_id)}/calendarView", asked):
            yield from (event_of(told, calendar_id) for told in page["value"])

    def changes(
        self, calendar_id: str, start: datetime, end: datetime, *, token: str | None = None
    ) -> Iterator[Changes]:
        """See `Calendars.changes`."""
        view = self._user if calendar_id == PRIMARY else self._in(calendar_id)
        url, asked = (token, None) if token else (f"{view}/calendarView/delta", _between(start, end))
        series: dict[str, Mapping[str, Any]] = {}
        try:
            reset = token is None
            for page in self._pages("events.changes", url, asked, {"Prefer": f"{_PREFER}, odata.maxpagesize={_PAGE}"}):
                yield self._changes(page, calendar_id, series, reset=reset)
                reset = False
        except CalendarIntegrationError as error:
            if token is None or not (error.status == 410 or error.code in _FORGOTTEN):
                raise
            yield from self.changes(calendar_id, start, end)

    def watch(self, calendar_id: str, url: str, *, lifetime: timedelta = LIFETIME) -> Watch:
        """See `Calendars.watch`. Graph tells of all the user's calendars, whichever is asked for."""
        secret = self._watch_secret
        body = {
            "changeType": "created,updated,deleted",
            "notificationUrl": url,
            "lifecycleNotificationUrl": url,
            "resource": f"{self._user}/events",
            "expirationDateTime": _from_now(lifetime),
            "clientState": secret,
        }
        answer = self.http.post("/subscriptions", operation="watches.create", json=body)
        return Watch(answer.data["id"], calendar_id, url, _expires(answer), secret_mark=mark(secret))

    def renew(self, watch: Watch, *, lifetime: timedelta = LIFETIME) -> Watch:
        """See `Calendars.renew`. Graph prolongs it, with the secret that it was made with."""
        answer = self.http.patch(
            f"/subscriptions/{quote(watch.id, safe='')}",
            operation="watches.renew",
            json={"expirationDateTime": _from_now(lifetime)},
            repeatable=True,
            accept={404},
        )
        if answer.status == 404:
            return self.watch(watch.calendar_id, watch.url, lifetime=lifetime)
        return replace(watch, expires=_expires(answer))

    def knows(self, watch: Watch) -> bool:
        """See `Calendars.knows`."""
        return watch.secret_mark == mark(self._watch_secret)

    def stop(self, watch: Watch) -> None:
        """See `Calendars.stop`."""
        self.http.delete(f"/subscriptions/{quote(watch.id, safe='')}", operation="watches.stop", accept={404})

    @property
    def _watch_secret(self) -> str:
        if not (secrets := several(self._config.watch_secret)):
            raise PivotalError("a watch needs a secret", hint="set PIVOTAL_OUTLOOK_WATCH_SECRET: see the receiver")
        return secrets[0]

    def _in(self, calendar_id: str) -> str:
        return f"{self._user}/" + ("calendar" if calendar_id == PRIMARY else f"calendars/{quote(calendar_id, safe='')}")

    def _event(self, calendar_id: str, event_id: str) -> str:
        return f"{self._in(calendar_id)}/events/{quote(event_id, safe='')}"

    def _pages(
        self, operation: str, url: str, asked: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Any]:
        """Each page of a list; every one has the whole retry budget."""
        while True:
            page = self.http.get(url, operation=operation, params=asked, headers=headers).data
            yield page
            if "@odata.nextLink" not in page:
                return
            url, asked = page["@odata.nextLink"], None

    def _changes(
        self, page: Mapping[str, Any], calendar_id: str, series: dict[str, Mapping[str, Any]], *, reset: bool
    ) -> Changes:
        """A page of a delta: series come along, but do not take place; what belongs to one only says when it does."""
        there = [told for told in page["value"] if "@removed" not in told]
        again = {told["id"]: told for told in there if told["type"] == "seriesMaster"}
        series |= again
        events = [
            event_of(self._whole(told, calendar_id, series), calendar_id)
            for told in there
            if told["type"] != "seriesMaster"
        ]
        gone = tuple(told["id"] for told in page["value"] if "@removed" in told)
        return Changes(tuple(events), gone, page.get("@odata.deltaLink"), reset, tuple(again))

    def _whole(
        self, told: Mapping[str, Any], calendar_id: str, series: dict[str, Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        if "subject" in told:
            return told
        id_ = told["seriesMasterId"]
        if id_ not in series:
            series[id_] = self.http.get(self._event(calendar_id, id_), operation="events.get").data
        return {**series[id_], "recurrence": None, **told}


def _is_conflict(error: CalendarIntegrationError) -> bool:
    """412, or 409 where two changes meet."""
    return error.status == 412 or error.code == "ErrorIrresolvableConflict"


def _refusal(answer: Response) -> Refusal | None:
    """Graph's code and message: a proxy's page of HTML is not repeated."""
    try:
        error = answer.data["error"]
        code, message = str(error["code"]), without_addresses(str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return None
    return Refusal(message, code, _HINTS.get(code))


def _expires(answer: Response) -> datetime:
    return datetime.fromisoformat(answer.data["expirationDateTime"])


def _from_now(lifetime: timedelta) -> str:
    return f"{datetime.now(UTC) + lifetime:%Y-%m-%dT%H:%M:%S.%fZ}"


def _between(start: datetime, end: datetime) -> dict[str, str]:
    return {"startDateTime": start.isoformat(), "endDateTime": end.isoformat()}
