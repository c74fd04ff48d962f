"""The sandbox's Microsoft Graph, asked without our client, which is too well-behaved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from sandbox.graph import USER
from sandbox.serve import Running

pytestmark = pytest.mark.usefixtures("served")

EVENTS = f"/v1.0/users/{USER}/calendar/events"
VIEW = f"/v1.0/users/{USER}/calendar/calendarView"
ONE = {"dateTime": "2027-03-01T09:00:00", "timeZone": "W. Europe Standard Time"}
TWO = {"dateTime": "2027-03-01T10:00:00", "timeZone": "W. Europe Standard Time"}
SUBSCRIPTIONS = "/v1.0/subscriptions"
NOBODY = "http://127.0.0.1:9"
PAST, FAR = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
MIDNIGHT = {"dateTime": "2027-03-01T00:00:00", "timeZone": "UTC"}
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def graph(_server: Running) -> Iterator[httpx.Client]:
    token = httpx.post(f"{_server.microsoft_base}/{tenant(_server)}/oauth2/v2.0/token", data=form(_server)).json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    with httpx.Client(base_url=_server.graph_base, headers=headers) as client:
        yield client


def tenant(served: Running) -> str:
    return served.sandbox.microsoft_login.tenant_id


def form(served: Running, **changes: str) -> dict[str, str]:
    login = served.sandbox.microsoft_login
    whole = {"client_id": login.client_id, "client_secret": login.client_secret, "grant_type": "client_credentials"}
    return {**whole, "scope": f"{served.graph_base}/.default", **changes}


def event(**changes: Any) -> dict[str, Any]:
    """An event that Graph takes."""
    whole = {"subject": "Demo", "start": ONE, "end": TWO, **changes}
    return {name: value for name, value in whole.items() if value != OUT}


def recurs(**changes: Any) -> dict[str, Any]:
    """A recurrence that Graph takes."""
    pattern = {"type": "weekly", "interval": 1, "daysOfWeek": ["monday"]}
    ends = {"type": "numbered", "startDate": "2027-03-01", "numberOfOccurrences": 3}
    given = {"pattern": {**pattern, **changes.get("pattern", {})}, "range": {**ends, **changes.get("range", {})}}
    return {"recurrence": given}


OUT = "leave out"

# what is wrong with an event -> Graph's code, a part of its message
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"start": OUT}, "ErrorPropertyValidationFailure", "start"),
    ({"end": OUT}, "ErrorPropertyValidationFailure", "end"),
    ({"end": {**TWO, "dateTime": "2027-03-01T08:00:00"}}, "ErrorCalendarEndDateIsEarlierThanStartDate", "earlier"),
    ({"start": {**ONE, "timeZone": "Moon Standard Time"}}, "TimeZoneNotSupportedException", "A valid TimeZone value"),
    ({"start": {**ONE, "dateTime": "yesterday"}}, "ErrorInvalidRequest", "DateTime"),
    ({"isAllDay": True}, "ErrorInvalidRequest", "midnight"),
    ({"isAllDay": True, "start": MIDNIGHT, "end": MIDNIGHT}, "ErrorInvalidRequest", "midnight"),
    ({"attendees": [{"emailAddress": {"address": "ada"}}]}, "ErrorInvalidRecipients", "recipient"),
    ({"attendees": [{"emailAddress": {"address": "a@b.example"}, "role": "x"}]}, "RequestBodyRead", "does not exist"),
    ({"subject": 5}, "RequestBodyRead", "Cannot convert the value of property 'subject'"),
    ({"summary": "Demo"}, "RequestBodyRead", "The property 'summary' does not exist on type 'microsoft.graph.event'"),
    ({"start": {"dateTime": "2027-03-01T09:00:00"}}, "InvalidRequest", "'start.timeZone' is missing"),
    ({"onlineMeetingProvider": "zoom"}, "RequestBodyRead", "onlineMeetingProvider"),
    (recurs(range={"startDate": "2027-03-02"}), "ErrorPropertyValidationFailure", "must start when the event starts"),
    (recurs(pattern={"daysOfWeek": []}), "ErrorPropertyValidationFailure", "needs daysOfWeek"),
    (recurs(pattern={"type": "hourly"}), "RequestBodyRead", "recurrence.pattern.type"),
    (recurs(pattern={"type": "absoluteMonthly"}), "ErrorPropertyValidationFailure", "needs dayOfMonth"),
    (recurs(range={"type": "endDate", "endDate": "2027-01-01"}), "ErrorRecurrenceEndDateTooEarly", "before it starts"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "code", "message"), WRONG)
def test_a_wrong_event_is_refused_as_graph_refuses_it(
    graph: httpx.Client, wrong: dict[str, Any], code: str, message: str
) -> None:
    answer = graph.post(EVENTS, json=event(**wrong))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert message in error["message"]
    assert error["innerError"]["request-id"] == answer.headers["request-id"]


def subscription(**changes: str) -> dict[str, str]:
    """A subscription that Graph takes."""
    until = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    whole = {"changeType": "created,deleted", "notificationUrl": "https://x", "expirationDateTime": until}
    return {**whole, "resource": f"/users/{USER}/events", "clientState": "s3cret", **changes}


# method, path, what else -> status, code, a part of the message
OTHERS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("GET", EVENTS, {"headers": {"Authorization": "Bearer x"}}, 401, "InvalidAuthenticationToken", "expired"),
    ("GET", EVENTS.replace(USER, "nobody"), {}, 404, "ErrorInvalidUser", "user is invalid"),
    ("GET", EVENTS.replace("calendar", "calendars/x"), {}, 404, "ErrorItemNotFound", "not found"),
    ("GET", f"{EVENTS}/x", {}, 404, "ErrorItemNotFound", "not found"),
    ("GET", EVENTS, {"params": {"$filter": "x"}}, 400, "BadRequest", "'$filter' is not supported"),
    ("GET", EVENTS, {"params": {"$top": "many"}}, 400, "BadRequest", "'many'"),
    ("GET", VIEW, {}, 400, "ErrorInvalidParameter", "requires a time window"),
    ("GET", f"{VIEW}/delta", {"params": {"$deltatoken": "x"}}, 410, "SyncStateNotFound", "full synchronization"),
    ("POST", EVENTS, {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "BadRequest", "JSON"),
    ("POST", EVENTS, {"data": {"subject": "x"}}, 415, "RequestBodyRead", "MIME"),
    ("GET", "/v1.0/evnts", {}, 400, "BadRequest", "Resource not found for the segment"),
    ("PUT", EVENTS, {}, 405, "BadRequest", "method"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(changeType="moved")}, 400, "InvalidRequest", "changeType"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(resource="me/contacts")}, 400, "ExtensionError", "not supported"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(notificationUrl="http://x")}, 400, "InvalidRequest", "HTTPS"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(expirationDateTime=PAST)}, 400, "InvalidRequest", "future"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(expirationDateTime=FAR)}, 400, "InvalidRequest", "10080 minutes"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(clientState="x" * 129)}, 400, "RequestBodyRead", "clientState"),
    ("POST", SUBSCRIPTIONS, {"json": subscription(notificationUrl=NOBODY)}, 400, "ValidationError", "ConnectError"),
    ("PATCH", f"{SUBSCRIPTIONS}/x", {"json": {"expirationDateTime": FAR}}, 404, "ResourceNotFound", "not found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code", "message"), OTHERS, ids=[f"{one[4]}-{one[5]}" for one in OTHERS]
)
def test_other_wrong_requests_are_refused_as_graph_refuses_them(
    graph: httpx.Client, method: str, path: str, more: dict[str, Any], status: int, code: str, message: str
) -> None:
    answer = graph.request(method, path, **more)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert message in error["message"]


def test_an_event_changes_only_for_who_knows_it_as_it_is(graph: httpx.Client) -> None:
    made = graph.post(EVENTS, json=event(transactionId="t-1")).json()
    assert graph.post(EVENTS, json=event(transactionId="t-1")).json()["id"] == made["id"]
    other = graph.post(EVENTS, json=event(transactionId="t-1", subject="Other"))
    assert (other.status_code, other.json()["error"]["code"]) == (409, "ErrorDuplicateTransactionId")
    path, known = f"{EVENTS}/{made['id']}", {"If-Match": made["@odata.etag"]}
    assert graph.patch(path, json={"subject": "New"}, headers=known).json()["subject"] == "New"
    assert graph.patch(path, json={"subject": "Other"}, headers=known).status_code == 412
    assert graph.delete(path, headers=known).status_code == 412
    assert graph.delete(path).status_code == 204
    assert graph.delete(path).status_code == 404


def test_times_come_in_utc_and_text_as_html_unless_the_caller_prefers_text(graph: httpx.Client) -> None:
    body = {"contentType": "text", "content": "Hello\nAda"}
    made = graph.post(EVENTS, json=event(body=body)).json()
    assert made["start"] == {"dateTime": "2027-03-01T08:00:00.0000000", "timeZone": "UTC"}
    assert made["originalStartTimeZone"] == "W. Europe Standard Time"
    assert made["body"]["contentType"] == "html"
    preferred = graph.get(f"{EVENTS}/{made['id']}", headers={"Prefer": 'outlook.body-content-type="text"'}).json()
    assert preferred["body"] == {"contentType": "text", "content": "Hello\r\nAda"}


@pytest.mark.parametrize(
    ("answer", "reason"), [((500, "{token}"), "answered 500"), ((200, "no"), "answered 200")], ids=["500", "another"]
)
def test_a_receiver_that_does_not_shake_hands_is_not_told(
    graph: httpx.Client, answer: tuple[int, str], reason: str
) -> None:
    with shaking(*answer) as (url, _):
        refused = graph.post(SUBSCRIPTIONS, json=subscription(notificationUrl=url))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "ValidationError")
    assert reason in refused.json()["error"]["message"]


def test_a_subscription_is_told_what_it_asked_for_with_its_secret_until_it_ends(
    served: Running, graph: httpx.Client, until: Until
) -> None:
    with shaking(200, "{token}") as (url, taken):
        made = graph.post(SUBSCRIPTIONS, json=subscription(notificationUrl=url))
        assert made.status_code == 201
        one = graph.post(EVENTS, json=event()).json()
        graph.patch(f"{EVENTS}/{one['id']}", json={"subject": "Not asked for"})
        graph.delete(f"{EVENTS}/{one['id']}")
        until(lambda: len(taken) == 2)
        told = [each for body in taken for each in json.loads(body)["value"]]
        assert sorted(each["changeType"] for each in told) == ["created", "deleted"]
        assert {each["subscriptionId"] for each in told} == {made.json()["id"]}
        assert {each["clientState"] for each in told} == {"s3cret"}
        assert {each["resourceData"]["id"] for each in told} == {one["id"]}
        assert graph.delete(f"/v1.0/subscriptions/{made.json()['id']}").status_code == 204
        graph.post(EVENTS, json=event())
        assert len(served.sandbox.webhooks.deliveries) == 2


@contextmanager
def shaking(status: int, text: str) -> Iterator[tuple[str, list[bytes]]]:
    """A receiver, and what it was told; it answers Graph's question with this status and text."""
    taken: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = parse_qs(urlsplit(self.path).query).get("validationToken")
            if asked is None:
                taken.append(body)
            answer = text.format(token=asked[0]).encode() if asked else b""
            self.send_response(status if asked else 202)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", taken
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("wrong", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "x"}, 400, "unauthorized_client"),
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"scope": "Calendars.Read"}, 400, "invalid_scope"),
        ({}, 200, None),
    ],
)
def test_a_token_is_given_to_the_application_only(
    served: Running, wrong: dict[str, str], status: int, error: str | None
) -> None:
    url = f"{served.microsoft_base}/{tenant(served)}/oauth2/v2.0/token"
    answer = httpx.post(url, data=form(served, **wrong))
    assert (answer.status_code, answer.json().get("error")) == (status, error)
    elsewhere = httpx.post(url.replace(tenant(served), "elsewhere"), data=form(served, **wrong))
    assert "AADSTS90002" in elsewhere.json()["error_description"]
