"""Google's and Graph's notifications: not signed, they carry the secret of the watch that they are for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import httpx
import pytest

from events.envelope import Event
from events.sqlite import SqliteEventLog
from integrations.calendar import PRIMARY
from sandbox.app import Sandbox
from sandbox.serve import running
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.signing import (
    JSON,
    WATCH_SECRETS,
    body_of,
    google_headers,
    outlook_change,
    outlook_lifecycle,
)
from tests.integrations.calendars import DEMO, SECRET, google_calendar, outlook_calendar

GOOGLE, OUTLOOK = "/webhooks/google", "/webhooks/outlook"
PLAIN = {"Content-Type": "text/plain; charset=utf-8"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A receiver for many tests: to start one for each takes longer than they do."""
    log = SqliteEventLog(tmp_path_factory.mktemp("log") / "events.db")
    with closing(log), serving(log, {}) as served:
        yield served


def tell(gateway: Gateway, *items: object) -> httpx.Response:
    """Graph's batch."""
    return gateway.http.post(OUTLOOK, content=body_of({"value": items, "validationTokens": []}), headers=JSON)


def stored(gateway: Gateway, after: int = 0) -> list[Event]:
    return [recorded.event for recorded in gateway.log.read(after, 100)]


def refusal(caplog: pytest.LogCaptureFixture) -> Mapping[str, object]:
    [told] = [vars(record) for record in caplog.records if record.name.startswith("gateway")]
    assert not [secret for secret in WATCH_SECRETS if secret in f"{told}{caplog.text}"]
    return told


# --- Google ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", WATCH_SECRETS)
def test_a_change_at_google_is_stored_without_its_secret(gateway: Gateway, token: str) -> None:
    answer = gateway.http.post(GOOGLE, headers=google_headers(token=token))

    assert (answer.status_code, answer.json()) == (200, {"received": 1, "new": 1})
    [event] = stored(gateway)
    assert (event.type, event.aggregate_type, event.aggregate_id) == (
        "google.calendar.changed",
        "calendar_watch",
        "channel-1",
    )
    assert event.data == {
        "channel_id": "channel-1",
        "message_number": 2,
        "resource_state": "exists",
        "resource_id": "ret08u3rv24htgh289g",
        "resource_uri": "https://www.googleapis.com/calendar/v3/calendars/primary/events?alt=json",
        "channel_expiration": "Tue, 19 Nov 2030 01:13:52 GMT",
    }
    assert (event.metadata.source, event.metadata.dedupe_key) == ("google", "channel-1/2")


@pytest.mark.parametrize(
    ("state", "type_"),
    [
        ("sync", "google.calendar.sync"),
        ("exists", "google.calendar.changed"),
        ("not_exists", "google.calendar.changed"),
        ("Some New-thing", "google.calendar.some_new_thing"),
    ],
)
def test_each_state_at_google_has_its_type(shared: Gateway, state: str, type_: str) -> None:
    before = shared.log.head()
    assert shared.http.post(GOOGLE, headers=google_headers(state, channel=state)).status_code == 200

    [event] = stored(shared, before)
    assert (event.type, event.data["resource_state"]) == (type_, state)


def test_google_may_say_that_its_empty_body_is_json(gateway: Gateway) -> None:
    headers = google_headers() | {"Content-Type": "application/json; utf-8"}

    assert gateway.http.post(GOOGLE, headers=headers).status_code == 200


def test_a_message_of_google_is_known_again_by_its_channel_and_number(gateway: Gateway) -> None:
    for channel, number in (("a", 1), ("a", 1), ("a", 3), ("b", 1)):
        assert gateway.http.post(GOOGLE, headers=google_headers(number=number, channel=channel)).status_code == 200

    assert [event.metadata.dedupe_key for event in stored(gateway)] == ["a/1", "a/3", "b/1"]


FORGED: dict[str, tuple[dict[str, str | None], int, str]] = {
    "no token": ({"X-Goog-Channel-Token": None}, 401, "no X-Goog-Channel-Token header"),
    "an empty token": ({"X-Goog-Channel-Token": ""}, 401, "no secret matched; 2 tried"),
    "another token": ({"X-Goog-Channel-Token": "a_watch_of_last_yeah"}, 401, "no secret matched"),
    "both tokens": ({"X-Goog-Channel-Token": " , ".join(WATCH_SECRETS)}, 401, "no secret matched"),
    "a token that is not ASCII": ({"X-Goog-Channel-Token": "é"}, 400, "not a signature"),
    "no channel": ({"X-Goog-Channel-ID": None}, 400, "no X-Goog-Channel-ID header"),
    "an empty channel": ({"X-Goog-Channel-ID": ""}, 400, "the X-Goog-Channel-ID header is empty"),
    "no number": ({"X-Goog-Message-Number": None}, 400, "no X-Goog-Message-Number header"),
    "a number in words": ({"X-Goog-Message-Number": "two"}, 400, "X-Goog-Message-Number is not a number"),
    "a number without end": ({"X-Goog-Message-Number": "9" * 21}, 400, "X-Goog-Message-Number is not a number"),
    "no state": ({"X-Goog-Resource-State": None}, 400, "no X-Goog-Resource-State header"),
}


