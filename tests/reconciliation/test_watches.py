"""Watches are made, renewed, replaced and found to be lost, while the sandbox's clock and ours go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from errors import PivotalError
from etl.destinations.warehouse import Warehouse
from events.cause import new_event
from events.log import EventLog
from integrations.calendar import PRIMARY, CalendarIntegrationError, Calendars, Watch
from reconciliation.reading import digest
from reconciliation.watches import keep_watches
from sandbox import google
from sandbox.serve import Running
from tests.gateway.conftest import Gateway, serving
from tests.integrations.calendars import SECRET
from tests.reconciliation.conftest import MAKERS

NEXT_SECRET = "this_comes_after_it"
Keep = Callable[..., list[Watch]]


@pytest.fixture
def gateway(log: EventLog) -> Iterator[Gateway]:
    secrets = f"{NEXT_SECRET},{SECRET}"
    with serving(log, {"google_watch_secret": secrets, "outlook_watch_secret": secrets}) as gateway:
        yield gateway


@pytest.fixture
def url(gateway: Gateway, calendars: Calendars) -> str:
    return f"http://127.0.0.1:{gateway.port}/webhooks/{calendars.service.partition('_')[0]}"


@pytest.fixture
def keep(calendars: Calendars, log: EventLog, warehouse: Warehouse, url: str) -> Keep:
    def keeping(days: float = 0, *, ids: tuple[str, ...] = (PRIMARY,), url: str = url) -> list[Watch]:
        now = datetime.now(UTC) + timedelta(days=days)
        return keep_watches(calendars, ids, url, log, warehouse, run_id="run", now=now)

    return keeping


def asked(served: Running) -> list[str]:
    """What was asked of the service about watches."""
    return [
        f"{call.method} {call.path.rpartition('/')[2] if 'subscriptions/' not in call.path else 'subscription'}"
        for call in served.sandbox.wire.calls
        if any(word in call.path for word in ("watch", "channels", "subscriptions"))
    ]


def test_a_calendar_is_watched_once(served: Running, keep: Keep, url: str) -> None:
    (first,) = keep()
    assert first.url == url
    assert keep() == [first]
    assert len(asked(served)) == 1


def test_a_watch_is_renewed_when_half_of_its_life_is_over(served: Running, keep: Keep) -> None:
    (first,) = keep()
    assert keep(days=2.9) == [first]
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 86_400 * 3}).raise_for_status()
    (second,) = keep(days=3.1)
    assert second.expires > first.expires
    assert len(asked(served)) > 1


def test_a_watch_that_has_ended_is_made_anew(served: Running, keep: Keep) -> None:
    (first,) = keep()
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 86_400 * 5}).raise_for_status()
    (second,) = keep(days=7)
    assert second.id != first.id


def test_another_receiver_gets_a_watch_of_its_own_and_the_old_one_ends(served: Running, keep: Keep, url: str) -> None:
    (first,) = keep()
    (second,) = keep(url=url.replace("127.0.0.1", "localhost"))
    assert second.id != first.id
    assert asked(served)[-1] in {"POST stop", "DELETE subscription"}


def test_another_secret_gets_a_watch_of_its_own_once_and_the_old_one_ends(
    served: Running, calendars: Calendars, keep: Keep, log: EventLog, warehouse: Warehouse, url: str
) -> None:
    (first,) = keep()
    kind = calendars.service.partition("_")[0]
    rotated = MAKERS[kind](served, watch_secret=SecretStr(f"{NEXT_SECRET},{SECRET}"))
    with closing(rotated):
        (second,) = keep_watches(rotated, [PRIMARY], url, log, warehouse, run_id="run")
        assert second.id != first.id
        assert asked(served)[-1] in {"POST stop", "DELETE subscription"}
        assert keep_watches(rotated, [PRIMARY], url, log, warehouse, run_id="run") == [second]
        (renewed,) = keep_watches(
            rotated, [PRIMARY], url, log, warehouse, run_id="run", now=datetime.now(UTC) + timedelta(days=3.1)
        )
        assert rotated.knows(renewed)
    kept = str(warehouse.state(f"watches/{kind}/{digest(calendars.account)}"))
    assert NEXT_SECRET not in kept


@pytest.mark.parametrize("days", [0, 3.1])
def test_a_watch_that_cannot_be_stopped_does_not_cost_the_one_that_replaces_it(
    calendars: Calendars, keep: Keep, url: str, days: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = keep()

    def refusing(_: Calendars, watch: Watch) -> None:
        raise CalendarIntegrationError("no", service=calendars.service, operation=f"watches.stop of {watch.id}")

    monkeypatch.setattr(type(calendars), "stop", refusing)
    elsewhere = url.replace("127.0.0.1", "localhost")
    (second,) = keep(days=days, url=url if days else elsewhere)
    assert second != first
    assert keep(url=url if days else elsewhere) == [second]
    with pytest.raises(CalendarIntegrationError):
        keep(ids=())


def test_a_receiver_that_is_away_is_told_and_nothing_is_kept(calendars: Calendars, keep: Keep) -> None:
    if calendars.service == "outlook":
        with pytest.raises(CalendarIntegrationError, match="validation"):
            keep(url="http://127.0.0.1:9/webhooks/outlook")
    assert len(keep()) == 1
    assert keep(ids=()) == []


@pytest.mark.parametrize("calendars", ["google"], indirect=True)
def test_each_of_googles_calendars_has_a_watch_and_undeclared_ones_none(served: Running, keep: Keep) -> None:
    assert {watch.calendar_id for watch in keep(ids=(PRIMARY, google.TEAM))} == {PRIMARY, google.TEAM}
    assert [watch.calendar_id for watch in keep(ids=(google.TEAM,))] == [google.TEAM]
    assert asked(served)[-1] == "POST stop"


@pytest.mark.parametrize("calendars", ["google"], indirect=True)
def test_a_calendar_that_is_gone_does_not_let_the_watches_of_others_run_out(
    calendars: Calendars, keep: Keep, warehouse: Warehouse
) -> None:
    with pytest.raises(CalendarIntegrationError, match=r"(?i)not found"):
        keep(ids=("gone@example.com", PRIMARY))
    kept = warehouse.state(f"watches/google/{digest(calendars.account)}") or {}
    assert f"'calendar_id': '{PRIMARY}'" in str(kept["watches"])
    with pytest.raises(PivotalError, match=r"\(and 1 more failed\)"):
        keep(ids=("gone@example.com", "away@example.com", PRIMARY))


@pytest.mark.parametrize("calendars", ["outlook"], indirect=True)
@pytest.mark.parametrize(("what", "same"), [("subscription_removed", False), ("reauthorization_required", True)])
def test_what_graph_tells_of_a_watch_is_heeded_once(
    log: EventLog, keep: Keep, served: Running, what: str, same: bool
) -> None:
    (first,) = keep()
    log.publish([new_event(f"outlook.subscription.{what}", ("calendar_watch", first.id), {}, source="outlook")])
    (second,) = keep()
    assert (second.id == first.id) is same
    assert second != first
    calls = len(asked(served))
    assert keep() == [second]
    assert len(asked(served)) == calls


def test_without_a_secret_the_variable_is_named(
    served: Running, calendars: Calendars, log: EventLog, warehouse: Warehouse
) -> None:
    client = MAKERS[calendars.service.partition("_")[0]](served, watch_secret=None)
    with pytest.raises(PivotalError, match=r"PIVOTAL_\w+_WATCH_SECRET"):
        keep_watches(client, [PRIMARY], "http://127.0.0.1:9", log, warehouse, run_id="run")
    client.close()
