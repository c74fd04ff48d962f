"""Microsoft Graph's calendars (v1.0), as the sandbox speaks them: etags, delta links, subscriptions.

Its user, `sandbox@example.com`, has two calendars: the default one, and `Team`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox import graph_events as events
from sandbox.agenda import Agenda, Entry, Window, after, page
from sandbox.graph_events import WORDS, Refused, opaque, shown
from sandbox.graph_subscriptions import Subscriptions
from sandbox.tokens import Tokens
from sandbox.webhooks import Webhooks
from sandbox.world import Clock, Ids

Json = dict[str, Any]

USER = "sandbox@example.com"
DEFAULT, TEAM = opaque("calendar.default"), opaque("calendar.team")
_ERRORS = {
    400: ("BadRequest", "The request is malformed."),
    401: ("InvalidAuthenticationToken", "Access token has expired or is not yet valid."),
    402: ("paymentRequired", "The payment requirements for the API have not been met."),
    403: ("ErrorAccessDenied", "Access is denied. Check credentials and try again."),
    404: ("ErrorItemNotFound", "The specified object was not found in the store."),
    409: ("conflict", "The current state conflicts with what the request expects."),
    410: ("SyncStateNotFound", "The sync state generation is not found; start a full synchronization again."),
    412: ("ErrorIrresolvableConflict", "The change key passed in the request does not match the current change key."),
    429: ("TooManyRequests", "Please retry again later."),
    503: ("serviceNotAvailable", "The service is temporarily unavailable."),
}
_NEW = {"location": {"displayName": ""}, "attendees": [], "isAllDay": False, "isOnlineMeeting": False}
_EMPTY = {"subject": "", "body": {"contentType": "text", "content": ""}, "recurrence": None, "onlineMeeting": None}
_OF_AN_OCCURRENCE = ("@odata.etag", "id", "type", "seriesMasterId", "start", "end")


@dataclass(frozen=True, slots=True)
class _Delta:
    """What a skip token or a delta token stands for."""

    calendar: str
    window: Window
    since: int
    version: int
    offset: int = 0


Run = Callable[[Request, bytes], Response | Awaitable[Response]]


class GraphService:
    """Microsoft Graph, with one user's mailbox.

    Args:
        clock: Tells the time.
        tokens: Who may call it.
        webhooks: Takes the notifications.
    """

    user = USER

    def __init__(self, clock: Clock, tokens: Tokens, webhooks: Webhooks) -> None:
        self._clock, self._tokens = clock, tokens
        self.subscriptions = Subscriptions(USER, clock, webhooks)
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again with empty calendars; ids come from `ids`."""
        self._ids = ids
        self.calendars = {
            id_: Agenda({"id": id_, "name": name, "isDefaultCalendar": id_ == DEFAULT, "canEdit": True}, WORDS)
            for id_, name in ((DEFAULT, "Calendar"), (TEAM, "Team"))
        }
        self._deltas: dict[str, _Delta] = {}
        self._made: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.subscriptions.clear()

    def add(self, id_: str, event: Json) -> Json:
        """Makes an event in a calendar.

        Args:
            id_: The calendar's id.
            event: In Graph's words.
        """
        new = opaque(f"event.{self._ids.new('event', 24)}")
        about = {"id": new, "iCalUId": f"040000008200E00074C5{secrets.token_hex(8).upper()}"}
        who = {"organizer": {"emailAddress": {"name": "Sandbox", "address": USER}}, "createdDateTime": self._now()}
        return self._put(self.calendars[id_], {**_NEW, **_EMPTY, **about, **who, **event}, "created")

    def expire(self) -> None:
        """Forgets every delta link that it gave."""
        self._deltas.clear()

    def app(self) -> Starlette:
        """The API, from `/v1.0` on."""
        user = "/v1.0/users/{user}"
        routes: list[tuple[str, str, Run]] = [
            ("GET", f"{user}/calendars", self._list_calendars),
            ("GET", f"{user}/calendarView/delta", self._delta),
            ("POST", "/v1.0/subscriptions", self.subscriptions.create),
            ("PATCH", "/v1.0/subscriptions/{id}", self.subscriptions.renew),
            ("DELETE", "/v1.0/subscriptions/{id}", self.subscriptions.delete),
        ]
        for calendar in (f"{user}/calendar", f"{user}/calendars/{{calendar}}"):
            routes += [
                ("GET", f"{calendar}/events", self._list),
                ("POST", f"{calendar}/events", self._create),
                ("GET", f"{calendar}/calendarView", self._view),
                ("GET", f"{calendar}/calendarView/delta", self._delta),
                ("GET", f"{calendar}/events/{{event}}", self._get),
                ("PATCH", f"{calendar}/events/{{event}}", self._update),
                ("DELETE", f"{calendar}/events/{{event}}", self._delete),
            ]
        return Starlette(
            routes=[Route(path, self._endpoint(run), methods=[method]) for method, path, run in routes],
            exception_handlers={404: _unknown, 405: _unknown},
        )

    def _endpoint(self, run: Run) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            try:
                self._admit(request, body)
                done = run(request, body)
                return done if isinstance(done, Response) else await done
            except Refused as refused:
                return _in_shape(refused)

        return endpoint

    def _admit(self, request: Request, body: bytes) -> None:
        if not self._tokens.hold(request):
            raise Refused(*_ERRORS[401], 401)
        if body and not request.headers.get("Content-Type", "").startswith("application/json"):
            raise Refused("RequestBodyRead", "A supported MIME type could not be found.", 415)
        if request.path_params.get("user", USER) != USER:
            raise Refused("ErrorInvalidUser", "The requested user is invalid.", 404)

    # --- calendars and events -------------------------------------------------------------------------------------

    def _list_calendars(self, request: Request, _: bytes) -> Response:
        return self._page(request, [each.about for each in self.calendars.values()])

    def _list(self, request: Request, _: bytes) -> Response:
        agenda = self._calendar(request)[1]
        return self._page(request, [_told(each, request) for each in agenda.whole()])

    def _view(self, request: Request, _: bytes) -> Response:
        agenda = self._calendar(request)[1]
        found = sorted(agenda.instances(_window(request)), key=lambda each: events.moment(each["start"]))
        return self._page(request, [_told(each, request) for each in found], "startDateTime", "endDateTime")

    def _create(self, request: Request, raw: bytes) -> Response:
        _query(request)
        asked = events.read(events.New, raw, "event")
        id_, agenda = self._calendar(request)
        made = self._made.get((id_, asked.get("transactionId", "")))
        if made is not None:
            if made[0] != raw:
                message = (
                    "The TransactionId specified in the request has already been used to create a different event."
                )
                raise Refused("ErrorDuplicateTransactionId", f"Your request can't be completed. {message}", 409)
            return JSONResponse(_told(agenda.entries[made[1]].body, request), 201)
        event = self.add(id_, asked)
        if "transactionId" in asked:
            self._made[id_, asked["transactionId"]] = (raw, event["id"])
        return JSONResponse(_told(event, request), 201)

    def _get(self, request: Request, _: bytes) -> Response:
        _query(request)
        agenda = self._calendar(request)[1]
        return JSONResponse(_told(self._there(request, agenda)[1], request))

    def _update(self, request: Request, raw: bytes) -> Response:
        _query(request)
        asked = events.read(events.Changes, raw, "event")
        agenda = self._calendar(request)[1]
        entry, event = self._there(request, agenda)
        if event["isOnlineMeeting"]:
            asked.pop("isOnlineMeeting", None)  # once it is one, Exchange takes no notice of what is said of it
        instance = event["id"] != entry.body["id"]
        if instance and "recurrence" in asked:
            raise Refused("ErrorInvalidRequest", "An occurrence cannot have a recurrence.")
        event = self._put(agenda, {**event, **asked}, "updated", entry if instance else None)
        return JSONResponse(_told(event, request))

    def _delete(self, request: Request, _: bytes) -> Response:
        _query(request)
        agenda = self._calendar(request)[1]
        entry, event = self._there(request, agenda)
        if event["id"] == entry.body["id"]:
            agenda.delete(entry)
        else:
            agenda.put_instance(entry, event["id"], None)
        self.subscriptions.tell(event, "deleted")
        return Response(status_code=204)

    def _delta(self, request: Request, _: bytes) -> Response:
        id_, agenda = self._calendar(request)
        query = _query(request, "startDateTime", "endDateTime", "$deltatoken", "$skiptoken")
        token = query.get("$deltatoken") or query.get("$skiptoken")
        if token is None:
            delta = _Delta(id_, _window(request), 0, agenda.version)
        elif token not in self._deltas or self._deltas[token].calendar != id_:
            raise Refused(*_ERRORS[410], 410)
        else:
            delta = self._deltas[token]
            delta = replace(delta, version=agenda.version) if "$deltatoken" in query else delta
        found = self._changed(agenda, delta, request)
        size = re.search(r"odata\.maxpagesize=(\d+)", request.headers.get("Prefer", ""))
        items, further = page(found, delta.offset, int(size[1]) if size else 50)
        if further is None:
            name, kept = "delta", replace(delta, since=delta.version, offset=0)
        else:
            name, kept = "skip", replace(delta, offset=further)
        token = self._ids.new("delta", 40)
        self._deltas[token] = kept
        link = f"{_here(request)}?{urlencode({f'${name}token': token})}"
        return JSONResponse({"value": items, "@odata.deltaLink" if name == "delta" else "@odata.nextLink": link})

    def _changed(self, agenda: Agenda, delta: _Delta, request: Request) -> list[Json]:
        found: list[Json] = []
        for entry, there, gone in agenda.changes(delta.since, delta.window):
            recurs = bool(entry.body["recurrence"]) and not entry.deleted
            # Of a series that has changed, all comes again; which of its instances are gone is not told.
            found += [_told(entry.body, request)] if recurs and (there or delta.since) else []
            found += [_brief(_told(each, request)) for each in there]
            if delta.since and (entry.deleted or (gone and not recurs)):
                found.append({"id": entry.body["id"], "@removed": {"reason": "deleted"}})
        return found

    # --- what they are made of ------------------------------------------------------------------------------------

    def _calendar(self, request: Request) -> tuple[str, Agenda]:
        id_ = request.path_params.get("calendar", DEFAULT)
        if id_ not in self.calendars:
            raise Refused(*_ERRORS[404], 404)
        return id_, self.calendars[id_]

    def _there(self, request: Request, agenda: Agenda) -> tuple[Entry, Json]:
        """The event, unless it is gone, or another one than the caller knows."""
        found = agenda.find(request.path_params["event"])
        entry, event = found or (None, None)
        if entry is None or event is None:
            raise Refused(*_ERRORS[404], 404)
        if request.headers.get("If-Match", "*") not in {"*", event["@odata.etag"]}:
            raise Refused(*_ERRORS[412], 412)
        return entry, event

    def _put(self, agenda: Agenda, event: Json, what: str, entry: Entry | None = None) -> Json:
        events.check(event)
        series = "seriesMaster" if event["recurrence"] else "singleInstance"
        event |= {
            "@odata.etag": f'W/"{self._ids.new("etag", 22)}{agenda.version}=="',
            "type": "exception" if entry else series,
            "lastModifiedDateTime": self._now(),
        }
        if event["isOnlineMeeting"] and not event["onlineMeeting"]:
            event["onlineMeeting"] = {
                "joinUrl": f"https://teams.microsoft.com/l/meetup-join/{self._ids.new('meeting')}"
            }
        if entry is None:
            agenda.put(event)
        else:
            agenda.put_instance(entry, event["id"], event)
        self.subscriptions.tell(event, what)
        return event

    def _page(self, request: Request, found: list[Json], *names: str) -> Response:
        query = _query(request, "$top", "$skip", *names)
        top, skip = _whole(query, "$top", 10), _whole(query, "$skip", 0)
        items, further = page(found, skip, top)
        answer: Json = {"value": items}
        if further is not None:
            answer["@odata.nextLink"] = f"{_here(request)}?{urlencode({**query, '$top': top, '$skip': further})}"
        return JSONResponse(answer)

    def _now(self) -> str:
        return f"{after(self._clock.now(), 0):%Y-%m-%dT%H:%M:%S.0000000Z}"


