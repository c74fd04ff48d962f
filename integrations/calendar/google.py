"""Google Calendar, through its official SDK: one retry budget, one family of errors.

    calendar = GoogleCalendar(GoogleCalendarConfig(credentials=SecretStr("service-account.json")))
    event = calendar.create(PRIMARY, Draft(...), operation_id="demo-4711")

An event's id is the caller's to choose at Google: it is made of the operation id, so that an event is made once however
often it is asked for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from errors import PivotalError
from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calendar.errors import CalendarIntegrationError, conflict
from integrations.calendar.google_events import body_of, calendar_of, event_of
from integrations.calendar.google_wire import (
    SCOPE,
    SERVICE,
    GoogleWire,
    TokenRefusedError,
    not_json,
    not_sent,
    refused,
    unreached,
    without_token,
)
from integrations.calendar.model import (
    LIFETIME,
    Calendar,
    CalendarEvent,
    Changes,
    Draft,
    Watch,
    changed,
    mark,
    stop_replaced,
)
from integrations.calendar.telling import tell
from integrations.calls import USUAL_BUDGET, Calls, Operation, RetryBudget, idempotency_key
from integrations.metrics import State
from settings import several

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from pydantic import SecretStr

    from events.log import EventLog

_PAGE = 250
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  (an address)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleCalendarConfig:
    """How Google is reached.

    Args:
        credentials: The JSON of a service account's key or of an authorized user, or the path of a file with it.
        subject: Whom a service account acts for; None: for itself.
        api_base: Where Google's API answers.
        timeout: Seconds to connect, and without a byte of the answer.
        watch_secret: What notifications carry in `X-Goog-Channel-Token`, so that their receiver knows them.
        retry: How often a call is tried.
        breaker: When Google is left alone.
    """

    credentials: SecretStr
    subject: str | None = field(default=None, repr=False)
    api_base: str = "https://www.googleapis.com"
    timeout: float = 30.0
    watch_secret: SecretStr | None = None
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER


class GoogleCalendar:
    """Google's calendars: see `Calendars`, whose methods these are.

    Args:
        config: How Google is reached.
        events: Where changes are told; None: nowhere but in the log.
    """

    service = SERVICE

    def __init__(self, config: GoogleCalendarConfig, events: EventLog | None = None) -> None:
        self._config = config
        self._calls = Calls(
            SERVICE, error=CalendarIntegrationError, budget=config.retry, breaker=config.breaker, events=events
        )

    @property
    def account(self) -> str:
        """See `Calendars.account`. Of a user, the refresh token: secret."""
        names = ("service_account_email", "refresh_token")
        known = (self._config.subject, *(getattr(self._credentials, name, None) for name in names))
        return str(next(filter(None, known)))

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self._calls.circuit

    @cached_property
    def sdk(self) -> Any:  # noqa: ANN401  (made of Google's description of the API)
        """The SDK's client: for what is not wrapped here. It retries nothing by itself."""
        from googleapiclient.discovery import build

        base = f"{self._config.api_base.rstrip('/')}/calendar/v3/"
        return build("calendar", "v3", http=self._wire, static_discovery=True, client_options={"api_endpoint": base})

    def close(self) -> None:
        """Frees the connections."""
        if "_wire" in vars(self):
            self._wire.close()

    def calendars(self) -> Iterator[Calendar]:
        """See `Calendars.calendars`."""
        for page in self._pages("calendars.list", self.sdk.calendarList().list, {}):
            yield from map(calendar_of, page["items"])

    def create(self, calendar_id: str, draft: Draft, *, operation_id: str) -> CalendarEvent:
        """See `Calendars.create`."""
        key = idempotency_key("google_calendar.events.create", f"{calendar_id}/{operation_id}")
        names = {each.name for each in fields(Draft) if getattr(draft, each.name) != each.default}
        body = {"id": key.replace("-", ""), **_without_nulls(body_of(draft, names, key))}
        asked = {"calendarId": calendar_id, "body": body, "conferenceDataVersion": 1, "sendUpdates": "all"}
        try:
            told = self._call("events.create", self.sdk.events().insert, asked)
        except CalendarIntegrationError as error:
            if error.code != "duplicate":
                raise
            told = self._made_before(calendar_id, body["id"], error)
        event = event_of(told, calendar_id)
        tell(self._calls, "created", event, key)
        return event

    def update(self, event: CalendarEvent, draft: Draft) -> CalendarEvent:
        """See `Calendars.update`."""
        names = changed(event.draft, draft)
        if not names:
            return event
        key = idempotency_key("google_calendar.events.update", f"{event.calendar_id}/{event.id}/{event.etag}")
        asked = {
            "calendarId": event.calendar_id,
            "eventId": event.id,
            "body": body_of(draft, names, key),
            "conferenceDataVersion": 1,
            "sendUpdates": "all",
        }
        try:
            told = self._call("events.update", self.sdk.events().patch, asked, etag=event.etag)
            now = event_of(told, event.calendar_id)
        except CalendarIntegrationError as error:
            if error.status != 412:
                raise
            now = self.get(event.calendar_id, event.id)
            if names & changed(now.draft, draft):
                raise conflict(error) from error
        tell(self._calls, "updated", now, key)
        return now

    def delete(self, calendar_id: str, event_id: str, *, etag: str | None = None) -> None:
        """See `Calendars.delete`."""
        asked = {"calendarId": calendar_id, "eventId": event_id, "sendUpdates": "all"}
        try:
            self._call("events.delete", self.sdk.events().delete, asked, etag=etag)
        except CalendarIntegrationError as error:
            if error.status == 412:
                raise conflict(error) from error
            if error.status not in {404, 410}:
                raise
        tell(self._calls, "deleted", (calendar_id, event_id), None)

    def get(self, calendar_id: str, event_id: str) -> CalendarEvent:
        """See `Calendars.get`."""
        return event_of(self._get(calendar_id, event_id), calendar_id)

    def list(self, calendar_id: str) -> Iterator[CalendarEvent]:
        """See `Calendars.list`."""
        for page in self._pages("events.list", self.sdk.events().list, {"calendarId": calendar_id}):
            whole = (told for told in page["items"] if "recurringEventId" not in told)
            yield from (event_of(told, calendar_id) for told in whole)

    def instances(self, calendar_id: str, start: datetime, end: datetime) -> Iterator[CalendarEvent]:
        """See `Calendars.instances`."""
        asked = {"calendarId": calendar_id, "singleEvents": True, **_between(start, end)}
        for page in self._pages("events.instances", self.sdk.events().list, asked):
            yield from (event_of(told, calendar_id) for told in page["items"])

    def changes(
        self, calendar_id: str, start: datetime, end: datetime, *, token: str | None = None
    ) -> Iterator[Changes]:
        """See `Calendars.changes`."""
        asked = {"calendarId": calendar_id, "singleEvents": True}
        since = {"syncToken": token} if token else _between(start, end)
        try:
            reset = token is None
            for page in self._pages("events.changes", self.sdk.events().list, {**asked, **since}):
                yield _changes(page, calendar_id, reset=reset)
                reset = False
        except CalendarIntegrationError as error:
            if error.status != 410 or token is None:
                raise
            yield from self.changes(calendar_id, start, end)

    def watch(self, calendar_id: str, url: str, *, lifetime: timedelta = LIFETIME) -> Watch:
        """See `Calendars.watch`."""
        secret = self._watch_secret
        until = datetime.now(UTC) + lifetime
        body = {
            "id": str(uuid.uuid4()),
            "type": "web_hook",
            "address": url,
            "token": secret,
            "expiration": str(int(until.timestamp() * 1000)),
        }
        asked = {"calendarId": calendar_id, "body": body}
        told = self._call("watches.create", self.sdk.events().watch, asked, repeatable=False)
        expires = datetime.fromtimestamp(int(told["expiration"]) / 1000, UTC)
        return Watch(told["id"], calendar_id, url, expires, told["resourceId"], mark(secret))

    def renew(self, watch: Watch, *, lifetime: timedelta = LIFETIME) -> Watch:
        """See `Calendars.renew`. Google's cannot be prolonged: a new one takes its place, without a gap."""
        new = self.watch(watch.calendar_id, watch.url, lifetime=lifetime)
        stop_replaced(self, watch)
        return new

    def knows(self, watch: Watch) -> bool:
        """See `Calendars.knows`."""
        return watch.secret_mark == mark(self._watch_secret)

    def stop(self, watch: Watch) -> None:
        """See `Calendars.stop`."""
        asked = {"body": {"id": watch.id, "resourceId": watch.resource_id}}
        try:
            self._call("watches.stop", self.sdk.channels().stop, asked)
        except CalendarIntegrationError as error:
            if error.status != 404:
                raise

    @property
    def _watch_secret(self) -> str:
        if not (secrets := several(self._config.watch_secret)):
            raise PivotalError("a watch needs a secret", hint="set PIVOTAL_GOOGLE_WATCH_SECRET: see the receiver")
        return secrets[0]

    @cached_property
    def _wire(self) -> GoogleWire:
        return GoogleWire(self._credentials, self._config.timeout)

    @cached_property
    def _credentials(self) -> Credentials:
        return _credentials(self._config)

    def _get(self, calendar_id: str, event_id: str) -> Mapping[str, Any]:
        told: Mapping[str, Any] = self._call(
            "events.get", self.sdk.events().get, {"calendarId": calendar_id, "eventId": event_id}
        )
        return told

    def _made_before(self, calendar_id: str, event_id: str, error: CalendarIntegrationError) -> Mapping[str, Any]:
        """The event that this operation made when it was tried before."""
        told = self._get(calendar_id, event_id)
        if told["status"] == "cancelled":
            raise conflict(
                error, "this operation's event was deleted since: a new one needs an operation id of its own"
            )
        return told

    def _pages(self, operation: str, method: Callable[..., Any], asked: Mapping[str, Any]) -> Iterator[Any]:
        """Each page of a list; every one has the whole retry budget."""
        further: dict[str, str] = {}
        while True:
            page = self._call(operation, method, {"maxResults": _PAGE, **asked, **further})
            yield page
            if "nextPageToken" not in page:
                return
            further = {"pageToken": page["nextPageToken"]}

    def _call(
        self,
        name: str,
        method: Callable[..., Any],
        asked: Mapping[str, Any],
        *,
        etag: str | None = None,
        repeatable: bool = True,
    ) -> Any:  # noqa: ANN401  (JSON)
        """Makes a call of the SDK within the retry budget."""
        operation = Operation(name, repeatable=repeatable)
        return self._calls.call(operation, lambda: self._once(operation, method, asked, etag))

    def _once(
        self, operation: Operation, method: Callable[..., Any], asked: Mapping[str, Any], etag: str | None
    ) -> Any:  # noqa: ANN401  (JSON)
        from google.auth.exceptions import GoogleAuthError
        from googleapiclient.errors import HttpError

        try:
            request = method(**asked)
        except (TypeError, ValueError) as error:
            raise not_sent(error, operation) from error
        request.headers.update({"If-Match": etag} if etag else {})
        try:
            return request.execute(num_retries=0)
        except HttpError as error:
            raise refused(error, operation) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unreached(error, operation) from error
        except (GoogleAuthError, TokenRefusedError) as error:
            raise without_token(error, operation) from error
        except ValueError as error:
            raise not_json(error, operation) from error


