"""One interface, two services: every test here passes through Google and through Outlook, over a real socket."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import pytest

from errors import PivotalError
from events.log import EventLog, open_log
from integrations.breaker import BreakerPolicy
from integrations.calendar import (
    PRIMARY,
    CalendarConflictError,
    CalendarEvent,
    CalendarIntegrationError,
    Calendars,
    Draft,
)
from integrations.calls import RetryBudget
from sandbox import google, graph
from sandbox.app import Forgotten, Moved
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from tests.integrations.calendars import (
    ADDRESS,
    BERLIN,
    DEMO,
    NINE,
    SECRET,
    YEAR,
    google_calendar,
    impatient,
    later,
    outlook_calendar,
    series,
)
from tests.integrations.web import Asked, Reply, Web

TRIES = 3
QUICK = RetryBudget(attempts=TRIES, first_wait=0.001, longest_wait=2.0)
TEAMS = {"google": google.TEAM, "graph": graph.TEAM}


class Opens(Protocol):
    """Opens a client of the service that the test is about."""

    name: str

    def __call__(self, log: EventLog | None = None, **config: Any) -> Calendars: ...


MAKERS: dict[str, Callable[..., Any]] = {"google": google_calendar, "graph": outlook_calendar}
USUAL = {"retry": QUICK, "breaker": BreakerPolicy(failures=1000)}


@pytest.fixture(scope="module", params=list(MAKERS))
def _shared(request: pytest.FixtureRequest, _server: Running) -> Iterator[tuple[str, Any]]:
    client = MAKERS[request.param](_server, **USUAL)
    yield request.param, client
    client.close()


@pytest.fixture
def opens(_shared: tuple[str, Any], served: Running) -> Iterator[Opens]:
    with ExitStack() as open_ones:

        def opens(log: EventLog | None = None, **config: Any) -> Calendars:
            client = MAKERS[opens.name](served, log, **{**USUAL, **config})  # type: ignore[attr-defined]
            open_ones.callback(client.close)
            return client  # type: ignore[no-any-return]

        opens.name = _shared[0]  # type: ignore[attr-defined]
        yield opens  # type: ignore[misc]


@pytest.fixture
def calendar(_shared: tuple[str, Any], served: Running) -> Calendars:  # noqa: ARG001  (it makes the sandbox as new)
    """The client that the tests share: opening one takes longer than most of them."""
    return _shared[1]  # type: ignore[no-any-return]


def fail(served: Running, opens: Opens, **how: Any) -> None:
    served.sandbox.wire.misbehave(Misbehaviour.model_validate({"service": opens.name, "calls": 50, **how}))


def tries(served: Running, opens: Opens) -> int:
    return sum(call.service == opens.name for call in served.sandbox.wire.calls)


def test_the_life_of_an_event(calendar: Calendars) -> None:
    made = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    assert made.draft == DEMO
    assert made == calendar.get(PRIMARY, made.id)
    moved = calendar.update(made, later(replace(made.draft, title="Demo, moved", location=""), days=1))
    assert (moved.id, moved.draft.title, moved.draft.location) == (made.id, "Demo, moved", "")
    assert (moved.draft.start, moved.draft.attendees) == (NINE + timedelta(days=1), DEMO.attendees)
    assert moved.etag != made.etag
    assert [each.draft for each in calendar.list(PRIMARY)] == [moved.draft]
    calendar.delete(PRIMARY, made.id)
    assert [*calendar.list(PRIMARY)] == []


def test_calendars_are_listed_and_each_has_its_own_events(calendar: Calendars, opens: Opens) -> None:
    team = TEAMS[opens.name]
    listed = {each.id: each for each in calendar.calendars()}
    assert [each.primary for each in listed.values()] == [True, False]
    assert (listed[team].name, listed[team].writable) == ("Team", True)
    calendar.create(team, DEMO, operation_id="demo-1")
    calendar.create(PRIMARY, replace(DEMO, title="Mine"), operation_id="demo-1")
    assert [each.draft.title for each in calendar.list(team)] == ["Demo"]
    assert [each.draft.title for each in calendar.list(PRIMARY)] == ["Mine"]
    assert [each.draft.title for page in calendar.changes(team, *YEAR) for each in page.events] == ["Demo"]


@pytest.mark.parametrize(
    ("zone", "kept"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("America/New_York", "America/New_York"),
        ("Asia/Kolkata", "Asia/Calcutta"),
        ("Asia/Kathmandu", "Asia/Katmandu"),
    ],
)
def test_a_time_keeps_its_moment_and_its_zone(calendar: Calendars, zone: str, kept: str) -> None:
    start = datetime(2027, 7, 1, 9, 30, tzinfo=ZoneInfo(zone))
    draft = Draft(title="Call", start=start, end=start + timedelta(minutes=45))
    made = calendar.create(PRIMARY, draft, operation_id=zone)
    assert (made.draft.start, made.draft.end) == (draft.start, draft.end)
    assert isinstance(made.draft.start, datetime)
    assert made.draft.start.replace(tzinfo=None) == start.replace(tzinfo=None)
    assert str(made.draft.start.tzinfo) in {zone, kept}


def test_utc_is_a_zone_too(calendar: Calendars) -> None:
    draft = Draft(title="Call", start=datetime(2027, 7, 1, 9, tzinfo=UTC), end=datetime(2027, 7, 1, 10, tzinfo=UTC))
    assert calendar.create(PRIMARY, draft, operation_id="call").draft == draft


def test_an_event_that_lasts_whole_days_is_told_in_days(calendar: Calendars) -> None:
    draft = Draft(title="Fair", start=date(2027, 5, 1), end=date(2027, 5, 4))
    made = calendar.create(PRIMARY, draft, operation_id="fair")
    assert made.draft == draft
    assert [each.draft.start for each in calendar.instances(PRIMARY, *YEAR)] == [date(2027, 5, 1)]
    timed = calendar.update(made, replace(draft, start=NINE, end=NINE + timedelta(hours=2)))
    assert (timed.draft.all_day, timed.draft.start) == (False, NINE)
    assert calendar.update(timed, draft).draft == draft


def test_a_series_is_one_event_and_takes_place_at_the_same_hour_all_year(calendar: Calendars) -> None:
    """The clocks go forward on 28 March 2027 in Berlin."""
    made = calendar.create(PRIMARY, series(count=5), operation_id="weekly")
    assert [each.id for each in calendar.list(PRIMARY)] == [made.id]
    assert made.draft == series(count=5)
    instances = [*calendar.instances(PRIMARY, *YEAR)]
    starts = [each.draft.start for each in instances]
    assert starts == [NINE + timedelta(weeks=week) for week in range(5)]
    assert [start.utcoffset() for start in starts if isinstance(start, datetime)] == [timedelta(hours=1)] * 4 + [
        timedelta(hours=2)
    ]
    assert {each.series_id for each in instances} == {made.id}
    assert {each.draft.recurrence for each in instances} == {()}
    assert len([*calendar.instances(PRIMARY, NINE, NINE + timedelta(days=8))]) == 2


def test_one_instance_of_a_series_is_changed_or_taken_away(calendar: Calendars) -> None:
    calendar.create(PRIMARY, series(), operation_id="weekly")
    first, second, third = calendar.instances(PRIMARY, *YEAR)
    moved = calendar.update(second, later(replace(second.draft, title="Later"), hours=3))
    assert moved.id == second.id
    calendar.delete(PRIMARY, third.id)
    now = [(each.id, each.draft.title, each.draft.start) for each in calendar.instances(PRIMARY, *YEAR)]
    assert now == [(first.id, "Demo", NINE), (second.id, "Later", NINE + timedelta(weeks=1, hours=3))]
    assert calendar.get(PRIMARY, second.id).draft.title == "Later"


def test_the_sandbox_has_the_same_history_at_both(calendar: Calendars, served: Running) -> None:
    served.sandbox.seed(30)
    week = (datetime(2026, 11, 16, tzinfo=BERLIN), datetime(2026, 11, 21, tzinfo=BERLIN))
    found = {each.draft.title: each.draft.start for each in calendar.instances(PRIMARY, *week)}
    assert found["Team meeting"] == datetime(2026, 11, 16, 9, 30, tzinfo=BERLIN)
    assert found["Fair"] == date(2026, 11, 17)
    assert len([*calendar.list(PRIMARY)]) == 2 + 3


def test_people_can_meet_online(calendar: Calendars) -> None:
    offline = calendar.create(PRIMARY, DEMO, operation_id="offline")
    assert (offline.draft.online_meeting, offline.meeting_url) == (False, None)
    online = calendar.update(offline, replace(offline.draft, online_meeting=True))
    assert (online.draft.online_meeting, str(online.meeting_url)[:8]) == (True, "https://")
    assert calendar.create(PRIMARY, replace(DEMO, online_meeting=True), operation_id="online").meeting_url


def test_an_operation_makes_one_event_however_often_it_is_run(
    calendar: Calendars, opens: Opens, served: Running
) -> None:
    fail(served, opens, kind="reset", done=True, calls=2)
    made = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    assert tries(served, opens) >= TRIES
    assert opens().create(PRIMARY, DEMO, operation_id="demo-1") == made
    assert calendar.create(PRIMARY, DEMO, operation_id="demo-2").id != made.id
    assert len([*calendar.list(PRIMARY)]) == 2


def test_what_was_changed_meanwhile_is_a_conflict_and_stays(calendar: Calendars) -> None:
    read = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    calendar.update(read, replace(DEMO, title="First"))
    with pytest.raises(CalendarConflictError, match="412") as caught:
        calendar.update(read, replace(DEMO, title="Second"))
    assert (caught.value.retryable, caught.value.code) == (False, "conflict")
    with pytest.raises(CalendarConflictError):
        calendar.delete(PRIMARY, read.id, etag=read.etag)
    assert calendar.get(PRIMARY, read.id).draft.title == "First"


def test_a_change_that_is_there_already_is_no_conflict(calendar: Calendars, opens: Opens, served: Running) -> None:
    read = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    served.sandbox.wire.calls.clear()
    fail(served, opens, kind="reset", done=True, calls=1)
    changed = calendar.update(read, replace(DEMO, title="First"))  # done, then tried again: 412, and looked up
    assert (changed.draft.title, tries(served, opens)) == ("First", 3)
    assert calendar.update(read, replace(DEMO, title="First")) == changed
    assert calendar.update(changed, changed.draft) is changed


def test_deleting_what_is_gone_is_fine(calendar: Calendars, opens: Opens, served: Running) -> None:
    made = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    fail(served, opens, kind="reset", done=True, calls=1)
    calendar.delete(PRIMARY, made.id)
    calendar.delete(PRIMARY, made.id)
    calendar.delete(PRIMARY, "0123456789abcdef")
    assert [*calendar.list(PRIMARY)] == []


def test_changes_are_told_from_where_the_last_time_ended(calendar: Calendars) -> None:
    first = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    (everything,) = calendar.changes(PRIMARY, *YEAR)
    assert ([each.id for each in everything.events], everything.removed, everything.reset) == ([first.id], (), True)
    weekly = calendar.create(PRIMARY, series(title="Weekly"), operation_id="weekly")
    (more,) = calendar.changes(PRIMARY, *YEAR, token=everything.token)
    instances = [*calendar.instances(PRIMARY, *YEAR)]
    assert {each.id: each.draft for each in more.events} == {
        each.id: each.draft for each in instances if each.series_id == weekly.id
    }
    assert (len(more.events), more.reset) == (3, False)
    calendar.delete(PRIMARY, first.id)
    (less,) = calendar.changes(PRIMARY, *YEAR, token=more.token)
    assert (less.events, less.removed) == ((), (first.id,))
    (nothing,) = calendar.changes(PRIMARY, *YEAR, token=less.token)
    assert (nothing.events, nothing.removed, nothing.token is None) == ((), (), False)


def test_who_works_off_all_changes_knows_what_takes_place(calendar: Calendars) -> None:
    known: dict[str, CalendarEvent] = {}
    token = None
    made: dict[str, CalendarEvent] = {}

    def instance(number: int) -> CalendarEvent:
        return [each for each in calendar.instances(PRIMARY, *YEAR) if each.series_id == made["weekly"].id][number]

    def make(name: str, draft: Draft) -> None:
        made[name] = calendar.create(PRIMARY, draft, operation_id=name)

    steps: list[Callable[[], object]] = [
        lambda: make("one", DEMO),
        lambda: make("weekly", series(count=4)),
        lambda: calendar.delete(PRIMARY, instance(1).id),
        lambda: calendar.update(instance(0), later(replace(instance(0).draft, title="Later"), hours=1)),
        lambda: calendar.update(made["one"], later(DEMO, days=400)),  # out of sight
        lambda: calendar.update(calendar.get(PRIMARY, made["weekly"].id), series(count=2, title="Fewer")),
        lambda: make("another", replace(DEMO, title="Another")),
        lambda: calendar.delete(PRIMARY, made["weekly"].id),
        lambda: calendar.delete(PRIMARY, made["another"].id),
    ]
    for step in steps:
        step()
        for page in calendar.changes(PRIMARY, *YEAR, token=token):
            known = page.applied(known)
            token = page.token or token
        now = {each.id: each.draft for each in calendar.instances(PRIMARY, *YEAR)}
        assert {id_: each.draft for id_, each in known.items()} == now
    assert known == {}


def test_a_token_that_the_service_has_forgotten_means_everything_again(
    calendar: Calendars, opens: Opens, served: Running
) -> None:
    calendar.create(PRIMARY, series(), operation_id="weekly")
    (everything,) = calendar.changes(PRIMARY, *YEAR)
    served.sandbox.forget(Forgotten(service=opens.name))
    (again,) = calendar.changes(PRIMARY, *YEAR, token=everything.token)
    assert (again.reset, len(again.events)) == (True, 3)
    assert again.token != everything.token


def test_long_lists_come_in_pages(
    calendar: Calendars, opens: Opens, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("google", "outlook"):
        monkeypatch.setattr(f"integrations.calendar.{module}._PAGE", 2)
    made = [calendar.create(PRIMARY, later(DEMO, days=day), operation_id=f"demo-{day}").id for day in range(5)]
    for listed in (calendar.list(PRIMARY), calendar.instances(PRIMARY, *YEAR)):
        served.sandbox.wire.calls.clear()
        assert sorted(each.id for each in listed) == sorted(made)
        assert tries(served, opens) == 3
    pages = [*calendar.changes(PRIMARY, *YEAR)]
    assert [len(page.events) for page in pages] == [2, 2, 1]
    assert [page.reset for page in pages] == [True, False, False]
    assert [page.token is None for page in pages] == [True, True, False]


def test_a_watch_is_told_of_changes_until_it_is_stopped_or_ends(
    calendar: Calendars, opens: Opens, served: Running, web: Web
) -> None:
    web.answer = answer
    watch = calendar.watch(PRIMARY, f"{web.url}/hook", lifetime=timedelta(days=2))
    assert timedelta(days=1) < watch.expires - datetime.now(UTC) < timedelta(days=3)
    made = calendar.create(PRIMARY, DEMO, operation_id="demo-1")
    until(lambda: any(told(opens, each) == ("change", watch.id, SECRET) for each in web.asked))
    renewed = calendar.renew(watch, lifetime=timedelta(days=4))
    assert renewed.expires - watch.expires > timedelta(days=1)
    calendar.delete(PRIMARY, made.id)
    until(lambda: sum(told(opens, each) == ("change", renewed.id, SECRET) for each in web.asked) > (renewed == watch))
    sent = len(served.sandbox.webhooks.deliveries)
    served.sandbox.advance(Moved(seconds=5 * 86_400))
    calendar.create(PRIMARY, DEMO, operation_id="demo-2")
    assert len(served.sandbox.webhooks.deliveries) == sent
    again = calendar.renew(renewed, lifetime=timedelta(days=6))
    assert again.id != renewed.id
    calendar.stop(again)
    calendar.stop(again)
    sent = len(served.sandbox.webhooks.deliveries)
    calendar.create(PRIMARY, DEMO, operation_id="demo-3")
    assert len(served.sandbox.webhooks.deliveries) == sent


# how the service fails -> whether a repetition can help; the other operations: see the contract
FAILURES: dict[str, tuple[dict[str, Any], bool]] = {
    **{str(status): ({"kind": "error", "status": status}, False) for status in (400, 401, 402, 403, 404, 409)},
    "429": ({"kind": "error", "status": 429, "retry_after": "0"}, True),
    "500": ({"kind": "error", "status": 500}, True),
    "502 in HTML": ({"kind": "html", "status": 502}, True),
    "reset": ({"kind": "reset"}, True),
    "half an answer": ({"kind": "cut"}, True),
    "no answer": ({"kind": "slow", "delay": 60}, True),
}


@pytest.mark.parametrize("failure", list(FAILURES))
def test_deletions_are_safe_to_repeat_and_a_watch_that_may_be_there_is_not_asked_for_again(
    opens: Opens, served: Running, web: Web, failure: str
) -> None:
    web.answer = answer
    (how, helps), calendar = FAILURES[failure], opens()
    watch = calendar.watch(PRIMARY, f"{web.url}/hook")
    impatient(calendar, 0.03 if failure == "no answer" else 5.0)
    acts: dict[str, Callable[[], object]] = {
        "events.delete": lambda: calendar.delete(PRIMARY, "0"),
        "watches.stop": lambda: calendar.stop(watch),
        "watches.create": lambda: calendar.watch(PRIMARY, f"{web.url}/hook"),
        "watches.renew": lambda: calendar.renew(watch),
    }
    fail(served, opens, **how)
    for name, act in acts.items():
        served.sandbox.wire.calls.clear()
        error = attempt(act)
        if failure == "404" and name in {"events.delete", "watches.stop"}:
            assert (error, tries(served, opens)) == (None, 1)
            continue
        # A lapsed watch, and any of Google's, is renewed by a new one.
        new = name == "watches.renew" and (opens.name == "google" or failure == "404")
        once = new or name == "watches.create"
        again = (failure == "401") + (failure == "404" and name == "watches.renew" and opens.name == "graph")
        assert isinstance(error, CalendarIntegrationError)
        assert error.operation == ("watches.create" if new else name)
        assert tries(served, opens) == (TRIES if helps and not once else 1 + again), name
        assert error.retryable == (helps and (not once or failure == "429")), name


def attempt(act: Callable[[], object]) -> Exception | None:
    try:
        act()
    except CalendarIntegrationError as error:
        return error
    return None


def test_a_token_that_ends_is_renewed_without_a_word(opens: Opens, served: Running) -> None:
    calendar = opens()
    assert len([*calendar.calendars()]) == 2
    served.sandbox.advance(Moved(seconds=7200))
    assert len([*calendar.calendars()]) == 2
    assert sum("token" in call.path for call in served.sandbox.wire.calls) == 2


@pytest.mark.parametrize(("status", "count"), [(503, TRIES), (400, 1)])
def test_who_gives_no_token_is_asked_within_the_same_budget(
    opens: Opens, served: Running, status: int, count: int
) -> None:
    login = {"google": "google-login", "graph": "microsoft-login"}[opens.name]
    rule = {"service": login, "kind": "error", "status": status, "calls": 50}
    served.sandbox.wire.misbehave(Misbehaviour.model_validate(rule))
    with pytest.raises(CalendarIntegrationError) as caught:
        opens().create(PRIMARY, DEMO, operation_id="demo-1")
    assert [call.service for call in served.sandbox.wire.calls] == [login] * count
    assert caught.value.retryable == (count > 1)
    assert caught.value.hint


def test_changes_are_events_on_the_log_once_and_nothing_personal_is_told(
    opens: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    draft = series(title="Dentist", description="Root canal")
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as log:
        calendar = opens(log)
        made = calendar.create(PRIMARY, draft, operation_id="demo-1")
        calendar.create(PRIMARY, draft, operation_id="demo-1")
        changed = calendar.update(made, replace(draft, title="Barber"))
        calendar.update(made, replace(draft, title="Barber"))
        with pytest.raises(CalendarIntegrationError) as caught:
            calendar.create(ADDRESS if opens.name == "google" else "AAMkA", draft, operation_id="demo-2")
        calendar.delete(PRIMARY, made.id)
        calendar.delete(PRIMARY, made.id)
        events = [each.event for each in log.read(0, 100)]
    kinds = ["created", "updated", "deleted"]
    assert [each.type for each in events] == [f"pivotal.{calendar.service}.event.{kind}" for kind in kinds]
    assert {(each.aggregate_type, each.aggregate_id) for each in events} == {("calendar_event", made.id)}
    assert events[0].data == {"calendar": PRIMARY, "series": None, "recurring": True, "all_day": False}
    shown = caplog.text + "".join(capfd.readouterr()) + "".join(traceback.format_exception(caught.value))
    shown += repr(events) + repr((made, changed, [*calendar.calendars()])) + repr(vars(calendar))
    personal = (
        ADDRESS,
        "ada%40",
        "Dentist",
        "Root canal",
        "Room 1",
        SECRET,
        graph.USER,
        google.USER,
        "ya29.",
        "eyJ0.",
        "1//",
    )
    assert not [each for each in personal if each in shown]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": datetime(2027, 3, 1, 9)}, "no zone with a name"),  # noqa: DTZ001  (that is what is wrong)
        ({"start": date(2027, 3, 1)}, "with a time, or with a day"),
        ({"end": NINE - timedelta(hours=1)}, "ends before it starts"),
        ({"recurrence": ("FREQ=DAILY",)}, "not RFC 5545's"),
    ],
)
def test_a_draft_that_is_none_is_refused_before_anything_is_sent(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PivotalError, match=message):
        replace(DEMO, **wrong)


def answer(asked: Asked) -> Reply:
    """What a receiver answers: Graph asks first whether there is one."""
    token = asked.params.get("validationToken")
    return Reply({}) if token is None else Reply(token.encode(), headers={"Content-Type": "text/plain"})


def told(opens: Opens, asked: Asked) -> tuple[str, str, str] | None:
    """What a notification is of, which watch it is for, and its secret."""
    if opens.name == "google":
        header = asked.headers
        what = {"exists": "change"}.get(header["x-goog-resource-state"], "hello")
        return what, header["x-goog-channel-id"], header["x-goog-channel-token"]
    if not asked.body:
        return None
    (one,) = json.loads(asked.body)["value"]
    return "change", one["subscriptionId"], one["clientState"]


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