@pytest.mark.parametrize("name", list(FORGED))
def test_what_google_did_not_send_is_refused(shared: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    changed, status, reason = FORGED[name]
    before = shared.log.head()
    headers = [
        (key.encode(), value.encode()) for key, value in (google_headers() | changed).items() if value is not None
    ]

    assert shared.http.post(GOOGLE, headers=headers).status_code == status
    assert shared.log.head() == before
    assert reason in str(refusal(caplog)["reason"])


def test_a_header_of_google_that_stands_twice_is_refused(shared: Gateway) -> None:
    before = shared.log.head()
    for name in ("X-Goog-Channel-Token", "X-Goog-Channel-ID", "X-Goog-Message-Number"):
        headers = [*google_headers().items(), (name, google_headers()[name])]

        assert shared.http.post(GOOGLE, headers=headers).status_code == 400
    assert shared.log.head() == before


# --- Outlook: may it send? -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["Validation: Testing client ... Request-Id: 7&1", "x" * 1024, "a+b %3C &amp;"])
def test_graph_is_answered_with_its_own_token_as_plain_text(shared: Gateway, token: str) -> None:
    before = shared.log.head()

    answer = shared.http.post(OUTLOOK, params={"validationToken": token}, headers=PLAIN)

    assert (answer.status_code, answer.text) == (200, token)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert shared.log.head() == before


@pytest.mark.parametrize("token", ["", "<script>alert(1)</script>", "x" * 1025, "a\r\nSet-Cookie: b", "é", "\x00"])
def test_a_token_that_graph_would_not_send_is_not_sent_back(shared: Gateway, token: str) -> None:
    answer = shared.http.post(OUTLOOK, params={"validationToken": token}, headers=PLAIN)

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed"})


# --- Outlook: what it tells ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", WATCH_SECRETS)
def test_a_change_in_outlook_is_stored_without_its_secret(gateway: Gateway, secret: str) -> None:
    told = outlook_change(clientState=secret)

    answer = tell(gateway, told)

    assert (answer.status_code, answer.content) == (202, b"")
    [event] = stored(gateway)
    assert (event.type, event.aggregate_type, event.aggregate_id) == (
        "outlook.calendar.changed",
        "calendar_watch",
        "sub-1",
    )
    assert event.data == {name: value for name, value in told.items() if name != "clientState"}
    assert event.metadata.source == "outlook"


@pytest.mark.parametrize(
    ("lifecycle", "type_"),
    [
        ("reauthorizationRequired", "outlook.subscription.reauthorization_required"),
        ("subscriptionRemoved", "outlook.subscription.subscription_removed"),
        ("missed", "outlook.subscription.missed"),
        ("somethingNew", "outlook.subscription.something_new"),
    ],
)
def test_what_becomes_of_a_subscription_is_stored(shared: Gateway, lifecycle: str, type_: str) -> None:
    before = shared.log.head()
    assert tell(shared, outlook_lifecycle(lifecycle)).status_code == 202

    [event] = stored(shared, before)
    assert (event.type, event.aggregate_id, event.data["lifecycleEvent"]) == (type_, "sub-1", lifecycle)


def test_a_notification_that_comes_again_is_stored_once_and_a_further_change_is_not_lost(gateway: Gateway) -> None:
    for told in (
        outlook_change('W/"1"'),
        outlook_change('W/"1"'),
        outlook_change('W/"2"'),
        outlook_change('W/"2"', changeType="deleted"),
        outlook_change('W/"9"', id="n-1"),
        outlook_change('W/"8"', id="n-1"),
    ):
        assert tell(gateway, told).status_code == 202

    assert [event.data["resourceData"]["@odata.etag"] for event in stored(gateway)] == [
        'W/"1"',
        'W/"2"',
        'W/"2"',
        'W/"9"',
    ]


def test_what_names_neither_an_id_nor_a_version_is_rather_stored_twice_than_never(gateway: Gateway) -> None:
    for _ in range(2):
        tell(gateway, outlook_lifecycle("missed"))

    assert len(stored(gateway)) == 2


def test_of_a_mixed_batch_the_genuine_ones_are_stored_and_the_log_tells_of_the_others(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    forged = outlook_change('W/"2"', clientState="of somebody else")

    answer = tell(gateway, outlook_change('W/"1"'), forged, "no notification", outlook_change('W/"3"'))

    assert answer.status_code == 202
    assert [event.data["resourceData"]["@odata.etag"] for event in stored(gateway)] == ['W/"1"', 'W/"3"']
    told = refusal(caplog)
    assert (told["msg"], told["reason"]) == (
        "notifications dropped",
        "clientState of 2 of 4 notifications matched no secret",
    )


UNFIT: dict[str, tuple[bytes, int, str]] = {
    "another secret": (body_of({"value": [outlook_change(clientState="x")]}), 401, "matched no secret; 2 tried"),
    "no secret": (body_of({"value": [outlook_change(clientState=None)]}), 401, "1 of 1 notifications"),
    "an empty secret": (body_of({"value": [outlook_change(clientState="")]}), 401, "matched no secret"),
    "a secret that is no text": (body_of({"value": [outlook_change(clientState=7)]}), 401, "matched no secret"),
    "a secret that is not ASCII": (body_of({"value": [outlook_change(clientState="é")]}), 401, "matched no secret"),
    "no batch": (body_of(outlook_change()), 400, "no notifications"),
    "an empty batch": (body_of({"value": []}), 400, "no notifications"),
    "a batch of texts": (body_of({"value": ["x"]}), 401, "matched no secret"),
    "a list": (body_of([outlook_change()]), 400, "not a JSON object"),
    "no JSON": (body_of({"value": [outlook_change()]})[:-1], 400, "not JSON"),
    "not UTF-8": (b'{"value": "\xff"}', 400, "not JSON"),
    "no subscription": (body_of({"value": [outlook_change(subscriptionId=None)]}), 400, "no 'subscriptionId'"),
    "nothing": (b"", 400, "not JSON"),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_what_graph_did_not_send_is_refused(shared: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    body, status, reason = UNFIT[name]
    before = shared.log.head()

    assert shared.http.post(OUTLOOK, content=body, headers=JSON).status_code == status
    assert shared.log.head() == before
    assert reason in str(refusal(caplog)["reason"])


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, " , "])
@pytest.mark.parametrize("name", ["google", "outlook"])
def test_without_a_secret_the_receiver_says_503_and_which_variable_to_set(
    serve: Serve, caplog: pytest.LogCaptureFixture, name: str, secret: str | None
) -> None:
    gateway = serve(**{f"{name}_watch_secret": secret})

    asked = [("google", google_headers(), None), ("outlook", PLAIN, {"validationToken": "x"}), ("outlook", JSON, None)]
    answers = [
        gateway.http.post(f"/webhooks/{each}", headers=headers, params=params)
        for each, headers, params in asked
        if each == name
    ]

    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "5")}
    hints = [vars(record).get("hint") for record in caplog.records if record.levelno == logging.ERROR]
    assert f"set PIVOTAL_{name.upper()}_WATCH_SECRET" in hints


