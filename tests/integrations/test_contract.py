"""What holds for every integration: how it fails, how often it tries, what it tells. One function a service.

Each service's client calls the sandbox over a real socket; its calls go wrong in every way there is.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from errors import IntegrationError
from integrations.breaker import BreakerPolicy
from integrations.calendar import CalendarIntegrationError, Calendars
from integrations.calls import NO_ANSWER, UNREACHABLE, RetryBudget
from integrations.http import AsyncHttpClient, Credential, HttpClient, Limits
from integrations.s3 import S3, S3Config, S3IntegrationError
from integrations.sendgrid import Message, SendGrid, SendGridConfig, SendGridIntegrationError
from integrations.stripe import Stripe, StripeConfig, StripeIntegrationError
from integrations.twilio import Sms, Twilio, TwilioConfig, TwilioIntegrationError
from sandbox.app import Sandbox
from sandbox.s3 import BUCKET
from sandbox.serve import Running
from sandbox.webhooks import Service
from sandbox.wire import Call, Misbehaviour
from tests.integrations.calendars import calendar_operations, google_calendar, impatient, outlook_calendar

TRIES = 3
QUICK = RetryBudget(attempts=TRIES, first_wait=0.001, longest_wait=2.0)
PATIENT = BreakerPolicy(failures=10_000)
SECRET = "sk_test_this_is_never_logged"
NEVER = Path(tempfile.gettempdir()) / "never-downloaded"
ADDRESS = "ada@example.com"
NUMBER = "+14155550100"


@dataclass(frozen=True)
class Subject:
    """A client under test.

    Args:
        operations: What it can do, by name; each is safe to repeat. The first one makes a customer.
        error: The service's own error.
        circuit: Where the client's circuit breaker stands.
        close: Frees what it holds.
        service: The stand-in that it calls.
        repeats: Statuses that this service's client repeats beyond those that all repeat.
        looks: Operations that look, after a 404, whether they were done before.
        keyed: Whether the service reads idempotency keys from a header.
        renews: Whether a 401 is answered with a new token, and asked once more.
        made: How many things `change` has made.
        unsure: Operations that look whether they were done before they are repeated; here, looking fails, too.
        careful: Operations that are repeated only if they certainly were not done, by 429 and 503.
        answers: Operations that a 404 is an answer to, not a failure.
    """

    operations: Mapping[str, Callable[[], object]]
    error: type[IntegrationError]
    circuit: Callable[[], str]
    close: Callable[[], object] = lambda: None
    service: Service = "stripe"
    repeats: frozenset[int] = frozenset()
    looks: frozenset[str] = frozenset()
    keyed: bool = True
    renews: bool = False
    made: Callable[[Sandbox], int] = lambda sandbox: len(sandbox.stripe.account.page("customer", {})["data"])
    unsure: frozenset[str] = frozenset()
    careful: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()

    def change(self) -> object:
        return next(iter(self.operations.values()))()

    def calls(self, served: Running) -> list[Call]:
        """What came in, but for the tokens that were asked for."""
        return [call for call in served.sandbox.wire.calls if call.service == self.service]


@dataclass(frozen=True)
class Terms:
    """How a client is to be opened."""

    at: Running | str
    budget: RetryBudget = QUICK
    breaker: BreakerPolicy = PATIENT
    timeout: float = 5.0

    @property
    def stripe_base(self) -> str:
        return self.at if isinstance(self.at, str) else self.at.stripe_base


def stripe(terms: Terms) -> Subject:
    config = StripeConfig(
        api_key=SecretStr(SECRET),
        api_base=terms.stripe_base,
        read_timeout=terms.timeout,
        retry=terms.budget,
        breaker=terms.breaker,
    )
    client = Stripe(config)
    return Subject(
        stripe_operations(client),
        StripeIntegrationError,
        lambda: client.circuit,
        repeats=frozenset({409}),  # the same idempotency key is still at work: that passes
        looks=frozenset({"customers.delete", "subscriptions.cancel"}),
    )


def stripe_operations(client: Stripe) -> Mapping[str, Callable[[], object]]:
    customers, cards, events = client.customers, client.payment_methods, client.events
    subscriptions, invoices = client.subscriptions, client.invoices
    once: dict[str, Any] = {"operation_id": "signup-1"}
    return {
        "customers.create": lambda: customers.create({"email": ADDRESS}, **once),
        "customers.update": lambda: customers.update("cus_1", {"email": ADDRESS}, **once),
        "customers.delete": lambda: customers.delete("cus_1"),
        "customers.get": lambda: customers.get("cus_1"),
        "customers.list": lambda: list(customers.list({"email": ADDRESS})),
        "payment_methods.create": lambda: cards.create({"type": "card"}, **once),
        "payment_methods.attach": lambda: cards.attach("pm_1", "cus_1", **once),
        "payment_methods.detach": lambda: cards.detach("pm_1", **once),
        "payment_methods.list": lambda: list(cards.list("cus_1")),
        "subscriptions.create": lambda: subscriptions.create({"customer": "cus_1"}, **once),
        "subscriptions.update": lambda: subscriptions.update("sub_1", {"description": "x"}, **once),
        "subscriptions.cancel": lambda: subscriptions.cancel("sub_1"),
        "subscriptions.cancel_at_period_end": lambda: subscriptions.cancel_at_period_end("sub_1", **once),
        "subscriptions.get": lambda: subscriptions.get("sub_1"),
        "subscriptions.list": lambda: list(subscriptions.list()),
        "invoices.create": lambda: invoices.create({"customer": "cus_1"}, **once),
        "invoices.finalize": lambda: invoices.finalize("in_1", **once),
        "invoices.pay": lambda: invoices.pay("in_1", **once),
        "invoices.void": lambda: invoices.void("in_1", **once),
        "invoices.get": lambda: invoices.get("in_1"),
        "invoices.list": lambda: list(invoices.list()),
        "events.list": lambda: list(events.list()),
    }


def http(terms: Terms) -> Subject:
    client = HttpClient(terms.stripe_base, **shop(terms))
    operations = http_operations(client)
    return Subject(operations, IntegrationError, lambda: client.circuit, client.close)


def http_for_asyncio(terms: Terms) -> Subject:
    runner = asyncio.Runner()
    client = AsyncHttpClient(terms.stripe_base, **shop(terms))

    def close() -> None:
        runner.run(client.close())
        runner.close()

    operations = {name: (lambda make=make: runner.run(make())) for name, make in http_operations(client).items()}
    return Subject(operations, IntegrationError, lambda: client.circuit, close)


def http_operations(client: HttpClient | AsyncHttpClient) -> dict[str, Callable[[], Any]]:
    body: dict[str, Any] = {
        "content": b"email=ada%40example.com",
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        "idempotency_key": "signup-1",
    }
    return {
        "customers.create": lambda: client.post("/v1/customers", operation="customers.create", **body),
        "patch": lambda: client.patch("/v1/customers/cus_1", operation="patch", **body),
        "get": lambda: client.get("/v1/customers", operation="get"),
        "put": lambda: client.put("/v1/customers", operation="put", json={}),
        "delete": lambda: client.delete("/v1/customers/cus_1", operation="delete"),
        "download": lambda: client.download("/v1/customers", NEVER, operation="download"),
    }


def shop(terms: Terms) -> dict[str, Any]:
    return {
        "service": "shop",
        "credential": Credential.bearer(SECRET),
        "limits": Limits(terms.timeout),
        "budget": terms.budget,
        "breaker": terms.breaker,
    }


def google(terms: Terms) -> Subject:
    client = google_calendar(terms.at, retry=terms.budget, breaker=terms.breaker)
    return calendar(client, client.close, lambda: client.circuit, "google", terms)


def outlook(terms: Terms) -> Subject:
    client = outlook_calendar(terms.at, retry=terms.budget, breaker=terms.breaker)
    return calendar(client, client.close, lambda: client.circuit, "graph", terms)


def calendar(
    client: Calendars, close: Callable[[], None], circuit: Callable[[], str], service: Service, terms: Terms
) -> Subject:
    if isinstance(terms.at, Running):
        impatient(client, terms.timeout)
        terms.at.sandbox.wire.calls.clear()
    return Subject(
        calendar_operations(client),
        CalendarIntegrationError,
        circuit,
        close,
        service,
        keyed=False,  # their keys are in the body
        renews=True,
        made=lambda sandbox: sum(
            len(agenda.entries) for kept in (sandbox.google, sandbox.graph) for agenda in kept.calendars.values()
        ),
    )


def twilio(terms: Terms) -> Subject:
    client = Twilio(
        TwilioConfig(
            account_sid=(account := "AC" + "0" * 32),
            secret=SecretStr(SECRET),
            api_base=terms.at if isinstance(terms.at, str) else terms.at.twilio_base,
            timeout=terms.timeout,
            settle=0.0,
            retry=terms.budget,
            breaker=terms.breaker,
        )
    )
    sid = "SM0"
    if not isinstance(terms.at, str):
        at = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        form = {
            "To": NUMBER,
            "Body": "x",
            "MessagingServiceSid": "MG" + "0" * 32,
            "ScheduleType": "fixed",
            "SendAt": at,
        }
        sid = terms.at.sandbox.twilio.create(account, {name: [value] for name, value in form.items()})["sid"]
    messages, once = client.messages, {"operation_id": "hello-1"}
    return Subject(
        {
            "messages.cancel": lambda: messages.cancel(sid),
            "messages.create": lambda: messages.send(Sms(to=NUMBER, sender="+15005550006", body="Hello"), **once),
            "messages.get": lambda: messages.get(sid),
            "messages.list": lambda: list(messages.list(to=NUMBER)),
        },
        TwilioIntegrationError,
        lambda: client.circuit,
        client.close,
        service="twilio",
        keyed=False,
        made=lambda sandbox: sum(told["status"] == "canceled" for told in sandbox.twilio.messages),
        unsure=frozenset({"messages.create"}),
    )


def sendgrid(terms: Terms) -> Subject:
    config = SendGridConfig(
        api_key=SecretStr(f"SG.{SECRET}"),
        api_base=terms.at if isinstance(terms.at, str) else terms.at.sendgrid_base,
        timeout=terms.timeout,
        retry=terms.budget,
        breaker=terms.breaker,
    )
    client = SendGrid(config)
    return Subject(
        sendgrid_operations(client),
        SendGridIntegrationError,
        lambda: client.circuit,
        gc.collect,  # where `HALF` ignores what it warns of
        service="sendgrid",
        keyed=False,
        made=lambda sandbox: len(sandbox.sendgrid.suppressions.on("unsubscribes")),
        careful=frozenset({"mail.send", "templates.create", "templates.versions.create"}),
        answers=frozenset({"contacts.find"}),
    )


def sendgrid_operations(client: SendGrid) -> Mapping[str, Callable[[], object]]:
    templates, versions, contacts, lists = (
        client.templates,
        client.templates.versions,
        client.contacts,
        client.suppressions,
    )
    mail = Message("shop@example.com", (ADDRESS,), "Hello", "Hello")
    return {
        "suppressions.add": lambda: lists.add("unsubscribes", [ADDRESS]),
        "suppressions.remove": lambda: lists.remove("bounces", [ADDRESS]),
        "suppressions.list": lambda: list(lists.list("bounces")),
        "mail.send": lambda: client.mail.send(mail, operation_id="hello-1"),
        "templates.create": lambda: templates.create("welcome"),
        "templates.update": lambda: templates.update("d-1", "welcome"),
        "templates.delete": lambda: templates.delete("d-1"),
        "templates.get": lambda: templates.get("d-1"),
        "templates.list": lambda: list(templates.list()),
        "templates.versions.create": lambda: versions.create("d-1", {"name": "v1", "subject": "Hello"}),
        "templates.versions.update": lambda: versions.update("d-1", "v1", {"subject": "Hi"}),
        "templates.versions.activate": lambda: versions.activate("d-1", "v1"),
        "templates.versions.delete": lambda: versions.delete("d-1", "v1"),
        "templates.versions.get": lambda: versions.get("d-1", "v1"),
        "contacts.upsert": lambda: contacts.upsert([{"email": ADDRESS}]),
        "contacts.remove": lambda: contacts.remove(["c-1"]),
        "contacts.find": lambda: contacts.find([ADDRESS]),
        "contacts.search": lambda: contacts.search("city = 'Berlin'"),
        "contacts.follow": lambda: contacts.follow("j-1"),
    }


def s3(terms: Terms) -> Subject:
    config = S3Config(
        endpoint_url=terms.at if isinstance(terms.at, str) else terms.at.s3_base,
        access_key_id=SecretStr("AKIA1"),
        secret_access_key=SecretStr(SECRET),
        read_timeout=terms.timeout,
        retry=terms.budget,
        breaker=terms.breaker,
    )
    client = S3(config)
    objects, url = client.objects, f"s3://{BUCKET}/signup-1"
    return Subject(
        {
            "put_object": lambda: objects.upload(url, b"x", metadata={"owner": ADDRESS}),
            "get_object": lambda: objects.read(url),
            "delete_object": lambda: objects.delete(url),
            "delete_objects": lambda: objects.delete_many([url]),
            "list_objects_v2": lambda: list(objects.list(url)),
        },
        S3IntegrationError,
        lambda: client.circuit,
        service="s3",
        repeats=frozenset({409}),  # another call changes the object: that passes
        keyed=False,
        made=lambda _: len(list(objects.list(url))),
    )


SERVICES: dict[str, Callable[[Terms], Subject]] = {
    "stripe": stripe,
    "s3": s3,
    "sendgrid": sendgrid,
    "google": google,
    "outlook": outlook,
    "twilio": twilio,
    "http": http,
    "http-for-asyncio": http_for_asyncio,
}

# how the service fails -> whether a repetition can help, the status, the code if there is no status
FAILURES: dict[str, tuple[dict[str, Any], bool, int | None, str | None]] = {
    **{str(status): ({"status": status}, False, status, None) for status in (400, 401, 402, 403, 404, 409)},
    **{str(status): ({"status": status}, True, status, None) for status in (408, 429, 500, 503)},
    "429 for now": ({"status": 429, "retry_after": "0"}, True, 429, None),
    "429 until a date": ({"status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, True, 429, None),
    "502 in HTML": ({"kind": "html", "status": 502}, True, 502, None),
    "reset": ({"kind": "reset"}, True, None, NO_ANSWER),
    "half an answer": ({"kind": "cut"}, True, None, NO_ANSWER),
    "no answer": ({"kind": "slow", "delay": 60}, True, None, NO_ANSWER),
}
LONGER_THAN_ANYBODY_WAITS = [
    {"status": 429, "retry_after": "3600"},
    {"kind": "html", "status": 503, "retry_after": "3600"},
]
Opens = Callable[[Terms], Subject]
HALF = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""SendGrid's SDK leaves half an answer open."""


