"""The sandbox's Google Calendar, without the SDK, which is too well-behaved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from google.auth import crypt, jwt

from sandbox.app import Moved
from sandbox.google import TEAM
from sandbox.serve import Running
from sandbox.tokens import GOOGLE_SCOPE
from tests.sandbox.conftest import Receiver

pytestmark = pytest.mark.usefixtures("served")

EVENTS = "/calendar/v3/calendars/primary/events"
WATCH, STOP = f"{EVENTS}/watch", "/calendar/v3/channels/stop"
JSON = {"Content-Type": "application/json"}
ONE = {"dateTime": "2027-03-01T09:00:00", "timeZone": "Europe/Berlin"}
TWO = {"dateTime": "2027-03-01T10:00:00", "timeZone": "Europe/Berlin"}
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def google(_server: Running) -> Iterator[httpx.Client]:
    login = _server.sandbox.google_login.authorized_user(f"{_server.url}/google/login")
    form = {"grant_type": "refresh_token", **{name: login[name] for name in login if name not in {"type", "token_uri"}}}
    token = httpx.post(login["token_uri"], data=form).json()["access_token"]
    with httpx.Client(base_url=_server.google_base, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def event(**changes: Any) -> dict[str, Any]:
    """An event that Google takes."""
    whole = {"summary": "Demo", "start": ONE, "end": TWO, **changes}
    return {name: value for name, value in whole.items() if value != "leave out"}


OUT = "leave out"
DAY = {"date": "2027-03-01"}

# what is wrong with an event -> Google's reason, a part of its message
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"start": OUT}, "required", "Missing start time."),
    ({"end": OUT}, "required", "Missing end time."),
    ({"end": DAY}, "invalid", "must either both be date or both be dateTime"),
    ({"end": {**TWO, "dateTime": "2027-03-01T08:00:00"}}, "timeRangeEmpty", "time range is empty"),
    ({"start": DAY, "end": DAY}, "timeRangeEmpty", "time range is empty"),
    ({"start": {"dateTime": "2027-03-01T09:00:00"}}, "required", "Missing time zone definition for start time."),
    ({"start": {**ONE, "timeZone": "Moon"}}, "invalid", "Invalid time zone definition for start time."),
    ({"start": {**ONE, "dateTime": "yesterday"}}, "invalid", "Invalid format"),
    ({"start": {"dateTime": "2027-03-01T09:00:00Z"}, "recurrence": ["RRULE:FREQ=DAILY"]}, "required", "time zone"),
    ({"recurrence": ["RRULE:FREQ=SOMETIMES"]}, "invalid", "Invalid recurrence rule."),
    ({"attendees": [{"email": "ada"}]}, "invalid", "Invalid attendee email."),
    ({"attendees": {"email": "ada@example.com"}}, "badRequest", "expected array"),
    ({"summary": 5}, "badRequest", "expected string"),
    ({"id": "UPPER"}, "invalid", "Invalid resource id value."),
    ({"sumary": "Demo"}, "invalid", 'Unknown name "sumary": Cannot find field.'),
    ({"start": {**ONE, "zone": "UTC"}}, "invalid", "Unknown name \"zone\" at 'start'"),
    ({"colorId": "1"}, "invalid", "does not act on the field colorId"),
    ({"conferenceData": {"createRequest": {}}}, "required", "Invalid conference create request."),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "reason", "message"), WRONG)
def test_a_wrong_event_is_refused_as_google_refuses_it(
    google: httpx.Client, wrong: dict[str, Any], reason: str, message: str
) -> None:
    answer = google.post(EVENTS, params={"conferenceDataVersion": 1}, json=event(**wrong))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["errors"][0]["reason"]) == (400, 400, reason)
    assert message in error["message"]


def channel(**changes: str) -> dict[str, str]:
    """A channel that Google may take."""
    return {"id": "1", "type": "web_hook", **changes}


# method, path, what else -> status, reason, a part of the message
OTHERS: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("GET", EVENTS, {"headers": {"Authorization": "Bearer ya29.wrong"}}, 401, "authError", "Invalid Credentials"),
    ("GET", EVENTS, {"params": {"maxResults": "many"}}, 400, "invalidParameter", "maxResults"),
    ("GET", EVENTS, {"params": {"singelEvents": "true"}}, 400, "invalid", 'Unknown name "singelEvents"'),
    ("GET", EVENTS, {"params": {"orderBy": "startTime"}}, 400, "invalid", "does not act on the parameter orderBy"),
    ("GET", EVENTS, {"params": {"timeMin": "2027-01-01T00:00:00"}}, 400, "badRequest", "Bad Request"),
    ("GET", EVENTS, {"params": {"syncToken": "x"}}, 410, "fullSyncRequired", "a full sync is required"),
    ("GET", EVENTS, {"params": {"pageToken": "x"}}, 400, "invalid", "Invalid token value."),
    ("GET", EVENTS.replace("primary", "nobody"), {}, 404, "notFound", "Not Found"),
    ("GET", f"{EVENTS}/nothing", {}, 404, "notFound", "Not Found"),
    ("POST", EVENTS, {"params": {"sendUpdates": "some"}, "json": event()}, 400, "invalidParameter", "sendUpdates"),
    ("POST", EVENTS, {"content": b"{", "headers": JSON}, 400, "parseError", "Parse Error"),
    ("POST", EVENTS, {"data": {"summary": "Demo"}}, 400, "parseError", "form-encoded"),
    ("PUT", EVENTS, {}, 405, "backendError", ""),
    ("POST", WATCH, {"json": channel()}, 400, "required", "address"),
    ("POST", WATCH, {"json": channel(type="mail", address="https://x")}, 400, "channelTypeUnknown", "mail"),
    ("POST", WATCH, {"json": channel(address="http://x")}, 400, "push.webhookUrlNotHttps", "HTTPS"),
    ("POST", WATCH, {"json": channel(address="https://x", expiration="1")}, 400, "invalid", "expiration"),
    ("POST", STOP, {"json": {"id": "1", "resourceId": "r"}}, 404, "notFound", "Channel '1' not found"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "more", "status", "reason", "message"), OTHERS)
def test_other_wrong_requests_are_refused_as_google_refuses_them(
    google: httpx.Client, method: str, path: str, more: dict[str, Any], status: int, reason: str, message: str
) -> None:
    answer = google.request(method, path, **more)
    error = answer.json()["error"]
    assert (answer.status_code, error["errors"][0]["reason"]) == (status, reason)
    assert message in error["message"]


def test_an_event_changes_only_for_who_knows_it_as_it_is(google: httpx.Client) -> None:
    made = google.post(EVENTS, json=event(id="abc123")).json()
    assert google.post(EVENTS, json=event(id="abc123")).json()["error"]["errors"][0]["reason"] == "duplicate"
    path = f"{EVENTS}/abc123"
    changed = google.patch(path, json={"summary": "New"}, headers={"If-Match": made["etag"]}).json()
    assert (changed["summary"], changed["etag"] != made["etag"]) == ("New", True)
    for answer in (
        google.patch(path, json={"summary": "Other"}, headers={"If-Match": made["etag"]}),
        google.delete(path, headers={"If-Match": made["etag"]}),
    ):
        assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (412, "conditionNotMet")
    assert google.delete(path).status_code == 204
    assert google.delete(path).status_code == 410
    assert google.get(path).json()["status"] == "cancelled"


def test_a_channel_is_greeted_told_of_changes_and_ends(
    served: Running, google: httpx.Client, receiver: Receiver, until: Until
) -> None:
    about = {"id": "ch-1", "type": "web_hook", "address": receiver.url, "token": "s3cret", "params": {"ttl": "1800"}}
    made = google.post(WATCH, json=about).json()
    assert (made["kind"], made["id"]) == ("api#channel", "ch-1")
    assert int(made["expiration"]) == pytest.approx((time.time() + 1800) * 1000, abs=60_000)
    assert google.post(WATCH, json=about).json()["error"]["errors"][0]["reason"] == "channelIdNotUnique"
    google.post(EVENTS, json=event())
    google.post(EVENTS.replace("primary", TEAM), json=event())
    until(lambda: len(receiver.taken) == 2)
    told = sorted(receiver.taken, key=lambda one: one[0]["x-goog-message-number"])
    assert [headers["x-goog-resource-state"] for headers, _ in told] == ["sync", "exists"]
    assert {headers["x-goog-channel-id"] for headers, _ in told} == {"ch-1"}
    assert {headers["x-goog-channel-token"] for headers, _ in told} == {"s3cret"}
    assert {headers["x-goog-resource-id"] for headers, _ in told} == {made["resourceId"]}
    assert {body for _, body in told} == {b""}
    served.sandbox.advance(Moved(seconds=1801))
    google.post(EVENTS, json=event())
    assert len(served.sandbox.webhooks.deliveries) == 2
    stop = google.post(STOP, json={"id": "ch-1", "resourceId": made["resourceId"]})
    assert stop.status_code == 404


def test_sync_tokens_are_forgotten_on_request(served: Running, google: httpx.Client) -> None:
    token = google.get(EVENTS).json()["nextSyncToken"]
    assert google.get(EVENTS, params={"syncToken": token}).status_code == 200
    asked = [httpx.post(f"{served.url}/_sandbox/forget", json={"service": name}) for name in ("google", "stripe")]
    assert [answer.status_code for answer in asked] == [204, 422]
    assert google.get(EVENTS, params={"syncToken": token}).status_code == 410


@pytest.mark.parametrize(
    ("wrong", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "client_id": "x"}, 401, "invalid_client"),
        ({"assertion": "not.a.jwt"}, 400, "invalid_grant"),
        ({"iss": "somebody@else"}, 400, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, 400, "invalid_scope"),
        ({"aud": "https://elsewhere"}, 400, "invalid_grant"),
        ({}, 200, None),
    ],
)
def test_a_token_is_given_for_a_signed_assertion_only(
    served: Running, wrong: dict[str, str], status: int, error: str | None
) -> None:
    info = json.loads(served.google_credentials)
    now = int(time.time())
    claims = {"iss": info["client_email"], "scope": GOOGLE_SCOPE, "aud": "https://oauth2.googleapis.com/token"}
    claims |= {"iat": now, "exp": now + 600}
    signer = crypt.RSASigner.from_service_account_info(info)  # type: ignore[no-untyped-call]
    assertion = jwt.encode(signer, {**claims, **wrong}).decode()  # type: ignore[no-untyped-call]
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion, **wrong}
    answer = httpx.post(info["token_uri"], data=form)
    assert (answer.status_code, answer.json().get("error")) == (status, error)
