from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.envelope import Event
from projections import project
from projections.tables import ProjectionError
from tests.projections.samples import NOON, calendar_event, event


def row(event: Event) -> dict[str, Any]:
    (only,) = project(event)
    return only.record()


def moment(seconds: float) -> str:
    return (datetime.fromtimestamp(NOON, UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize("service", ["google", "outlook"])
def test_an_event_that_was_read_is_a_row_of_its_service(service: str) -> None:
    told = row(calendar_event("updated", "k1", service=service))
    assert [told[name] for name in ("service", "calendar_id", "calendar_event_id", "status", "title")] == [
        service,
        "primary",
        "e1",
        "confirmed",
        "Demo",
    ]
    assert told["starts_at"] == datetime(2027, 3, 1, 8, tzinfo=UTC)
    assert told["organizer"] == "ann@example.com"


def test_an_event_that_is_gone_keeps_its_row() -> None:
    told = row(calendar_event("deleted", "k1"))
    assert (told["status"], told["title"]) == ("deleted", "Demo")


@pytest.mark.parametrize(
    "kind",
    ["google.calendar.changed", "google.calendar.sync", "outlook.calendar.changed", "outlook.subscription.missed"],
)
def test_a_notification_has_no_row(kind: str) -> None:
    assert project(event(kind, "n1", NOON, {"channel_id": "c1"})) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"starts_at": "tomorrow"}, "data.starts_at: Value error"),
        ({"starts_at": "2027-03-01T08:00:00"}, "data.starts_at: Value error"),
        ({"attendees": "3"}, "data.attendees: Input should be a valid integer"),
        ({"title": "A\x00"}, "data.title: Value error, has a NUL character"),
        ({"calendar_event_id": ""}, "data.calendar_event_id: String should have at least 1 character"),
    ],
)
def test_a_value_that_no_column_holds_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProjectionError) as refused:
        row(calendar_event("updated", "k1", **changes))
    assert reason in str(refused.value)
    assert "tomorrow" not in str(refused.value)


def test_the_services_own_order_counts_before_when_it_was_read() -> None:
    older = row(calendar_event("updated", "k1", NOON, read_at=moment(9)))
    newer = row(calendar_event("updated", "k2", NOON + 1, read_at=moment(2)))
    assert older["version"] < newer["version"]


def test_of_two_versions_of_one_moment_the_one_that_was_read_later_is_newer() -> None:
    first = row(calendar_event("updated", "k9", read_at=moment(0.000001)))
    second = row(calendar_event("updated", "k1", read_at=moment(0.000002)))
    assert first["version"] < second["version"]


def test_all_versions_have_one_length() -> None:
    never = "0001-01-01T00:00:00+00:00"
    told = [
        row(calendar_event("updated", f"k{n}", updated_at=at)) for n, at in enumerate([never, moment(0), moment(9e9)])
    ]
    assert len({len(each["version"]) for each in told}) == 1
    assert [each["version"] for each in told] == sorted(each["version"] for each in told)


STEPS = st.lists(st.tuples(st.sampled_from(["updated", "deleted"]), st.integers(0, 2)), min_size=1, max_size=12)


@given(steps=STEPS, seed=st.integers(0, 1000))
def test_whatever_order_its_history_comes_in_the_last_state_stays(steps: list[tuple[str, int]], seed: int) -> None:
    """A deletion is of the version before it; several changes may have one time at the service."""
    history, changed = [], 0
    for number, (what, later) in enumerate(steps):
        changed += later if what == "updated" else 0
        told: dict[str, Any] = {"updated_at": moment(changed), "read_at": moment(100 + number), "etag": str(number)}
        history.append(calendar_event(what, f"k{number}", **told))
    arrivals = history + random.Random(seed).sample(history, k=len(history) // 2)
    random.Random(seed).shuffle(arrivals)
    winner = max((row(each) for each in arrivals), key=lambda each: str(each["version"]))
    assert winner == row(history[-1])
