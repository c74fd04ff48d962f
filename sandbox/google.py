"""Google Calendar's API v3, as the sandbox speaks it: strict by Google's own description, etags, sync tokens, channels.

Its user has two calendars: the primary one, and `team@group.calendar.google.com`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from zlib import crc32

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.agenda import Agenda, Entry, Window, after, page
from sandbox.discovery import Refused, check_body, check_query, in_shape
from sandbox.google_events import KNOWN, WORDS, check, expires, meeting, patched, shown, without_nulls
from sandbox.tokens import Tokens
from sandbox.webhooks import Webhooks, may_be_told
from sandbox.world import Clock, Ids

Json = dict[str, Any]

USER, TEAM = "sandbox@example.com", "team@group.calendar.google.com"
_ERRORS = {
    400: ("badRequest", "Bad Request"),
    401: ("authError", "Invalid Credentials"),
    402: ("paymentRequired", "Payment Required"),
    403: ("forbidden", "Forbidden"),
    404: ("notFound", "Not Found"),
    409: ("conflict", "Conflict"),
    410: ("fullSyncRequired", "Sync token is no longer valid, a full sync is required."),
    412: ("conditionNotMet", "Precondition Failed"),
    429: ("rateLimitExceeded", "Rate Limit Exceeded"),
}
_WRITES = frozenset({"conferenceDataVersion", "sendUpdates"})
_LISTS = frozenset({"maxResults", "pageToken", "singleEvents", "timeMin", "timeMax", "syncToken"})
_FOR = frozenset({"id", "type", "address", "token", "expiration", "params"})


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a page token or a sync token stands for."""

    calendar: str
    since: int
    window: Window
    single: bool
    version: int
    offset: int = 0
    synced: bool = False


@dataclass(slots=True)
class _Channel:
    """Who is told of changes in a calendar."""

    id: str
    resource_id: str
    calendar: str
    address: str
    token: str | None
    expires: int
    messages: int = 0


