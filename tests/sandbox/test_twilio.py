"""The sandbox's Twilio, as the official SDK sees it; and without the SDK, where the SDK is too well-behaved."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from sandbox.serve import Running
from sandbox.sms import NUMBERS
from sandbox.webhooks import Endpoint
from tests.sandbox.conftest import Receiver

pytestmark = pytest.mark.usefixtures("served")

Until = Callable[[Callable[[], bool]], None]

ACCOUNT = "AC" + "a" * 32
SERVICE = "MG" + "0" * 32
ADA = "+14155550100"
MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT}/Messages"
HELLO = {"To": ADA, "From": NUMBERS[0], "Body": "Hello"}


@pytest.fixture
def sdk(served: Running) -> Client:
    client = Client(ACCOUNT, "a token")
    client.api.base_url = served.twilio_base
    return client


@pytest.fixture(scope="module")
def http(_server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=_server.twilio_base, auth=(ACCOUNT, "a token")) as client:
        yield client


def told(receiver: Receiver) -> list[dict[str, str]]:
    return [dict(parse_qsl(body.decode(), keep_blank_values=True)) for _, body in receiver.taken]


def advance(served: Running, **time: int) -> None:
    seconds = int(timedelta(**time).total_seconds())
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": seconds}).raise_for_status()


def receive(served: Running, **message: Any) -> None:
    httpx.post(f"{served.url}/_sandbox/twilio/inbound", json={"sender": ADA, **message}).raise_for_status()


def test_a_message_is_queued_and_then_delivered(sdk: Client) -> None:
    made = sdk.messages.create(to=ADA, from_=NUMBERS[0], body="Hello")
    assert (made.status, made.direction, made.num_segments, made.price) == ("queued", "outbound-api", "1", None)
    got = sdk.messages(made.sid).fetch()
    assert (got.status, got.body, got.price, got.error_code) == ("delivered", "Hello", "-0.00790", None)
    assert got.date_sent is not None
    assert got.date_sent.utcoffset() == timedelta(0)


def test_a_messaging_service_accepts_and_chooses_the_sender_later(sdk: Client) -> None:
    made = sdk.messages.create(to=ADA, messaging_service_sid=SERVICE, body="Zoë " * 20)
    assert (made.status, made.from_, made.num_segments) == ("accepted", None, "0")
    got = sdk.messages(made.sid).fetch()
    assert (got.status, got.from_, got.num_segments) == ("delivered", NUMBERS[0], "2")


def test_every_state_is_told_with_a_signature_that_the_sdk_verifies(
    served: Running, sdk: Client, receiver: Receiver, until: Until
) -> None:
    url = f"{receiver.url}/status?operation_key=k%26y"
    ends = {ADA: "delivered", "+15005550020": "undelivered", "+15005550021": "failed"}
    sids = {
        sdk.messages.create(to=to, messaging_service_sid=SERVICE, body="Hello", status_callback=url).sid: end
        for to, end in ends.items()
    }
    until(lambda: len(receiver.taken) == 3 + 3 + 2)
    states = {sid: [each["MessageStatus"] for each in told(receiver) if each["MessageSid"] == sid] for sid in sids}
    assert {sid: set(each) for sid, each in states.items()} == {
        sid: {"queued", end} | ({"sent"} if end != "failed" else set()) for sid, end in sids.items()
    }
    validator = RequestValidator(served.sandbox.twilio_auth_token)
    for (headers, _), params in zip(receiver.taken, told(receiver), strict=True):
        assert validator.validate(url, params, headers["x-twilio-signature"])
        assert not validator.validate(url, params | {"MessageStatus": "read"}, headers["x-twilio-signature"])
        assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert {each.get("ErrorCode") for each in told(receiver)} == {None, "30003", "30008"}


def test_a_scheduled_message_waits_for_the_clock_or_is_canceled(served: Running, sdk: Client) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    schedule: dict[str, Any] = {
        "messaging_service_sid": SERVICE,
        "body": "x",
        "schedule_type": "fixed",
        "send_at": soon,
    }
    sent, canceled = (sdk.messages.create(to=ADA, **schedule) for _ in range(2))
    assert sent.status == "scheduled"
    assert sdk.messages(canceled.sid).update(status="canceled").status == "canceled"
    advance(served, minutes=59)
    assert sdk.messages(sent.sid).fetch().status == "scheduled"
    advance(served, minutes=2)
    assert sdk.messages(sent.sid).fetch().status == "delivered"
    assert sdk.messages(canceled.sid).fetch().status == "canceled"
    with pytest.raises(TwilioRestException) as caught:
        sdk.messages(sent.sid).update(status="canceled")
    assert caught.value.code == 30409


def test_messages_are_listed_latest_first_page_by_page_and_filtered(served: Running, sdk: Client) -> None:
    clock = served.sandbox.clock
    made = []
    for hours in range(5, 0, -1):
        with clock.at(clock.now() - 3600 * hours):
            made.append(sdk.messages.create(to=ADA, from_=NUMBERS[0], body=str(hours)).sid)
    sdk.messages.create(to="+14155550101", from_=NUMBERS[1], body="x")
    assert [message.sid for message in sdk.messages.list(to=ADA, page_size=2)] == made[::-1]
    assert len(sdk.messages.list(from_=NUMBERS[1])) == 1
    after, before = (datetime.now(UTC) - timedelta(hours=hours) for hours in (3.5, 1.5))
    assert [each.body for each in sdk.messages.list(date_sent_after=after, date_sent_before=before)] == ["2", "3"]


def test_an_inbound_message_is_told_signed_and_kept(served: Running, receiver: Receiver, until: Until) -> None:
    served.sandbox.webhooks.endpoints.append(Endpoint(service="twilio", url=receiver.url))
    receive(served, body="Is it open?", media=["https://example.com/a.png"])
    until(lambda: bool(receiver.taken))
    (about,) = told(receiver)
    assert (about["Body"], about["From"], about["To"], about["SmsStatus"]) == (
        "Is it open?",
        ADA,
        NUMBERS[0],
        "received",
    )
    assert (about["NumMedia"], about["MediaUrl0"]) == ("1", "https://example.com/a.png")
    signature = receiver.taken[0][0]["x-twilio-signature"]
    assert RequestValidator(served.sandbox.twilio_auth_token).validate(receiver.url, about, signature)


def test_who_answers_stop_gets_no_more_until_start(served: Running, sdk: Client) -> None:
    def outcome(sender: str) -> int:
        try:
            sdk.messages.create(to=ADA, from_=sender, body="x")
        except TwilioRestException as error:
            return int(error.code or 0)
        return 201

    states = []
    for word in ("Stop please", " Stop ", "START"):
        receive(served, body=word)
        states.append([outcome(sender) for sender in NUMBERS])
    assert states == [[201, 201], [21610, 201], [201, 201]]


def at(**time: int) -> str:
    return f"{datetime.now(UTC) + timedelta(**time):%Y-%m-%dT%H:%M:%SZ}"


SCHEDULED = {"To": ADA, "Body": "x", "MessagingServiceSid": SERVICE, "ScheduleType": "fixed"}

# what is wrong -> Twilio's code; a time is so far from now
WRONG: dict[str, tuple[dict[str, Any], int]] = {
    "no recipient": ({**HELLO, "To": None}, 21604),
    "an empty recipient": ({**HELLO, "To": ""}, 21604),
    "a recipient that is no number": ({**HELLO, "To": "Ada"}, 21211),
    "a national number": ({**HELLO, "To": "4155550100"}, 21211),
    "a number with blanks": ({**HELLO, "To": "+1 415 555 0100"}, 21211),
    "a number that is too long": ({**HELLO, "To": "+1234567890123456"}, 21211),
    "a recipient that cannot be reached": ({**HELLO, "To": "+15005550002"}, 21612),
    "a country that is not allowed": ({**HELLO, "To": "+15005550003"}, 21408),
    "a recipient who opted out": ({**HELLO, "To": "+15005550004"}, 21610),
    "a number not verified for a trial": ({**HELLO, "To": "+15005550008"}, 21608),
    "a landline": ({**HELLO, "To": "+15005550009"}, 21614),
    "no sender": ({**HELLO, "From": None}, 21603),
    "a sender that is no number": ({**HELLO, "From": "+1"}, 21212),
    "somebody else's number": ({**HELLO, "From": "+14155550199"}, 21606),
    "a message to itself": ({**HELLO, "To": NUMBERS[0]}, 21266),
    "no such kind of service": ({**HELLO, "From": None, "MessagingServiceSid": "shop"}, 21705),
    "nothing to say": ({**HELLO, "Body": None}, 21619),
    "too much to say": ({**HELLO, "Body": "x" * 1601}, 21617),
    "media that is no URL": ({**HELLO, "MediaUrl": "a.png"}, 21620),
    "too much media": ({**HELLO, "MediaUrl": ["https://example.com/a.png"] * 11}, 21623),
    "a callback that is no URL": ({**HELLO, "StatusCallback": "example.com/status"}, 21609),
    "a callback with an underscore": ({**HELLO, "StatusCallback": "https://a_b.example.com/"}, 21609),
    "a validity in words": ({**HELLO, "ValidityPeriod": "long"}, 90014),
    "a validity of no seconds": ({**HELLO, "ValidityPeriod": "0"}, 90007),
    "a validity of eleven hours": ({**HELLO, "ValidityPeriod": "39600"}, 90007),
    "a schedule without a time": (SCHEDULED, 35114),
    "a schedule in words": ({**SCHEDULED, "SendAt": "tomorrow"}, 35114),
    "a schedule too soon": ({**SCHEDULED, "SendAt": {"minutes": 14}}, 35114),
    "a schedule too late": ({**SCHEDULED, "SendAt": {"days": 36}}, 35114),
    "a schedule on a day that is none": ({**SCHEDULED, "SendAt": "2030-02-30T12:00:00Z"}, 35114),
    "a schedule without a service": ({**HELLO, "ScheduleType": "fixed", "SendAt": {"hours": 1}}, 35118),
    "another kind of schedule": ({**SCHEDULED, "ScheduleType": "daily", "SendAt": {"hours": 1}}, 20001),
    "a parameter that there is not": ({**HELLO, "Bdoy": "Hello"}, 20001),
    "a parameter that the sandbox does not play": ({**HELLO, "ContentSid": "HX1"}, 20001),
    "a parameter twice": ({**HELLO, "Body": ["Hello", "again"]}, 20001),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_message_is_refused_as_twilio_refuses_it(served: Running, http: httpx.Client, name: str) -> None:
    params, code = WRONG[name]
    form = {
        key: at(**value) if isinstance(value, dict) else value for key, value in params.items() if value is not None
    }
    answer = http.post(f"{MESSAGES}.json", data=form)
    assert answer.status_code == 400
    told = answer.json()
    assert (told["code"], told["status"], told["more_info"]) == (
        code, 400, f"https://www.twilio.com/docs/errors/{code}",
    )  # fmt: skip
    assert told["message"]
    assert served.sandbox.twilio.messages == []


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


OTHER_ACCOUNT = "AC" + "b" * 32

REFUSED: dict[str, tuple[str, str, dict[str, str], int, int]] = {
    "nobody": ("GET", f"{MESSAGES}.json", {"Authorization": "Bearer x"}, 401, 20003),
    "no secret": ("GET", f"{MESSAGES}.json", {"Authorization": basic(ACCOUNT, "")}, 401, 20003),
    "no base64": ("GET", f"{MESSAGES}.json", {"Authorization": "Basic %%%"}, 401, 20003),
    "another account": ("GET", f"{MESSAGES}.json", {"Authorization": basic(OTHER_ACCOUNT, "x")}, 401, 20003),
    "no such message": ("GET", f"{MESSAGES}/SM0.json", {}, 404, 20404),
    "no such resource": ("GET", "/2010-04-01/Accounts.json", {}, 404, 20404),
    "a method that there is not": ("DELETE", f"{MESSAGES}.json", {}, 405, 20004),
    "a page of nothing": ("GET", f"{MESSAGES}.json?PageSize=0", {}, 400, 20001),
    "a page of too much": ("GET", f"{MESSAGES}.json?PageSize=1001", {}, 400, 20001),
    "a filter that there is not": ("GET", f"{MESSAGES}.json?Status=sent", {}, 400, 20001),
    "a day that is none": ("GET", f"{MESSAGES}.json?DateSent=yesterday", {}, 400, 20001),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_other_wrong_requests_are_refused_as_twilio_refuses_them(http: httpx.Client, name: str) -> None:
    method, path, headers, status, code = REFUSED[name]
    http.post(f"{MESSAGES}.json", data=HELLO)
    own: dict[str, Any] = {"auth": None} if headers else {}
    answer = http.request(method, path, headers=headers, **own)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("form", [{"Status": "sent"}, {"Body": ""}, {}])
def test_a_message_is_changed_by_canceling_it_only(sdk: Client, http: httpx.Client, form: dict[str, str]) -> None:
    sid = sdk.messages.create(to=ADA, from_=NUMBERS[0], body="x").sid
    assert http.post(f"{MESSAGES}/{sid}.json", data=form).json()["code"] == 20001


def test_an_api_key_opens_any_account(http: httpx.Client) -> None:
    key = httpx.BasicAuth("SK" + "1" * 32, "its secret")
    assert http.post(f"{MESSAGES}.json", data=HELLO, auth=key).status_code == 201
    other = http.get(f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Messages.json", auth=key).json()
    assert (len(http.get(f"{MESSAGES}.json").json()["messages"]), other["messages"]) == (1, [])


def test_a_history_is_the_same_every_time(served: Running) -> None:
    histories = []
    for _ in range(2):
        served.sandbox.reset()
        served.sandbox.twilio.seed(20)
        histories.append([(told["to"], told["body"], told["status"]) for told in served.sandbox.twilio.messages])
    assert histories[0] == histories[1]
    assert len(histories[0]) == 20
    assert [status for _, _, status in histories[0]].count("undelivered") == 2