def _credentials(config: GoogleCalendarConfig) -> Credentials:
    """google-auth's credentials of a kind that is meant for a machine."""
    from google.oauth2 import credentials, service_account

    text = config.credentials.get_secret_value()
    try:
        info = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
        if info.get("type") == "service_account":
            of_service = service_account.Credentials.from_service_account_info
            return of_service(info, scopes=[SCOPE], subject=config.subject)  # type: ignore[no-any-return,no-untyped-call]
        # `from_authorized_user_info` would ask Google's own endpoint, whatever `token_uri` says.
        names = ("refresh_token", "client_id", "client_secret")
        about = {"token_uri": _TOKEN_URI, **info}
        return credentials.Credentials(  # type: ignore[no-untyped-call]
            None, token_uri=about["token_uri"], scopes=[SCOPE], **{name: about[name] for name in names}
        )
    except (OSError, ValueError, AttributeError, KeyError):
        raise PivotalError(
            "Google's credentials are neither a service account's key nor an authorized user's",
            hint="PIVOTAL_GOOGLE_CREDENTIALS is such a JSON, or the path of a file with it",
        ) from None


def _changes(page: Mapping[str, Any], calendar_id: str, *, reset: bool) -> Changes:
    gone = [told["id"] for told in page["items"] if told["status"] == "cancelled"]
    there = [event_of(told, calendar_id) for told in page["items"] if told["status"] != "cancelled"]
    return Changes(tuple(there), tuple(gone), page.get("nextSyncToken"), reset)


def _between(start: datetime, end: datetime) -> dict[str, str]:
    return {"timeMin": start.isoformat(), "timeMax": end.isoformat()}


def _without_nulls(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value
        for name, value in told.items()
        if value is not None
    }