# --- from change to landed event --------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["google", "outlook"])
def test_a_change_in_a_watched_calendar_lands_at_the_receiver(serve: Serve, service: str) -> None:
    """As `pivotal dev` has it: the client asks the sandbox for a watch, the sandbox tells the receiver."""
    played = Sandbox()
    with running(played) as served:
        gateway = serve(google_watch_secret=f"{SECRET}, an older one", outlook_watch_secret=f"an older one, {SECRET}")
        with closing(google_calendar(served) if service == "google" else outlook_calendar(served)) as calendar:
            watch = calendar.watch(PRIMARY, f"http://127.0.0.1:{gateway.port}/webhooks/{service}")
            calendar.create(PRIMARY, DEMO, operation_id="demo-1")
            changed = f"{service}.calendar.changed"
            while changed not in gateway.log.counts():
                time.sleep(0.02)

    [recorded] = gateway.log.read(0, 10, types=[changed])
    assert (recorded.event.aggregate_type, recorded.event.aggregate_id) == ("calendar_watch", watch.id)
    assert SECRET not in recorded.event.model_dump_json()
    assert {attempt for delivery in played.webhooks.deliveries for attempt in delivery.attempts} <= {"200", "202"}


def test_what_becomes_of_a_subscription_of_graphs_lands_at_the_receiver(serve: Serve) -> None:
    played = Sandbox()
    with running(played) as served:
        gateway = serve(outlook_watch_secret=SECRET)
        with closing(outlook_calendar(served)) as calendar:
            watch = calendar.watch(PRIMARY, f"http://127.0.0.1:{gateway.port}/webhooks/outlook")
        for event in ("missed", "reauthorizationRequired", "subscriptionRemoved"):
            told = httpx.post(f"{served.url}/_sandbox/graph/lifecycle", json={"event": event})
            assert told.status_code == 204
        while gateway.log.head() < 3:
            time.sleep(0.02)

    landed = [recorded.event for recorded in gateway.log.read(0, 10)]
    assert {event.aggregate_id for event in landed} == {watch.id}
    assert {event.type.removeprefix("outlook.subscription.") for event in landed} == {
        "missed",
        "reauthorization_required",
        "subscription_removed",
    }