class GoogleService:
    """Google Calendar, with one user.

    Args:
        clock: Tells the time.
        tokens: Who may call it.
        webhooks: Takes the notifications.
    """

    def __init__(self, clock: Clock, tokens: Tokens, webhooks: Webhooks) -> None:
        self._clock, self._tokens, self._webhooks = clock, tokens, webhooks
        self.reset(Ids())

    def reset(self, ids: Ids) -> None:
        """Starts again with empty calendars; ids come from `ids`."""
        self._ids = ids
        self.calendars = {USER: _calendar(USER, "Sandbox", primary=True), TEAM: _calendar(TEAM, "Team", primary=False)}
        self._listings: dict[str, _Listing] = {}
        self._channels: dict[str, _Channel] = {}

    def add(self, id_: str, event: Json) -> Json:
        """Makes an event in a calendar.

        Args:
            id_: The calendar's id.
            event: In Google's words; without an id, it is given one.
        """
        usual = self._ids.new("event", 26).lower().translate(str.maketrans("wxyz", "abcd"))
        new = {"kind": "calendar#event", "status": "confirmed", "created": self._now(), "id": usual, **event}
        who = {"email": id_, "self": True}
        about = {"iCalUID": f"{new['id']}@google.com", "creator": who, "organizer": who}
        return self._put(id_, self.calendars[id_], {**new, **about})

    def expire(self) -> None:
        """Forgets every sync token that it gave."""
        self._listings.clear()

    def app(self) -> Starlette:
        """The API, from `/calendar/v3` on."""
        events = "/calendar/v3/calendars/{calendar}/events"
        routes: list[tuple[str, str, Callable[[Request, bytes], Response]]] = [
            ("GET", "/calendar/v3/users/me/calendarList", self._list_calendars),
            ("GET", events, self._list),
            ("POST", events, self._insert),
            ("POST", f"{events}/watch", self._watch),
            ("GET", f"{events}/{{event}}", self._get),
            ("PATCH", f"{events}/{{event}}", self._patch),
            ("DELETE", f"{events}/{{event}}", self._delete),
            ("POST", "/calendar/v3/channels/stop", self._stop),
        ]
        not_found = {404: _unknown, 405: _unknown}
        return Starlette(
            routes=[Route(path, self._endpoint(run), methods=[method]) for method, path, run in routes],
            exception_handlers=not_found,
        )

    def _endpoint(self, run: Callable[[Request, bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            try:
                self._admit(request, body)
                return run(request, body)
            except Refused as refused:
                return in_shape(refused)

        return endpoint

    def _admit(self, request: Request, body: bytes) -> None:
        if not self._tokens.hold(request):
            raise Refused("Invalid Credentials", "authError", 401, location="Authorization")
        if body and not request.headers.get("Content-Type", "").startswith("application/json"):
            raise Refused("This API does not support parsing form-encoded input.", "parseError")

    # --- the operations -------------------------------------------------------------------------------------------

    def _list_calendars(self, request: Request, _: bytes) -> Response:
        query = check_query("calendarList.list", request.query_params, frozenset({"maxResults", "pageToken"}))
        offset = int(query.get("pageToken", "0")) if query.get("pageToken", "0").isdigit() else 0
        items, further = page([each.about for each in self.calendars.values()], offset, query.get("maxResults", 100))
        answer = {"kind": "calendar#calendarList", "etag": '"0"', "items": items}
        return JSONResponse(answer | ({} if further is None else {"nextPageToken": str(further)}))

    def _list(self, request: Request, _: bytes) -> Response:
        query = check_query("events.list", request.query_params, _LISTS)
        id_, agenda = self._calendar(request)
        listing = self._listing(query, id_, agenda)
        items, further = page(self._items(listing, agenda), listing.offset, min(query.get("maxResults", 250), 2500))
        answer = {"kind": "calendar#events", "etag": '"0"', "summary": agenda.about["summary"], "items": items}
        answer |= {"timeZone": agenda.about["timeZone"], "accessRole": "owner", "defaultReminders": []}
        if further is not None:
            answer["nextPageToken"] = self._keep("page", _moved(listing, offset=further))
        else:
            answer["nextSyncToken"] = self._keep("sync", _moved(listing, since=listing.version, synced=True))
        return JSONResponse(answer)

    def _insert(self, request: Request, raw: bytes) -> Response:
        query = check_query("events.insert", request.query_params, _WRITES)
        body = without_nulls(check_body("events.insert", raw, KNOWN))
        id_, agenda = self._calendar(request)
        if not re.fullmatch(r"[a-v0-9]{5,1024}", body.get("id", "abcde")):
            raise Refused("Invalid resource id value.")
        check(body)
        if body.get("id") in agenda.entries:
            raise Refused("The requested identifier already exists.", "duplicate", 409)
        return JSONResponse(_shown(self.add(id_, self._meeting(body, query)), agenda))

    def _get(self, request: Request, _: bytes) -> Response:
        check_query("events.get", request.query_params, frozenset())
        agenda = self._calendar(request)[1]
        entry, event = self._find(request, agenda)
        if event is None:
            return JSONResponse(_shown({**entry.body, "status": "cancelled"}, agenda))
        return JSONResponse(_shown(event, agenda))

    def _patch(self, request: Request, raw: bytes) -> Response:
        query = check_query("events.patch", request.query_params, _WRITES)
        changes = check_body("events.patch", raw, KNOWN - {"id"})
        id_, agenda = self._calendar(request)
        entry, event = self._there(request, agenda)
        if "conferenceData" in changes and query.get("conferenceDataVersion") == 1:
            event = {name: value for name, value in event.items() if name not in {"conferenceData", "hangoutLink"}}
        changed = patched(event, self._meeting(changes, query))
        check(changed)
        changed = self._put(id_, agenda, changed, None if event["id"] == entry.body["id"] else entry)
        return JSONResponse(_shown(changed, agenda))

    def _delete(self, request: Request, _: bytes) -> Response:
        check_query("events.delete", request.query_params, frozenset({"sendUpdates"}))
        id_, agenda = self._calendar(request)
        entry, event = self._there(request, agenda)
        if event["id"] == entry.body["id"]:
            agenda.delete(entry)
        else:
            agenda.put_instance(entry, event["id"], None)
        self._tell(id_)
        return Response(status_code=204)

    def _watch(self, request: Request, raw: bytes) -> Response:
        check_query("events.watch", request.query_params, frozenset())
        body = check_body("events.watch", raw, _FOR)
        id_, _ = self._calendar(request)
        for name in ("id", "type", "address"):
            if not body.get(name):
                raise Refused(f"entity.{name} is required", "required", domain="global")
        if body["type"] != "web_hook":
            raise Refused(f"Unknown channel type: {body['type']}", "channelTypeUnknown", domain="push")
        if not may_be_told(body["address"]):
            raise Refused(f"WebHook callback must be HTTPS: {body['address']}", "push.webhookUrlNotHttps", 400)
        if body["id"] in self._channels:
            raise Refused(f"Channel id {body['id']} not unique", "channelIdNotUnique", domain="push")
        until = expires(self._clock.now(), body)
        channel = _Channel(body["id"], _resource(id_), id_, body["address"], body.get("token"), until)
        self._channels[channel.id] = channel
        self._send(channel, "sync")
        answer = {"kind": "api#channel", "id": channel.id, "resourceId": channel.resource_id}
        return JSONResponse(answer | {"resourceUri": _uri(id_), "token": channel.token, "expiration": str(until)})

    def _stop(self, _: Request, raw: bytes) -> Response:
        body = check_body("channels.stop", raw, frozenset({"id", "resourceId"}))
        channel = self._channels.get(str(body.get("id")))
        if channel is None or channel.resource_id != body.get("resourceId") or not self._open(channel):
            raise Refused(f"Channel '{body.get('id')}' not found for project '0'", "notFound", 404)
        del self._channels[channel.id]
        return Response(status_code=204)

    # --- what they are made of ------------------------------------------------------------------------------------

    def _calendar(self, request: Request) -> tuple[str, Agenda]:
        asked = request.path_params["calendar"]
        id_ = USER if asked == "primary" else asked
        if id_ not in self.calendars:
            raise Refused("Not Found", "notFound", 404)
        return id_, self.calendars[id_]

    def _find(self, request: Request, agenda: Agenda) -> tuple[Entry, Json | None]:
        found = agenda.find(request.path_params["event"])
        if found is None:
            raise Refused("Not Found", "notFound", 404)
        return found

    def _there(self, request: Request, agenda: Agenda) -> tuple[Entry, Json]:
        """The event that is to be changed, unless it is gone, or another one than the caller knows."""
        entry, event = self._find(request, agenda)
        if event is None:
            raise Refused("Resource has been deleted", "deleted", 410)
        if request.headers.get("If-Match", event["etag"]) != event["etag"]:
            raise Refused("Precondition Failed", "conditionNotMet", 412, location="If-Match")
        return entry, event

    def _meeting(self, body: Json, query: Json) -> Json:
        """Without version 1, Google takes no notice of meetings."""
        if query.get("conferenceDataVersion") != 1:
            return {name: value for name, value in body.items() if name != "conferenceData"}
        return meeting(body, self._ids.new("meeting", 10))

    def _put(self, id_: str, agenda: Agenda, event: Json, entry: Entry | None = None) -> Json:
        event = {**event, "updated": self._now(), "etag": f'"{agenda.version + 1}{self._clock.now()}000"'}
        if entry is None:
            agenda.put(event)
        else:
            agenda.put_instance(entry, event["id"], event)
        self._tell(id_)
        return event

    def _listing(self, query: Json, id_: str, agenda: Agenda) -> _Listing:
        token = query.get("pageToken") or query.get("syncToken")
        window = Window(
            **{
                end: _moment(query[name], name)
                for end, name in (("start", "timeMin"), ("end", "timeMax"))
                if name in query
            }
        )
        if token is None:
            return _Listing(id_, 0, window, query.get("singleEvents", False), agenda.version)
        if "syncToken" in query and window != Window():
            raise Refused("Sync token cannot be used with query restrictions.", "invalid", location="syncToken")
        listing = self._listings.get(token)
        if listing is None and "syncToken" in query:
            reason = {"domain": "calendar", "location": "syncToken"}
            raise Refused(_ERRORS[410][1], "fullSyncRequired", 410, **reason)
        if listing is None or listing.single != query.get("singleEvents", False) or listing.calendar != id_:
            raise Refused("Invalid token value.", "invalid", location="pageToken")
        return listing if "pageToken" in query else _moved(listing, version=agenda.version)

    def _items(self, listing: _Listing, agenda: Agenda) -> list[Json]:
        if not listing.single:
            found = [*agenda.whole()]
        elif not listing.synced:
            found = sorted(agenda.instances(listing.window), key=lambda each: str(each["id"]))
        else:
            found = []
            for _, there, gone in agenda.changes(listing.since, listing.window):
                found += there
                found += [{"kind": "calendar#event", "id": each, "status": "cancelled"} for each in gone]
        return [each if each["status"] == "cancelled" else _shown(each, agenda) for each in found]

    def _keep(self, kind: str, listing: _Listing) -> str:
        token = f"C{kind}{self._ids.new(kind, 20)}"
        self._listings[token] = listing
        return token

    def _tell(self, id_: str) -> None:
        for channel in self._channels.values():
            if channel.calendar == id_ and self._open(channel):
                self._send(channel, "exists")

    def _send(self, channel: _Channel, state: str) -> None:
        channel.messages += 1
        headers = {
            "X-Goog-Channel-ID": channel.id,
            "X-Goog-Message-Number": str(channel.messages),
            "X-Goog-Resource-ID": channel.resource_id,
            "X-Goog-Resource-State": state,
            "X-Goog-Resource-URI": _uri(channel.calendar),
            "X-Goog-Channel-Expiration": format_datetime(after(channel.expires // 1000, 0), usegmt=True),
        }
        token = {} if channel.token is None else {"X-Goog-Channel-Token": channel.token}
        name = f"{channel.id}/{channel.messages}"
        self._webhooks.post("google", channel.address, b"", [name], {**headers, **token})

    def _open(self, channel: _Channel) -> bool:
        return channel.expires > self._clock.now() * 1000

    def _now(self) -> str:
        return f"{after(self._clock.now(), 0):%Y-%m-%dT%H:%M:%S.000Z}"


def error(status: int) -> Response:
    """Google's answer to an HTTP status, in its own shape."""
    reason, message = _ERRORS.get(status, ("backendError", "Backend Error"))
    return in_shape(Refused(message, reason, status))


async def _unknown(_: Request, exception: Exception) -> Response:
    return error(getattr(exception, "status_code", 404))


def _calendar(id_: str, name: str, *, primary: bool) -> Agenda:
    about = {"kind": "calendar#calendarListEntry", "etag": '"0"', "id": id_, "summary": name, "accessRole": "owner"}
    zone = {"timeZone": "Europe/Berlin"}
    return Agenda(about | zone | ({"primary": True} if primary else {}), WORDS)


def _shown(event: Json, agenda: Agenda) -> Json:
    return shown(event, agenda.about["timeZone"])


def _moved(listing: _Listing, **changes: Any) -> _Listing:  # noqa: ANN401  (its fields)
    return replace(listing, **({"offset": 0} | changes))


def _moment(text: str, name: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise Refused("Bad Request", "badRequest", location=name)
    return moment.astimezone(UTC)


def _resource(id_: str) -> str:
    return f"r{crc32(id_.encode()):x}"


def _uri(id_: str) -> str:
    return f"https://www.googleapis.com/calendar/v3/calendars/{id_}/events?alt=json"