def error(status: int) -> Response:
    """Graph's answer to an HTTP status, in its own shape."""
    return _in_shape(Refused(*_ERRORS.get(status, ("generalException", "An internal server error occurred.")), status))


def _in_shape(refused: Refused) -> JSONResponse:
    request_id = f"{secrets.token_hex(4)}-{secrets.token_hex(2)}-4{secrets.token_hex(6)}"
    inner = {"request-id": request_id, "client-request-id": request_id}
    body = {"error": {"code": refused.code, "message": refused.message, "innerError": inner}}
    return JSONResponse(body, refused.status, {"request-id": request_id})


async def _unknown(_: Request, exception: Exception) -> Response:
    if getattr(exception, "status_code", 404) == 405:
        return _in_shape(Refused("BadRequest", "The HTTP method is not supported for this resource.", 405))
    return _in_shape(Refused("BadRequest", "Resource not found for the segment."))


def _told(event: Json, request: Request) -> Json:
    told = shown(event)
    if 'outlook.body-content-type="text"' not in request.headers.get("Prefer", ""):
        content = f"<html><body>{told['body']['content']}</body></html>"
        return {**told, "body": {"contentType": "html", "content": content}}
    return {**told, "body": {"contentType": "text", "content": told["body"]["content"].replace("\n", "\r\n")}}


def _brief(told: Json) -> Json:
    """Of what belongs to a series, a delta says when it is, and no more."""
    return {name: told[name] for name in _OF_AN_OCCURRENCE} if told["type"] == "occurrence" else told


def _query(request: Request, *names: str) -> Json:
    query = dict(request.query_params)
    for name in query:
        if name not in names:
            raise Refused("BadRequest", f"The query parameter '{name}' is not supported here.")
    return query


def _whole(query: Json, name: str, usual: int) -> int:
    value = query.get(name, str(usual))
    if not value.isdigit() or not 0 <= int(value) <= 1000:
        raise Refused("BadRequest", f"Invalid value '{value}' for the query parameter '{name}'.")
    return int(value)


def _window(request: Request) -> Window:
    moments = []
    for name in ("startDateTime", "endDateTime"):
        try:
            moment = datetime.fromisoformat(request.query_params[name])
        except (KeyError, ValueError):
            message = "This request requires a time window specified by the query string parameters"
            raise Refused("ErrorInvalidParameter", f"{message} StartDateTime and EndDateTime.") from None
        moments.append(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))
    return Window(*moments)


def _here(request: Request) -> str:
    return str(request.url.replace(query=""))
