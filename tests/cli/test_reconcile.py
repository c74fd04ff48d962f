"""`pivotal reconcile`, against the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from events.log import open_log
from sandbox.serve import Running, running
from settings import get_settings
from tests.cli.conftest import Pivotal
from tests.integrations.calendars import DEMO, google_calendar


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running() as served:
        yield served


@pytest.fixture
def connect(project: Path, served: Running, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the project a provider's credentials."""
    known = {
        "stripe": {"STRIPE_API_KEY": "sk_test_x", "STRIPE_API_BASE": served.stripe_base},
        "google": {"GOOGLE_CREDENTIALS": served.google_credentials, "GOOGLE_API_BASE": served.google_base},
    }
    monkeypatch.setenv("PIVOTAL_EVENTS_URL", f"sqlite:///{project / 'events.db'}")
    monkeypatch.setenv("PIVOTAL_WAREHOUSE_URL", f"sqlite:///{project / 'warehouse.db'}")

    def connected(*providers: str) -> None:
        for name, value in (pair for provider in providers for pair in known[provider].items()):
            monkeypatch.setenv(f"PIVOTAL_{name}", value)
        get_settings.cache_clear()

    return connected


def test_what_was_missed_is_read_and_the_second_time_it_is_known(
    connect: Callable[..., None], served: Running, pivotal: Pivotal
) -> None:
    connect("stripe", "google")
    bearer = {"Authorization": "Bearer sk_test_x"}
    httpx.post(f"{served.stripe_base}/v1/customers", data={"name": "Ada"}, headers=bearer).raise_for_status()
    assert pivotal("reconcile", "--json").json == [
        {"provider": "stripe", "read": 1, "new": 1, "duplicates": 0},
        {"provider": "google", "read": 0, "new": 0, "duplicates": 0},
    ]
    again = pivotal("reconcile", "stripe", "--since", "2h")
    assert (again.code, again.out.splitlines()[1].split()) == (0, ["stripe", "1", "0", "1"])


def test_a_provider_or_a_calendar_that_fails_keeps_no_other_from_being_read(
    connect: Callable[..., None], served: Running, pivotal: Pivotal, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    connect("stripe", "google")
    monkeypatch.setenv("PIVOTAL_STRIPE_API_KEY", "no-key")
    monkeypatch.setenv("PIVOTAL_GOOGLE_CALENDARS", "gone@example.com,primary")
    start = datetime.now(UTC) + timedelta(days=1)
    soon = replace(DEMO, start=start, end=start + timedelta(hours=1))
    google_calendar(served).create("primary", soon, operation_id="still-read")
    answer = pivotal("reconcile", "--json")
    assert answer.code == 1
    assert "Stripe events.list: 401" in answer.err
    assert "(and 1 more failed)" in answer.err
    with closing(open_log(f"sqlite:///{project / 'events.db'}")) as log:
        assert [each.event.type for each in log.read(0, 10)] == ["google.calendar.event.updated"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 1, "there are no credentials of any provider"),
        (["stripe"], 1, "set PIVOTAL_STRIPE_API_KEY"),
        (["twilio"], 1, "set PIVOTAL_TWILIO_ACCOUNT_SID"),
        (["google"], 1, "set PIVOTAL_GOOGLE_CREDENTIALS"),
        (["outlook"], 1, "set PIVOTAL_OUTLOOK_TENANT_ID"),
        (["google", "--since", "2h"], 2, "--since is for Stripe and Twilio"),
        (["stripe", "--since", "yesterday"], 2, "'yesterday' is not a duration"),
        (["sendgrid"], 2, "'sendgrid' is not one of"),
    ],
)
def test_what_is_missing_or_wrong_is_told(
    connect: Callable[..., None], pivotal: Pivotal, arguments: list[str], code: int, told: str
) -> None:
    connect()
    answer = pivotal("reconcile", *arguments)
    assert answer.code == code
    assert told in answer.err


@pytest.mark.usefixtures("project")
def test_no_calendar_is_a_mistake(
    connect: Callable[..., None], served: Running, pivotal: Pivotal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIVOTAL_GOOGLE_CALENDARS", " , ")
    connect("google")
    google_calendar(served).create("primary", DEMO, operation_id="demo")
    assert "set PIVOTAL_GOOGLE_CALENDARS" in pivotal("reconcile", "google").err