def ways(*names: str) -> list[Any]:
    return [pytest.param(name, marks=HALF) if name == "half an answer" else name for name in names]


@pytest.fixture(params=list(SERVICES))
def opens(request: pytest.FixtureRequest) -> Iterator[Opens]:
    with ExitStack() as open_ones:

        def opens(terms: Terms) -> Subject:
            subject = SERVICES[request.param](terms)
            open_ones.callback(subject.close)
            return subject

        yield opens


def fail(served: Running, subject: Subject, how: dict[str, Any], calls: int = 500) -> None:
    rule = {"kind": "error", "service": subject.service, "calls": calls, **how}
    served.sandbox.wire.misbehave(Misbehaviour.model_validate(rule))


@pytest.mark.parametrize("failure", ways(*FAILURES))
def test_every_operation_is_tried_as_often_as_can_help_with_one_key(
    served: Running, opens: Opens, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    how, helps, status, code = FAILURES[failure]
    subject = opens(Terms(served, timeout=0.03 if failure == "no answer" else 5.0))
    fail(served, subject, how)
    for name, operation in subject.operations.items():
        if status == 404 and name in subject.answers:
            continue
        served.sandbox.wire.calls.clear()
        with pytest.raises(subject.error) as caught:
            operation()
        error, calls = caught.value, subject.calls(served)
        repeated = helps or status in subject.repeats
        if name in subject.careful:
            repeated = status in {429, 503}
        looked = (status == 404 and name in subject.looks) or (status == 401 and subject.renews)
        unsure = helps and status != 429 and name in subject.unsure
        assert len(calls) == (TRIES + unsure if repeated else 1 + looked), name
        keys = {call.idempotency_key for call in calls}
        assert len(keys) == 1
        assert (None in keys) == (not subject.keyed or calls[0].method in {"GET", "PUT", "DELETE"}), name
        assert (error.operation, error.status, error.retryable) == (name, status, repeated and not unsure)
        assert code in {None, error.code}
        assert error.hint
        assert error.__cause__ is not None or status
        assert "<html>" not in str(error)
        told = "".join(traceback.format_exception(error)) + caplog.text
        assert not [secret for secret in ("never_logged", "ada@", "ada%40", NUMBER[1:]) if secret in told]


@pytest.mark.parametrize("how", LONGER_THAN_ANYBODY_WAITS, ids=["429", "503 in HTML"])
def test_a_service_that_asks_for_more_than_the_longest_wait_is_left_alone(
    served: Running, opens: Opens, how: dict[str, Any]
) -> None:
    subject = opens(Terms(served))
    fail(served, subject, how)
    with pytest.raises(subject.error) as caught:
        subject.change()
    assert (len(subject.calls(served)), caught.value.retry_after, caught.value.retryable) == (1, 3600, True)


def test_nobody_answers(opens: Opens) -> None:
    subject = opens(Terms("http://127.0.0.1:9"))
    with pytest.raises(subject.error) as caught:
        subject.change()
    assert (caught.value.code, caught.value.status, caught.value.retryable) == (UNREACHABLE, None, True)
    assert "check" in str(caught.value.hint)


@pytest.mark.parametrize("failure", ways("500", "502 in HTML", "reset", "half an answer", "429 for now"))
def test_a_call_that_recovers_within_its_budget_works_and_is_done_once(
    served: Running, opens: Opens, failure: str
) -> None:
    subject = opens(Terms(served))
    fail(served, subject, FAILURES[failure][0] | {"done": True}, TRIES - 1)
    subject.change()
    assert len(subject.calls(served)) >= TRIES
    assert subject.made(served.sandbox) == 1


def test_a_service_in_trouble_is_left_alone_until_a_probe_works(served: Running, opens: Opens) -> None:
    subject = opens(Terms(served, breaker=BreakerPolicy(failures=TRIES + 1, open_for=0.3)))
    fail(served, subject, {"status": 500})
    states = []
    for _ in range(3):
        with pytest.raises(subject.error) as caught:
            subject.change()
        states.append(subject.circuit())
    # The second call has its whole budget, though the circuit opens on its way; the third is not made.
    assert states == ["closed", "open", "open"]
    assert len(subject.calls(served)) == 2 * TRIES
    assert (caught.value.code, caught.value.retryable) == ("circuit_open", True)
    until(lambda: isinstance(attempt(subject), IntegrationError) and len(subject.calls(served)) > 2 * TRIES)
    assert (len(subject.calls(served)), subject.circuit()) == (2 * TRIES + 1, "open")  # a probe has one try
    served.sandbox.wire.reset()
    until(lambda: attempt(subject) is None)
    assert subject.circuit() == "closed"


def test_what_a_service_refuses_does_not_open_its_circuit(served: Running, opens: Opens) -> None:
    subject = opens(Terms(served, breaker=BreakerPolicy(failures=2)))
    for how in ({"status": 400}, {"status": 403}, {"status": 429}):
        fail(served, subject, how, TRIES)
        for _ in range(TRIES):
            attempt(subject)
    assert subject.circuit() == "closed"


def attempt(subject: Subject) -> IntegrationError | None:
    try:
        subject.change()
    except IntegrationError as error:
        return error
    return None


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
