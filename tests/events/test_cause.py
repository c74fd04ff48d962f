from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from events.cause import Cause, caused_by, current_cause, new_event
from events.envelope import Event


def made() -> Event:
    return new_event("test.happened", ("thing", "1"), {"a": 1}, source="test")


def test_an_event_without_a_cause_is_the_first_of_its_own() -> None:
    event = made()

    assert event.metadata.correlation_id == event.metadata.dedupe_key == event.id
    assert event.metadata.causation_id is None
    assert current_cause() is None


def test_an_event_inherits_what_its_cause_belongs_to() -> None:
    cause = Cause("request-1", user_id="ada", organization_id="acme", trace_id="t")
    with caused_by(cause):
        first = made()
    with caused_by(Cause.of(first)):
        second = made()

    assert first.metadata.model_dump(exclude={"source", "dedupe_key"}) == cause._asdict()
    assert second.metadata.causation_id == first.id
    assert (second.metadata.correlation_id, second.metadata.user_id) == ("request-1", "ada")
    assert (second.metadata.organization_id, second.metadata.trace_id) == ("acme", "t")


def test_the_cause_ends_with_its_block_even_if_that_fails() -> None:
    with suppress(ValueError), caused_by(Cause("outer")), caused_by(Cause("inner")):
        raise ValueError

    assert current_cause() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: asyncio.run(asyncio.to_thread(made)),
        lambda: asyncio.run(_in_a_task()),
    ],
    ids=["a thread", "a task"],
)
def test_the_cause_goes_along_into(call: Callable[[], Event]) -> None:
    with caused_by(Cause("request-1")):
        assert call().metadata.correlation_id == "request-1"


async def _in_a_task() -> Event:
    return await asyncio.create_task(_made())


async def _made() -> Event:
    return made()
